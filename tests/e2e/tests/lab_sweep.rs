//! What a lab leaves behind: nothing when it is dropped, and nothing after a
//! sweep when its process was killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use berth_lab::ground::{cgroup, netns};
use berth_lab::{Lab, binaries, require_binaries, require_root};

/// All that a lab called `name` can leave.
fn remains(name: &str) -> Result<Vec<PathBuf>> {
    let prefix = format!("berth-{name}-");
    let mut found: Vec<_> = netns::with_prefix(&prefix)?
        .iter()
        .map(|name| netns::path(name))
        .collect();
    found.push(cgroup::of_lab(name)?);
    found.push(Path::new("/run/berth-lab").join(name));
    found.retain(|path| path.exists());
    Ok(found)
}

#[test]
fn a_dropped_lab_leaves_nothing() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni");
    let lab = Lab::builder().without_agent().without_dns().start()?;
    let name = lab.name().to_owned();
    assert!(
        remains(&name)?.len() >= 5,
        "wire, two nodes, VM, cgroup, folder"
    );
    let there = lab.vm(1).tcp("10.20.0.11:1").unwrap_err();
    assert_eq!(
        there.kind,
        berth_lab::probe::FailureKind::Refused,
        "{there}"
    );
    drop(lab);
    assert_eq!(remains(&name)?, [] as [PathBuf; 0]);
    Ok(())
}

#[test]
fn a_killed_demo_is_swept() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-dns");
    let lab = binaries::find("berth-lab")?;
    let mut demo = Command::new(&lab)
        .args(["demo", "--keep"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = demo.stdout.take().context("asked for above")?;
    // "Lab NAME: one wire, ..." is said when everything runs.
    let name = BufReader::new(stdout).lines().find_map(|line| {
        let line = line.ok()?;
        Some(line.strip_prefix("Lab ")?.split_once(':')?.0.to_owned())
    });
    demo.kill()?;
    demo.wait()?;
    let name = name.context("the demo ended before it had a lab")?;
    assert!(!remains(&name)?.is_empty(), "SIGKILL leaves everything");
    let swept = Command::new(&lab).arg("sweep").output()?;
    ensure!(
        swept.status.success(),
        "{}",
        String::from_utf8_lossy(&swept.stderr)
    );
    assert_eq!(remains(&name)?, [] as [PathBuf; 0]);
    Ok(())
}
