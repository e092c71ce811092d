//! `berth-kube up` takes everything with it, however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use berth_kube::eventually;
use berth_lab::skip;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Starts it and returns its cluster's folder.
fn up() -> Result<(Child, PathBuf)> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_berth-kube"))
        .arg("up")
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = program.stdout.take().context("asked for above")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let kubeconfig = Path::new(line.trim_end());
    ensure!(kubeconfig.is_file(), "it says {line:?}");
    let folder = kubeconfig.parent().context("a file in a folder")?;
    Ok((program, folder.to_owned()))
}

/// The names of the programs that run in `folder`.
fn running_in(folder: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names: Vec<_> = processes
        .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
        .filter_map(|process| fs::read_to_string(process.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn nothing_is_left_after_a_kill_and_after_ctrl_c() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let (mut killed, its_folder) = up()?;
    assert_eq!(running_in(&its_folder), ["etcd", "kube-apiserver"]);
    killed.kill()?;
    killed.wait()?;
    eventually("the end of the programs", || {
        let left = running_in(&its_folder);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;

    // The next one removes the files that the killed one could not.
    let (mut stopped, folder) = up()?;
    assert!(!its_folder.exists());
    kill(Pid::from_raw(i32::try_from(stopped.id())?), Signal::SIGINT)?;
    assert!(stopped.wait()?.success());
    assert_eq!(running_in(&folder), [""; 0]);
    assert!(!folder.exists());
    Ok(())
}

#[test]
fn a_program_that_it_does_not_know_is_refused_with_those_it_knows() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_berth-kube"))
        .args(["build", "kubeadm"])
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    assert!(!output.status.success());
    assert!(said.contains("there is kube-apiserver, kubectl"), "{said}");
    Ok(())
}

/// What `build kubectl` says with nothing in the cache and this changed.
fn failed_build(change: impl FnOnce(&mut Command, &Path)) -> Result<String> {
    let cache = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-kube"));
    command
        .args(["build", "kubectl"])
        .env("BERTH_CACHE_DIR", cache.path());
    change(&mut command, cache.path());
    let output = command.output()?;
    ensure!(!output.status.success(), "it was built");
    let left: Vec<_> = fs::read_dir(cache.path().join("kube"))
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
        .map(|entry| entry.file_name())
        .filter(|name| name != "lock")
        .collect();
    ensure!(left.is_empty(), "{left:?} looks as if it had been built");
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn without_go_it_says_so() -> Result<()> {
    let said = failed_build(|command, empty| {
        command.env("PATH", empty);
    })?;
    assert!(said.contains("go is not in PATH"), "{said}");
    assert!(said.contains("install Go 1.24 or later"), "{said}");
    Ok(())
}

#[test]
fn without_modules_it_says_what_go_says() -> Result<()> {
    if Command::new("go").arg("version").output().is_err() {
        skip!("go is not in PATH: install Go 1.24 or later");
    }
    let said = failed_build(|command, empty| {
        command
            .env("GOPROXY", "off")
            .env("GOMODCACHE", empty.join("modules"));
    })?;
    assert!(
        said.contains("need Go's module proxy the first time"),
        "{said}"
    );
    assert!(said.contains("build kubectl: go says:"), "{said}");
    assert!(said.contains("GOPROXY=off"), "{said}");
    Ok(())
}
