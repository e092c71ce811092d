//! Which labs there are, whose they are, and their removal.
//!
//! A lab is a folder /run/berth-lab/NAME with a record of the process that
//! made it. It is dead when that process is gone: process numbers are used
//! again, so the record holds the process's start time too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{cgroup, mounts, netns};

const FOLDER: &str = "/run/berth-lab";
const FILE: &str = "lab.json";
/// A folder without a record is one that is just being made, unless it is old.
const GRACE: Duration = Duration::from_secs(60);

/// A lab's name and folder. Dropping it removes the lab.
#[derive(Debug)]
pub struct Record {
    /// The lab's name: letters and digits, unique on this machine.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Maker {
    pid: u32,
    /// Clock ticks between the machine's start and the process's.
    started: u64,
}

impl Record {
    /// Takes a new name for a lab of this process.
    ///
    /// # Errors
    /// If /run cannot be written.
    pub fn create() -> Result<Self> {
        fs::create_dir_all(FOLDER).with_context(|| format!("make {FOLDER}"))?;
        loop {
            let name = super::random_hex(2)?;
            let folder = Path::new(FOLDER).join(&name);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                made => made.with_context(|| format!("make {}", folder.display()))?,
            }
            let pid = std::process::id();
            let started = start_time(pid).context("this process is not in /proc")?;
            let text = serde_json::to_string(&Maker { pid, started })?;
            let file = folder.join(FILE);
            fs::write(folder.join(".new"), text)
                .and_then(|()| fs::rename(folder.join(".new"), &file))
                .with_context(|| format!("write {}", file.display()))?;
            return Ok(Self { name, folder });
        }
    }

    /// What the names of the lab's namespaces begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        prefix(&self.name)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!(
                "lab {}: not all was removed, `berth-lab sweep` tries again: {error:#}",
                self.name
            );
        }
    }
}

fn prefix(name: &str) -> String {
    format!("berth-{name}-")
}

/// Removes every dead lab; returns their names.
///
/// # Errors
/// The first thing that could not be removed; the rest is, and a second call
/// tries again.
pub fn sweep() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    let Ok(folder) = File::open(FOLDER) else {
        return Ok(swept);
    };
    // One sweeper at a time: two would trip over each other.
    let _lock = Flock::lock(folder, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {FOLDER}"))?;
    let entries = fs::read_dir(FOLDER).with_context(|| format!("list {FOLDER}"))?;
    let mut outcome = Ok(());
    for entry in entries {
        let name = entry.with_context(|| format!("list {FOLDER}"))?.file_name();
        let name = name.to_string_lossy().into_owned();
        if is_dead(&Path::new(FOLDER).join(&name)) {
            let done = remove(&name).with_context(|| format!("sweep lab {name}"));
            if done.is_ok() {
                swept.push(name);
            }
            outcome = outcome.and(done);
        }
    }
    outcome.map(|()| swept)
}

/// Removes every lab of this process.
///
/// # Errors
/// The first thing that could not be removed; the rest is.
pub fn remove_own() -> Result<()> {
    let mut outcome = Ok(());
    for entry in fs::read_dir(FOLDER).with_context(|| format!("list {FOLDER}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let maker = maker(&Path::new(FOLDER).join(&name));
        if maker.is_some_and(|maker| maker.pid == std::process::id()) {
            outcome = outcome.and(remove(&name));
        }
    }
    outcome
}

fn maker(folder: &Path) -> Option<Maker> {
    let text = fs::read_to_string(folder.join(FILE)).ok()?;
    serde_json::from_str(&text).ok()
}

fn is_dead(folder: &Path) -> bool {
    match maker(folder) {
        Some(maker) => start_time(maker.pid) != Some(maker.started),
        None => fs::metadata(folder)
            .and_then(|meta| meta.modified())
            .is_ok_and(|made| {
                SystemTime::now()
                    .duration_since(made)
                    .is_ok_and(|age| age > GRACE)
            }),
    }
}

/// Removes everything that the lab called `name` has: processes, cgroups,
/// namespaces, mounts, files. The folder goes last, and only if the rest went,
/// so that what is left over can be found again.
fn remove(name: &str) -> Result<()> {
    let mut errors = Vec::new();
    let mut note = |done: Result<()>| {
        if let Err(error) = done {
            errors.push(format!("{error:#}"));
        }
    };
    note(cgroup::of_lab(name).and_then(|path| cgroup::remove(&path)));
    match netns::with_prefix(&prefix(name)) {
        Ok(names) => names.iter().for_each(|name| note(netns::remove(name))),
        Err(error) => note(Err(error)),
    }
    let folder = Path::new(FOLDER).join(name);
    note(mounts::unmount_below(&folder));
    if errors.is_empty() {
        return fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()));
    }
    Err(anyhow!("{}", errors.join("; ")))
}

/// Field 22 of /proc/PID/stat; none if there is no such process. The second
/// field is the program's name in brackets, and may hold anything.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_start_time_whatever_the_program_is_called() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 10 11";
        assert_eq!(parse_start_time(stat), Some(98765));
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let started = start_time(pid).unwrap();
        let write = |maker: &Maker| {
            let text = serde_json::to_string(maker).unwrap();
            fs::write(folder.path().join(FILE), text).unwrap();
        };
        write(&Maker { pid, started });
        assert!(!is_dead(folder.path()));
        write(&Maker {
            pid,
            started: started + 1,
        });
        assert!(is_dead(folder.path()));
    }

    #[test]
    fn a_folder_that_is_being_made_is_not_dead() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_dead(folder.path()));
    }
}
