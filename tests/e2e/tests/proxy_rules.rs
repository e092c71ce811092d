//! The rows of the proxy's specification that concern connections made on the
//! node, with real agents, programs and sockets: from pods, from node
//! processes and from a pod in the node's network, on two nodes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use berth_e2e::proxy::How::{
    MappedTcp, MappedUdp, MappedUdpUnconnected, Tcp, Tcp6, Udp, Udp6, UdpUnconnected,
};
use berth_e2e::proxy::{
    Bench, How, Seen, node_port, ready, ready6, service, slice, terminating, until,
};
use berth_lab::{require_binaries, require_root};
use serde_json::{Value, json};

const REFUSED: &str = "ECONNREFUSED";
const NOT_HERE: &str = "EHOSTUNREACH";
const ALL: &[How] = &[Tcp, Udp, UdpUnconnected];
const MAPPED: &[How] = &[MappedTcp, MappedUdp, MappedUdpUnconnected];
const IPV6: &[How] = &[Tcp6, Udp6];

macro_rules! require_everything {
    () => {
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-socket");
    };
}

/// Who asks for what, how, and all that may be seen; each of it must be.
struct Try {
    who: &'static [&'static str],
    how: &'static [How],
    to: &'static str,
    sees: &'static [&'static str],
}

struct Case {
    name: &'static str,
    objects: Vec<Value>,
    tries: Vec<Try>,
}

fn attempt(
    who: &'static [&'static str],
    how: &'static [How],
    to: &'static str,
    sees: &'static [&'static str],
) -> Try {
    Try { who, how, to, sees }
}

const PODS: &[&str] = &["c1", "c2"];
/// One of each kind, on each node.
const ALL_KINDS: &[&str] = &["c1", "c2", "n1", "n2", "h1", "s1"];
const BOTH: &[&str] = &["s1", "s2"];

fn cases() -> Vec<Case> {
    let both = || [ready("s1"), ready("s2")];
    vec![
        Case {
            name: "ClusterIP",
            objects: vec![service("ip", "10.96.1.1", json!({})), slice("ip", &both())],
            tries: vec![
                attempt(ALL_KINDS, ALL, "10.96.1.1:80", BOTH),
                attempt(&["c1", "n2"], MAPPED, "[::ffff:10.96.1.1]:80", BOTH),
            ],
        },
        Case {
            name: "ClusterIP over IPv6",
            objects: vec![
                service("ip6", "fd96::1", json!({})),
                slice("ip6", &[ready6("s1"), ready6("s2")]),
            ],
            tries: vec![attempt(PODS, IPV6, "[fd96::1]:80", BOTH)],
        },
        Case {
            name: "NodePort on the node's own addresses",
            objects: vec![
                node_port("np", "10.96.1.2", 30080, json!({})),
                slice("np", &both()),
            ],
            tries: vec![
                attempt(&["c1", "n1", "h1"], ALL, "10.20.0.11:30080", BOTH),
                attempt(&["c2", "n2"], ALL, "10.20.0.12:30080", BOTH),
                attempt(&["n1", "h1"], ALL, "127.0.0.1:30080", BOTH),
                attempt(&["n1"], MAPPED, "[::ffff:127.0.0.1]:30080", BOTH),
                attempt(&["n1"], ALL, "10.96.1.2:80", BOTH),
                // The NodePort is no port of the ClusterIP.
                attempt(&["c1"], &[Tcp], "10.20.0.61:30080", &[REFUSED]),
            ],
        },
        Case {
            name: "NodePort over IPv6",
            objects: vec![
                node_port("np6", "fd96::2", 30086, json!({})),
                slice("np6", &[ready6("s2")]),
            ],
            tries: vec![
                attempt(&["n1"], IPV6, "[::1]:30086", &["s2"]),
                attempt(&["c1", "n1"], IPV6, "[fd20::11]:30086", &["s2"]),
            ],
        },
        Case {
            name: "externalIPs and LoadBalancer addresses, only on the Service's ports",
            objects: vec![
                {
                    let spec = json!({"type": "LoadBalancer", "externalIPs": ["203.0.113.1"]});
                    let mut service = service("lb", "10.96.1.3", spec);
                    service["status"] = json!({"loadBalancer": {"ingress": [
                        {"ip": "203.0.113.2", "ipMode": "VIP"},
                        {"ip": "203.0.113.3"},
                        // A load balancer that wants to see the connection.
                        {"ip": "10.20.0.62", "ipMode": "Proxy"},
                    ]}});
                    service
                },
                slice("lb", &both()),
            ],
            tries: vec![
                attempt(&["c1", "n1"], ALL, "203.0.113.1:80", BOTH),
                attempt(&["c2"], ALL, "203.0.113.2:80", BOTH),
                attempt(&["c2"], &[Tcp], "203.0.113.3:80", BOTH),
                // Nobody listens there; a translated one would be answered.
                attempt(&["c1", "n1"], &[Tcp, Udp], "10.20.0.62:80", &[REFUSED]),
            ],
        },
        Case {
            name: "internalTrafficPolicy Local",
            objects: vec![
                service(
                    "here",
                    "10.96.1.4",
                    json!({"internalTrafficPolicy": "Local"}),
                ),
                slice("here", &both()),
                service(
                    "there",
                    "10.96.1.5",
                    json!({"internalTrafficPolicy": "Local"}),
                ),
                slice("there", &[ready("s2")]),
            ],
            tries: vec![
                attempt(&["c1", "n1", "h1"], ALL, "10.96.1.4:80", &["s1"]),
                attempt(&["c2", "n2"], ALL, "10.96.1.4:80", &["s2"]),
                attempt(&["c2", "n2"], ALL, "10.96.1.5:80", &["s2"]),
                attempt(&["c1", "n1"], ALL, "10.96.1.5:80", &[NOT_HERE]),
            ],
        },
        Case {
            name: "externalTrafficPolicy Local, from inside",
            objects: vec![
                {
                    let spec = json!({"externalTrafficPolicy": "Local",
                        "externalIPs": ["203.0.113.4"]});
                    node_port("ext", "10.96.1.6", 30081, spec)
                },
                slice("ext", &[ready("s2")]),
            ],
            tries: vec![
                attempt(&["c1", "n1"], ALL, "203.0.113.4:80", &["s2"]),
                attempt(&["c1", "n1"], ALL, "10.20.0.11:30081", &["s2"]),
            ],
        },
        Case {
            name: "no usable endpoint",
            objects: vec![
                service("none", "10.96.1.7", json!({})),
                service("none6", "fd96::7", json!({})),
                service("dead", "10.96.1.8", json!({})),
                slice("dead", &[terminating("s1", false)]),
            ],
            tries: vec![
                attempt(&["c1", "n2", "h1"], ALL, "10.96.1.7:80", &[REFUSED]),
                attempt(&["c1"], MAPPED, "[::ffff:10.96.1.7]:80", &[REFUSED]),
                attempt(&["c1", "n1"], IPV6, "[fd96::7]:80", &[REFUSED]),
                attempt(&["c1"], ALL, "10.96.1.8:80", &[REFUSED]),
            ],
        },
        Case {
            name: "terminating endpoints",
            objects: vec![
                service("one-left", "10.96.1.9", json!({})),
                slice("one-left", &[terminating("s1", true), ready("s2")]),
                service("all-go", "10.96.1.10", json!({})),
                slice(
                    "all-go",
                    &[terminating("s1", true), terminating("s2", true)],
                ),
                service("one-goes", "10.96.1.11", json!({})),
                slice(
                    "one-goes",
                    &[terminating("s1", true), terminating("s2", false)],
                ),
            ],
            tries: vec![
                attempt(&["c1", "n1"], ALL, "10.96.1.9:80", &["s2"]),
                attempt(&["c1", "n2"], ALL, "10.96.1.10:80", BOTH),
                attempt(&["c1"], ALL, "10.96.1.11:80", &["s1"]),
            ],
        },
        Case {
            name: "topology",
            objects: {
                let hint = |pod, hints| {
                    let mut endpoint = ready(pod);
                    endpoint["hints"] = hints;
                    endpoint
                };
                let node = |name| json!({"forNodes": [{"name": name}]});
                let zone = |name| json!({"forZones": [{"name": name}]});
                vec![
                    service("near", "10.96.1.13", json!({})),
                    slice(
                        "near",
                        &[hint("s1", node("node1")), hint("s2", node("node2"))],
                    ),
                    // Both nodes are in the zone `lab`.
                    service("zone", "10.96.1.14", json!({})),
                    slice("zone", &[hint("s1", zone("far")), hint("s2", zone("lab"))]),
                    service("part", "10.96.1.15", json!({})),
                    slice("part", &[hint("s1", node("node1")), ready("s2")]),
                    service("far", "10.96.1.16", json!({})),
                    slice("far", &[hint("s1", zone("far")), hint("s2", zone("far"))]),
                ]
            },
            tries: vec![
                attempt(&["c1", "n1"], ALL, "10.96.1.13:80", &["s1"]),
                attempt(&["c2", "n2"], ALL, "10.96.1.13:80", &["s2"]),
                attempt(&["c1", "n2"], ALL, "10.96.1.14:80", &["s2"]),
                attempt(&["c1"], ALL, "10.96.1.15:80", BOTH),
                attempt(&["c1"], ALL, "10.96.1.16:80", BOTH),
            ],
        },
        Case {
            name: "hairpin",
            objects: vec![
                service("self", "10.96.1.12", json!({})),
                slice("self", &[ready("s1")]),
            ],
            tries: vec![attempt(&["s1"], ALL, "10.96.1.12:80", &["s1"])],
        },
        Case {
            name: "another proxy's Service",
            objects: vec![
                {
                    let mut service = service("theirs", "10.20.0.62", json!({}));
                    let label = "service.kubernetes.io/service-proxy-name";
                    service["metadata"]["labels"] = json!({label: "theirs"});
                    service
                },
                slice("theirs", &both()),
            ],
            tries: vec![attempt(&["c1"], &[Tcp], "10.20.0.62:80", &[REFUSED])],
        },
    ]
}

#[test]
fn every_rule_for_connections_from_inside() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    let cases = cases();
    let objects: Vec<_> = cases.iter().flat_map(|case| case.objects.clone()).collect();
    bench.apply(&objects)?;
    // The IPv6 addresses, which came after the agents.
    until("the NodePort on fd20::11", Duration::from_secs(10), || {
        let seen = bench.exchange("n1", Tcp6, "[fd20::11]:30086")?;
        Ok(seen.to_string() == "s2")
    })?;
    let mut wrong = String::new();
    let mut tried = 0;
    for case in &cases {
        for one in &case.tries {
            let expected: BTreeSet<_> = one.sees.iter().map(ToString::to_string).collect();
            for who in one.who {
                for how in one.how {
                    tried += 1;
                    let seen = bench.see(who, *how, one.to)?;
                    if seen != expected {
                        let (name, to) = (case.name, one.to);
                        writeln!(
                            wrong,
                            "{name}: {who} to {to} by {how:?}: {seen:?}, not {expected:?}"
                        )?;
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(tried > 100, "only {tried}");
    Ok(())
}

#[test]
fn a_loopback_address_in_a_pod_is_the_pods_own() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    bench.apply(&[
        node_port("np", "10.96.1.1", 30080, json!({})),
        slice("np", &[ready("s2")]),
    ])?;
    for how in ALL {
        assert_eq!(
            bench.exchange("n1", *how, "127.0.0.1:30080")?.to_string(),
            "s2"
        );
        // Nobody listens there. An unconnected socket is not even told so.
        let seen = bench.exchange("c1", *how, "127.0.0.1:30080")?;
        assert!(matches!(seen, Seen::Error(_)), "{how:?}: {seen}");
    }
    Ok(())
}

#[test]
fn node_ports_follow_the_nodes_addresses() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    bench.apply(&[
        node_port("np", "10.96.1.1", 30080, json!({})),
        slice("np", &[ready("s1"), ready("s2")]),
    ])?;
    bench.add_address("n1", "10.20.0.31/24")?;
    let seen = || {
        let seen = bench.exchange("n1", Tcp, "10.20.0.31:30080")?;
        Ok(BTreeSet::from(["s1".to_owned(), "s2".to_owned()]).contains(&seen.to_string()))
    };
    let took = until("the NodePort on 10.20.0.31", Duration::from_secs(10), seen)?;
    println!("the NodePort answered {took:?} after the address came");
    Ok(())
}

#[test]
fn a_client_keeps_its_endpoint_and_forgets_it() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    let sticky = |seconds: u64| {
        let config = json!({"clientIP": {"timeoutSeconds": seconds}});
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config})
    };
    let both = slice("kept", &[ready("s1"), ready("s2")]);
    let to = "10.96.1.1:80";
    bench.apply(&[service("kept", "10.96.1.1", sticky(10_800)), both.clone()])?;
    for who in ["c1", "c2", "n1"] {
        let seen = bench.see(who, Tcp, to)?;
        assert_eq!(seen.len(), 1, "{who}: {seen:?}");
    }

    // Forgotten with its endpoint, and not remembered when that comes back.
    let before = bench.exchange("c1", Tcp, to)?.to_string();
    let other = if before == "s1" { "s2" } else { "s1" };
    bench.apply(&[slice("kept", &[ready(other)])])?;
    assert_eq!(bench.exchange("c1", Tcp, to)?.to_string(), other);
    bench.apply(std::slice::from_ref(&both))?;
    let seen = bench.see("c1", Tcp, to)?;
    assert_eq!(seen, BTreeSet::from([other.to_owned()]));

    // Switched off on a live Service, and on again.
    bench.apply(&[service("kept", "10.96.1.1", json!({}))])?;
    assert_eq!(bench.see("c1", Tcp, to)?.len(), 2);
    bench.apply(&[service("kept", "10.96.1.1", sticky(1))])?;
    assert_eq!(bench.see("c1", Tcp, to)?.len(), 1);

    // A client that was away for longer than the timeout chooses again: with
    // two endpoints, one time in two another. Its absence is what is tested,
    // so here time has to pass.
    let mut seen = bench.see("c1", Tcp, to)?;
    for _ in 0..20 {
        if seen.len() == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1_050));
        seen.insert(bench.exchange("c1", Tcp, to)?.to_string());
    }
    assert_eq!(seen.len(), 2, "it is bound for ever");
    Ok(())
}

#[test]
fn what_is_connected_outlives_a_change_of_the_endpoints() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    let to = "10.96.1.1:80";
    bench.apply(&[
        service("web", "10.96.1.1", json!({})),
        slice("web", &[ready("s1")]),
    ])?;
    let client = bench.ask("c2")?;
    for (name, kind) in [("t", "tcp4"), ("u", "udp4")] {
        client.calls(&[
            &format!("open {name} {kind}"),
            &format!("connect {name} {to}"),
        ])?;
    }
    let talk = || -> Result<()> {
        for name in ["t", "u"] {
            let said = client.calls(&[&format!("send {name} hello"), &format!("recv {name}")])?;
            assert!(said.ends_with("s1"), "{said}");
        }
        Ok(())
    };
    talk()?;
    // It terminates and still serves; then another policy, which is not its.
    bench.apply(&[slice("web", &[terminating("s1", true), ready("s2")])])?;
    talk()?;
    assert_eq!(bench.exchange("c2", Tcp, to)?.to_string(), "s2");
    let local = json!({"internalTrafficPolicy": "Local"});
    bench.apply(&[service("web", "10.96.1.1", local)])?;
    talk()
}

#[test]
fn a_udp_client_that_was_there_before_the_endpoints_gets_through() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    let to = "10.96.1.1:80";
    bench.apply(&[service("late", "10.96.1.1", json!({}))])?;
    let client = bench.ask("c1")?;
    client.calls(&["open u udp4", "open k udp4"])?;
    let early = client.call(&format!("sendto u {to} hello"))?;
    assert_eq!(early, Err(REFUSED.to_owned()));
    let early = client.call(&format!("connect k {to}"))?;
    assert_eq!(early, Err(REFUSED.to_owned()));
    bench.apply(&[slice("late", &[ready("s2")])])?;
    let said = client.calls(&[&format!("sendto u {to} hello"), "recv u"])?;
    assert_eq!(said, format!("{to} s2"));
    let said = client.calls(&[&format!("connect k {to}"), "send k hello", "recv k"])?;
    assert_eq!(said, format!("{to} s2"));
    Ok(())
}
