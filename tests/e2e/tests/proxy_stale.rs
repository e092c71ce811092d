//! Connected UDP sockets whose endpoint has gone are destroyed within a
//! second; no other socket is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::proxy::{Bench, ready, ready6, service, slice, until};
use berth_e2e::socket::Sockets;
use berth_lab::ground::netns;
use berth_lab::{require_binaries, require_root};
use berth_netlink::Netns;
use serde_json::json;

/// What the specification gives.
const WITHIN: Duration = Duration::from_secs(1);
/// What a slow machine may need on top, to notice.
const SLOW: Duration = Duration::from_secs(5);

macro_rules! require_everything {
    () => {
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-socket");
    };
}

/// Opens a UDP socket, connects it, and has it answered by `by`; tells the
/// peer that it shows.
fn connected(client: &Sockets, name: &str, kind: &str, to: &str, by: &str) -> Result<()> {
    let said = client.calls(&[
        &format!("open {name} {kind}"),
        &format!("connect {name} {to}"),
        &format!("send {name} hello"),
        &format!("recv {name}"),
    ])?;
    assert_eq!(said, format!("{to} {by}"), "{name}");
    Ok(())
}

/// A destroyed socket has no peer any more.
fn is_destroyed(client: &Sockets, name: &str) -> Result<bool> {
    Ok(client.call(&format!("peer {name}"))? == Err("ENOTCONN".to_owned()))
}

fn still_talks(client: &Sockets, name: &str, by: &str) -> Result<()> {
    let said = client.calls(&[&format!("send {name} hello"), &format!("recv {name}")])?;
    assert!(said.ends_with(&format!(" {by}")), "{name}: {said}");
    Ok(())
}

/// The agent's own count, from its metrics port in the node's namespace.
fn destroyed(bench: &Bench, node: usize) -> Result<u64> {
    let netns = Netns::open(netns::path(bench.lab.node(node).netns()))?;
    let page = netns.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:10249")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })??;
    let value = |line: &str| {
        line.strip_prefix("berth_stale_sockets_destroyed_total ")?
            .trim()
            .parse()
            .ok()
    };
    page.lines().find_map(value).context("no such metric")
}

#[test]
fn sockets_of_an_endpoint_that_goes_are_destroyed_and_no_others() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    let both = [ready("s1"), ready("s2")];
    bench.apply(&[
        service("goes", "10.96.1.1", json!({})),
        slice("goes", &[ready("s1")]),
        service("goes6", "fd96::1", json!({})),
        slice("goes6", &[ready6("s1")]),
        service("stays", "10.96.1.2", json!({})),
        slice("stays", &[ready("s1")]),
    ])?;
    // From pods on both nodes, a node's process and a pod in its network.
    let clients = ["c1", "c2", "n1", "h1"];
    for who in clients {
        let client = bench.ask(who)?;
        connected(client, "plain", "udp4", "10.96.1.1:80", "s1")?;
        connected(client, "mapped", "udp6", "[::ffff:10.96.1.1]:80", "s1")?;
        // The same pod and port, by the application's own will.
        connected(client, "direct", "udp4", "10.20.0.61:8080", "s1")?;
        connected(client, "direct6", "udp6", "[::ffff:10.20.0.61]:8080", "s1")?;
        // The same pod and port through another Service, whose endpoint stays.
        connected(client, "other", "udp4", "10.96.1.2:80", "s1")?;
        // Translated at first, then connected directly.
        connected(client, "again", "udp4", "10.96.1.1:80", "s1")?;
        client.calls(&["connect again 10.20.0.61:8080"])?;
        // Unconnected: each datagram is translated anew.
        client.calls(&[
            "open loose udp4",
            "sendto loose 10.96.1.1:80 hello",
            "recv loose",
        ])?;
        // TCP goes on until one side ends it.
        client.calls(&[
            "open tcp tcp4",
            "connect tcp 10.96.1.1:80",
            "send tcp hello",
            "recv tcp",
        ])?;
    }
    for who in ["c1", "c2"] {
        connected(bench.ask(who)?, "six", "udp6", "[fd96::1]:80", "s1")?;
    }

    // An endpoint more is no reason for anything.
    bench.apply(&[slice("goes", &both)])?;
    still_talks(bench.ask("c2")?, "plain", "s1")?;

    // `settle` in `apply` would take some of the time that is measured.
    bench.lab.store().apply(&slice("goes", &[ready("s2")]))?;
    bench.lab.store().apply(&slice("goes6", &[ready6("s2")]))?;
    let mut stale: Vec<_> = clients
        .iter()
        .flat_map(|who| [(*who, "plain"), (*who, "mapped")])
        .collect();
    stale.extend([("c1", "six"), ("c2", "six")]);
    let took = until("every stale socket is destroyed", SLOW, || {
        for (who, name) in &stale {
            if !is_destroyed(bench.ask(who)?, name)? {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    println!(
        "{} stale sockets were destroyed within {took:?}",
        stale.len()
    );
    assert!(took < WITHIN, "{took:?}");

    // By node 1: of c1 three, of n1 and h1 two each. By node 2: of c2 three.
    for (node, count) in [(1, 7), (2, 3)] {
        let what = format!("node {node} has counted {count}");
        until(&what, SLOW, || Ok(destroyed(&bench, node)? == count))?;
    }

    bench.lab.settle()?;
    for who in clients {
        let client = bench.ask(who)?;
        for name in ["direct", "direct6", "other", "again"] {
            still_talks(client, name, "s1")?;
        }
        client.calls(&["send tcp hello", "recv tcp"])?;
        let said = client.calls(&["sendto loose 10.96.1.1:80 hello", "recv loose"])?;
        assert_eq!(said, "10.96.1.1:80 s2");
        // The application sees it, and gets through when it connects again.
        assert_eq!(client.call("recv plain")?, Err("ECONNABORTED".to_owned()));
        client.calls(&["connect plain 10.96.1.1:80", "send plain hello"])?;
        assert_eq!(client.calls(&["recv plain"])?, "10.96.1.1:80 s2");
    }
    Ok(())
}

#[test]
fn a_service_that_goes_takes_its_sockets_with_it() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    bench.apply(&[
        service("goes", "10.96.1.1", json!({})),
        slice("goes", &[ready("s2")]),
        service("stays", "10.96.1.2", json!({})),
        slice("stays", &[ready("s2")]),
    ])?;
    let client = bench.ask("c1")?;
    connected(client, "goes", "udp4", "10.96.1.1:80", "s2")?;
    connected(client, "stays", "udp4", "10.96.1.2:80", "s2")?;
    bench.remove("Service", "goes")?;
    until("the Service's socket is destroyed", SLOW, || {
        is_destroyed(client, "goes")
    })?;
    still_talks(client, "stays", "s2")
}

#[test]
fn what_went_while_the_agent_was_away_is_found_when_it_is_back() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    bench.apply(&[
        service("goes", "10.96.1.1", json!({})),
        slice("goes", &[ready("s1")]),
        service("stays", "10.96.1.2", json!({})),
        slice("stays", &[ready("s1")]),
    ])?;
    let client = bench.ask("c1")?;
    connected(client, "goes", "udp4", "10.96.1.1:80", "s1")?;
    connected(client, "stays", "udp4", "10.96.1.2:80", "s1")?;
    let node = bench.lab.node(1);
    node.kill_agent()?;
    bench.lab.store().apply(&slice("goes", &[ready("s2")]))?;
    still_talks(client, "goes", "s1")?;
    node.start_agent()?;
    until("the stale socket is destroyed", SLOW, || {
        is_destroyed(client, "goes")
    })?;
    still_talks(client, "stays", "s1")
}
