//! The agent is not ready unless a connection from below its cgroup root is
//! translated; it says so, and leaves nothing behind.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::proxy::until;
use berth_lab::{Lab, binaries, require_binaries, require_root};

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

#[test]
fn an_agent_whose_programs_are_gone_is_not_ready_and_names_its_cgroup_root() -> Result<()> {
    require_everything!();
    for hook in ["connect4", "connect6", "getpeername4"] {
        let lab = lab()?;
        let node = lab.node(1);
        assert_eq!(readyz(&node.agent_socket())?.0, "200", "{hook}");
        // Removing the pin of a link detaches its program.
        fs::remove_file(node.folder().join("bpf/berth/links").join(hook))?;
        until(&format!("not ready without {hook}"), WITHIN, || {
            Ok(readyz(&node.agent_socket())?.0 == "503")
        })?;
        let (_, told) = readyz(&node.agent_socket())?;
        let root = node.cgroup().display().to_string();
        assert!(told.contains("canary does not pass"), "{told}");
        assert!(
            told.contains(&root) && told.contains("--cgroup-root"),
            "{told}"
        );
        // The mend that it names.
        node.kill_agent()?;
        node.start_agent()?;
        assert_eq!(readyz(&node.agent_socket())?.0, "200", "{hook}");
    }
    Ok(())
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
