//! What the agent's process uses, by the names that every Prometheus client
//! has for it and dashboards count on.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use super::text::Kind::{Counter, Gauge};
use super::text::Page;

/// Where Linux says so.
const STAT: &str = "/proc/self/stat";

/// Leaves out what cannot be read.
pub(super) fn write(page: &mut Page) {
    let Some(usage) = fs::read_to_string(STAT)
        .ok()
        .and_then(|text| Usage::parse(&text))
    else {
        return;
    };
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let page_size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    if let Some(per_second) = per_second.and_then(|ticks| u32::try_from(ticks).ok()) {
        page.single(
            "process_cpu_seconds_total",
            Counter,
            "CPU time of the agent, in user and in kernel mode.",
            usage.ticks / f64::from(per_second),
        );
    }
    if let Some(size) = page_size.and_then(|size| u64::try_from(size).ok()) {
        page.single(
            "process_resident_memory_bytes",
            Gauge,
            "Memory of the agent that is in RAM; the kernel's maps are not in it.",
            usage.resident_pages * size,
        );
    }
}

#[derive(Debug, PartialEq)]
struct Usage {
    ticks: f64,
    resident_pages: u64,
}

impl Usage {
    /// Fields 14, 15 and 24 of proc_pid_stat(5). The second, the name, can
    /// hold spaces and parentheses, so counting begins after its last one.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3);
        let ticks = |number| field(number)?.parse::<f64>().ok();
        Some(Self {
            ticks: ticks(14)? + ticks(15)?,
            resident_pages: field(24)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 0 9 0 0 0 250 50 0 0 20 0 5 0 99 1000 321 0 0";
        let expected = Usage {
            ticks: 300.0,
            resident_pages: 321,
        };
        assert_eq!(Usage::parse(stat), Some(expected));
        assert_eq!(Usage::parse("7 (short) S 1"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let mut page = Page::default();
        write(&mut page);
        let text = page.into_text();
        let memory = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        assert!(memory.unwrap().parse::<u64>().unwrap() > 100_000);
    }
}
