//! `manifests/embedded` is an example that works: the conflist and the pool give
//! a pod an address, and the units' command lines are ones that the programs
//! take.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_lab::ground::enter::Place;
use berth_lab::ground::netns;
use berth_lab::ground::record::Record;
use berth_lab::ground::wire::Wire;
use berth_lab::kubelet::cni::{Attachment, Plugin};
use berth_lab::{binaries, require_root};
use ipnetwork::Ipv4Network;
use serde_json::Value;

fn example(file: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../manifests/embedded")
        .join(file);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The plugin's entry in the conflist.
fn plugin_entry() -> Result<Value> {
    let conflist: Value = serde_json::from_str(&example("10-berth.conflist")?)?;
    Ok(conflist["plugins"][0].clone())
}

/// The variables of the units' environment file.
fn environment() -> Result<BTreeMap<String, String>> {
    let text = example("berth.env")?;
    Ok(text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[test]
fn the_conflist_and_the_pool_give_a_pod_an_address() -> Result<()> {
    require_root!();
    let record = Record::create()?;
    let objects = record.folder.join("objects");
    fs::create_dir(&objects)?;
    for file in ["ippool.yaml", "node.yaml"] {
        fs::write(objects.join(file), example(file)?)?;
    }
    let mut config = plugin_entry()?;
    for (field, path) in [
        ("folder", "objects"),
        ("database", "ipam.db"),
        ("stateDir", "cni"),
    ] {
        config[field] = record.folder.join(path).to_string_lossy().into();
    }

    let name = |what: &str| format!("{}{what}", record.prefix());
    let gateway = Ipv4Network::new(Ipv4Addr::new(10, 20, 0, 1), 24)?;
    let wire = Wire::create(&name("wire"), gateway)?;
    wire.attach(&name("node1"), "node1", Ipv4Addr::new(10, 20, 0, 11))?;
    let pod = netns::create(&name("pod"))?;
    let plugin = Plugin {
        lab: binaries::find("berth-lab")?,
        binary: binaries::find("berth-cni")?,
        place: Place {
            netns: Some(netns::path(&name("node1"))),
            ..Place::default()
        },
        config,
    };
    let attachment = Attachment {
        container_id: "ab".repeat(32),
        netns: netns::path(&name("pod")),
        namespace: "default".to_owned(),
        name: "web-0".to_owned(),
        uid: "5d0c3a52-8f0e-4f0c-9c70-6f8a7c3f7a10".to_owned(),
        annotations: BTreeMap::new(),
    };

    let attached = plugin.add(&attachment)?;
    let IpAddr::V4(address) = attached.address else {
        panic!("{} is no IPv4 address", attached.address);
    };
    let (first, last) = (Ipv4Addr::new(10, 20, 0, 50), Ipv4Addr::new(10, 20, 0, 199));
    ensure!(
        (first..=last).contains(&address),
        "{address} is not of the pool"
    );
    // Nobody listens there: a refusal is the router's own word.
    let refused = pod
        .run(|| TcpStream::connect((gateway.ip(), 1)))?
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    plugin.del(&attachment)
}

#[test]
fn all_files_mean_the_same_node() -> Result<()> {
    let node = environment()?["NODE_NAME"].clone();
    assert_eq!(plugin_entry()?["nodeName"], node.as_str());
    let name = format!("name: {node}");
    ensure!(
        example("node.yaml")?
            .lines()
            .any(|line| line.trim() == name)
    );
    Ok(())
}

#[test]
fn the_units_command_lines_are_understood() -> Result<()> {
    let environment = environment()?;
    for unit in ["berth-agent.service", "berth-dns.service"] {
        let text = example(unit)?;
        let mut line = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .with_context(|| format!("{unit} starts nothing"))?
            .to_owned();
        for (name, value) in &environment {
            line = line.replace(&format!("${{{name}}}"), value);
        }
        ensure!(!line.contains('$'), "{unit}: not in berth.env: {line}");
        let mut words = line.split_whitespace();
        let program = words.next().map(PathBuf::from).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        // With --help it ends at once, but not before it has read what is in
        // front of it.
        let output = Command::new(binaries::find(&program)?)
            .args(words)
            .arg("--help")
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{unit}: {line}: {said}");
        ensure!(
            String::from_utf8_lossy(&output.stdout).contains("--folder"),
            "{unit}: {line}: no help was shown"
        );
    }
    Ok(())
}
