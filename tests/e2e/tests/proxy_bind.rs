//! A NodePort is the Service's on every address of the node: no process of the
//! node can bind it, while pods have ports of their own (spec/proxy row 2).

use anyhow::Result;
use berth_e2e::proxy::{Bench, node_port, ready, slice};
use berth_lab::{require_binaries, require_root};
use serde_json::json;

const TAKEN: &str = "EADDRINUSE";

macro_rules! require_everything {
    () => {
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-socket");
    };
}

/// Kinds of sockets, with addresses that each may want to bind.
const WANTED: [(&str, &[&str]); 4] = [
    ("tcp4", &["0.0.0.0", "127.0.0.1", "10.20.0.11"]),
    ("udp4", &["0.0.0.0", "127.0.0.1", "10.20.0.11"]),
    ("tcp6", &["[::]", "[::1]", "[fd20::11]"]),
    ("udp6", &["[::]", "[::1]", "[fd20::11]"]),
];

/// How a bind by `who` ends, on a socket of its own.
fn bind(bench: &Bench, who: &str, kind: &str, to: &str) -> Result<String> {
    let sockets = bench.ask(who)?;
    sockets.calls(&[&format!("open b {kind}")])?;
    let ended = sockets.call(&format!("bind b {to}"))?;
    sockets.calls(&["close b"])?;
    Ok(ended.map_or_else(|errno| errno, |_| "bound".to_owned()))
}

#[test]
fn no_process_of_the_node_binds_a_node_port() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    bench.apply(&[
        node_port("np", "10.96.1.1", 30080, json!({})),
        slice("np", &[ready("s1")]),
    ])?;
    for (kind, addresses) in WANTED {
        for address in addresses {
            // The pod h1 is in the node's network.
            for who in ["n1", "h1"] {
                let bound = bind(&bench, who, kind, &format!("{address}:30080"))?;
                assert_eq!(bound, TAKEN, "{who} binds {address}:30080 by {kind}");
                let bound = bind(&bench, who, kind, &format!("{address}:30081"))?;
                assert_eq!(bound, "bound", "{who} binds {address}:30081 by {kind}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_pod_binds_what_it_wants_in_its_namespace() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    bench.apply(&[
        node_port("np", "10.96.1.1", 30080, json!({})),
        slice("np", &[ready("s2")]),
    ])?;
    for (kind, address) in [
        ("tcp4", "0.0.0.0"),
        ("udp4", "10.20.0.71"),
        ("tcp6", "[::]"),
        ("udp6", "[fd20::71]"),
    ] {
        let bound = bind(&bench, "c1", kind, &format!("{address}:30080"))?;
        assert_eq!(bound, "bound", "c1 binds {address}:30080 by {kind}");
    }
    Ok(())
}

#[test]
fn a_port_is_free_again_when_the_service_has_gone() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    // Without endpoints it is as taken.
    bench.apply(&[node_port("np", "10.96.1.1", 30080, json!({}))])?;
    assert_eq!(bind(&bench, "n1", "tcp4", "0.0.0.0:30080")?, TAKEN);
    bench.remove("Service", "np")?;
    assert_eq!(bind(&bench, "n1", "tcp4", "0.0.0.0:30080")?, "bound");
    Ok(())
}
