//! The demo on manifests that other projects wrote, unchanged.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use berth_lab::{binaries, require, require_binaries, require_root, skip};

/// Runs the demo; every check must succeed.
fn demo(manifests: &[PathBuf]) -> Result<String> {
    let output = Command::new(binaries::find("berth-lab")?)
        .arg("demo")
        .args(manifests)
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let noted = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{noted}\n{told}");
    ensure!(told.contains(" checks succeeded"), "{told}");
    Ok(told)
}

macro_rules! manifests {
    ($($name:literal),+) => {{
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-dns");
        let mut paths: Vec<PathBuf> = Vec::new();
        $(
            match require::realworld($name) {
                Ok(path) => paths.push(path),
                Err(why) => skip!("{why:#}"),
            }
        )+
        paths
    }};
}

#[test]
fn online_boutique() -> Result<()> {
    let told = demo(&manifests!("online-boutique.yaml"))?;
    assert!(told.contains("default/frontend-external"), "{told}");
    Ok(())
}

#[test]
fn guestbook() -> Result<()> {
    let told = demo(&manifests!("guestbook.yaml"))?;
    assert!(
        told.contains("redis-replica-default.apps.corp.example"),
        "{told}"
    );
    Ok(())
}

#[test]
fn cassandra() -> Result<()> {
    let told = demo(&manifests!("cassandra.yaml"))?;
    for number in 0..3 {
        let name = format!("cassandra-{number}.cassandra-default.apps.corp.example");
        assert!(told.contains(&name), "{told}");
    }
    Ok(())
}

#[test]
fn all_of_them_with_the_example() -> Result<()> {
    let mut manifests = manifests!("online-boutique.yaml", "guestbook.yaml", "cassandra.yaml");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../lab/examples/shop.yaml");
    manifests.push(example.into());
    let told = demo(&manifests)?;
    assert!(told.contains("30 pods have an address"), "{told}");
    Ok(())
}
