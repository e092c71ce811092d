//! Looking at the machine: files and a handful of quick programs, no network.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::linker;
use super::packages;
use super::plan::{Facts, Purpose};
use crate::toolchain;

/// Where bpffs belongs.
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// Gathers everything that [`super::plan::plan`] decides from.
///
/// # Errors
/// There is no usable rustc, or no home for the cache.
pub(super) fn gather() -> Result<Facts> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut facts = Facts {
        root: effective_uid() == Some(0),
        os: os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        kernel: kernel_version(
            &fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default(),
        ),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        cgroup2: mount_point(&mounts, "cgroup2", None),
        bpffs: mount_point(&mounts, "bpf", Some(BPFFS)).is_some(),
        packages: BTreeSet::new(),
        user_rust: toolchain::user_rust()?,
        ebpf_rust: toolchain::ebpf_rust(),
        linkers: linker::usable()?,
        object_given: super::object::given().is_some(),
    };
    facts.packages = installed(
        packages::needed(Purpose::Test, facts.llvm_major(), true)
            .iter()
            .map(|package| package.name.as_str()),
    );
    Ok(facts)
}

fn effective_uid() -> Option<u32> {
    // Real, effective, saved and file system UID follow the name.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("Uid:"))?;
    line.split_whitespace().nth(2)?.parse().ok()
}

/// ID and VERSION_ID of os-release(5).
fn os_release(text: &str) -> (String, String) {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map_or_else(
                || "unknown".to_owned(),
                |value| value.trim().trim_matches(['"', '\'']).to_owned(),
            )
    };
    (field("ID"), field("VERSION_ID"))
}

/// Major and minor of a release such as `6.1.0-28-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The first mount of `kind` in a mountinfo table (proc(5)), on `point` if that
/// is asked for.
fn mount_point(mountinfo: &str, kind: &str, point: Option<&str>) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let found = before.split(' ').nth(4)?;
        let matches = after.split(' ').next() == Some(kind) && point.is_none_or(|p| p == found);
        matches.then(|| PathBuf::from(found))
    })
}

/// Which of `names` are installed. Asks dpkg's own list: apt would take
/// seconds. Where there is no dpkg, none is.
fn installed<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package}\t${db:Status-Abbrev}\n"])
        .args(names)
        .output();
    // It fails when it knows one of the names not at all, and lists the others.
    output
        .map(|output| parse_dpkg(&String::from_utf8_lossy(&output.stdout)))
        .unwrap_or_default()
}

fn parse_dpkg(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        // Wanted state, then actual state: `ii `, or `hi ` for a held package.
        .filter(|(_, status)| status.as_bytes().get(1) == Some(&b'i'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nID=debian\nID_LIKE=x\n";
        assert_eq!(os_release(text), ("debian".to_owned(), "12".to_owned()));
        assert_eq!(os_release("").0, "unknown");
    }

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(kernel_version("6.1.0-28-amd64\n"), Some((6, 1)));
        assert_eq!(kernel_version("6.18-rc1"), Some((6, 18)));
        assert_eq!(kernel_version("6.6+"), Some((6, 6)));
        assert_eq!(kernel_version("linux"), None);
    }

    #[test]
    fn mounts_are_found_by_kind_and_place() {
        let table = "\
            30 20 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
            42 31 0:39 / /run/other rw - bpf bpf rw\n";
        assert_eq!(
            mount_point(table, "cgroup2", None),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(mount_point(table, "bpf", Some("/sys/fs/bpf")), None);
        assert!(mount_point(table, "bpf", Some("/run/other")).is_some());
    }

    #[test]
    fn only_installed_packages_count() {
        let text = "gcc\tii \nbind9\trc \ndnsutils\tun \nbpftool\thi \ntcpdump\tiU \n";
        let expected = ["bpftool", "gcc"].map(str::to_owned);
        assert_eq!(parse_dpkg(text), BTreeSet::from(expected));
    }
}
