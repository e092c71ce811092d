//! The agent is not ready unless a connection from below its cgroup root is
//! translated; it says so, puts programs that were taken away back, and leaves
//! nothing behind.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::proxy::until;
use berth_lab::{Lab, Node, binaries, require_binaries, require_root, skip};

/// The canary comes every 5 s.
const WITHIN: Duration = Duration::from_secs(15);

macro_rules! require_everything {
    () => {
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent");
    };
}

fn lab() -> Result<Lab> {
    Lab::builder().nodes(1).vms(0).without_dns().start()
}

/// Status and body of `GET /readyz`.
fn readyz(socket: &Path) -> Result<(String, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").context("an HTTP reply")?;
    let status = head.split(' ').nth(1).context("a status")?;
    Ok((status.to_owned(), body.to_owned()))
}

/// Waits until the agent is not ready because of the canary, and then until it
/// is again, by itself.
fn falls_and_rises(node: &Node, what: &str) -> Result<()> {
    let told = RefCell::default();
    until(&format!("not ready: {what}"), WITHIN, || {
        let (status, body) = readyz(&node.agent_socket())?;
        told.replace(body);
        Ok(status == "503")
    })?;
    let told = told.take();
    let root = node.cgroup().display().to_string();
    assert!(told.contains("canary does not pass"), "{told}");
    assert!(
        told.contains(&root) && told.contains("--cgroup-root"),
        "{told}"
    );
    until(&format!("ready again: {what}"), WITHIN, || {
        Ok(readyz(&node.agent_socket())?.0 == "200")
    })?;
    Ok(())
}

#[test]
fn a_program_that_is_taken_away_is_missed_and_put_back() -> Result<()> {
    require_everything!();
    let lab = lab()?;
    let node = lab.node(1);
    let links = node.folder().join("bpf/berth/links");
    let names = || -> Result<BTreeSet<_>> {
        let entries = fs::read_dir(&links)?.collect::<Result<Vec<_>, _>>()?;
        Ok(entries.into_iter().map(|entry| entry.file_name()).collect())
    };
    let all = names()?;
    assert_eq!(readyz(&node.agent_socket())?.0, "200");
    // Removing the pin of a link detaches its program.
    for hook in ["connect4", "connect6", "getpeername4"] {
        fs::remove_file(links.join(hook))?;
        falls_and_rises(node, &format!("{hook} was unpinned"))?;
        assert_eq!(names()?, all, "{hook}");
    }
    fs::remove_dir_all(&links)?;
    falls_and_rises(node, "all were unpinned")?;
    assert_eq!(names()?, all);
    Ok(())
}

#[test]
fn a_link_that_is_detached_is_made_again() -> Result<()> {
    require_everything!();
    let lab = lab()?;
    let node = lab.node(1);
    let pin = node.folder().join("bpf/berth/links/connect4");
    let mut detach = Command::new("bpftool");
    detach.args(["link", "detach", "pinned"]).arg(&pin);
    let detached = match detach.output() {
        Err(why) => skip!("bpftool: {why}"),
        Ok(output) => output,
    };
    let told = String::from_utf8_lossy(&detached.stderr);
    assert!(detached.status.success(), "{told}");
    falls_and_rises(node, "the link was detached")
}

#[test]
fn its_cgroup_goes_with_the_agent_and_is_taken_over_after_a_crash() -> Result<()> {
    require_everything!();
    let lab = lab()?;
    let node = lab.node(1);
    let cgroup = node.cgroup().join("berth-canary");
    assert!(cgroup.exists());
    node.kill_agent()?;
    node.start_agent()?;
    // Asked to end, it takes the cgroup with it.
    let procs = fs::read_to_string(node.cgroup().join("host/cgroup.procs"))?;
    let is_agent = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "berth-agent")
    };
    let agents: Vec<_> = procs.lines().filter(is_agent).collect();
    let [agent] = agents[..] else {
        panic!("{agents:?}");
    };
    let agent = nix::unistd::Pid::from_raw(agent.parse()?);
    nix::sys::signal::kill(agent, nix::sys::signal::Signal::SIGTERM)?;
    until("the canary's cgroup is gone", WITHIN, || {
        Ok(!cgroup.exists())
    })?;
    Ok(())
}

#[test]
fn a_cgroup_namespace_is_not_taken_for_the_node() -> Result<()> {
    require_everything!();
    let lab = lab()?;
    let state = tempfile::tempdir()?;
    // As in a container: the mount's root is the container's own cgroup.
    let script = "umount -a -t cgroup2; mount -t cgroup2 none /mnt \
                  && exec \"$0\" run --node-name node1 --state-dir \"$1\"";
    let mut command = lab.node(1).command(Path::new("unshare"));
    command
        .args([
            "--cgroup",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
        ])
        .arg(script)
        .arg(binaries::find("berth-agent")?)
        .arg(state.path());
    let ended = command.output().context("run unshare")?;
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success(), "{told}");
    assert!(
        told.contains("/mnt is not the root of the node's cgroups"),
        "{told}"
    );
    Ok(())
}
