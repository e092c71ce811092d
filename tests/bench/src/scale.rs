//! Many Services on a real API server: what a connection costs, how long a
//! change takes, and what the agent needs, beside kube-proxy and HAProxy, each
//! on a node of its own with the same pods.

mod agent;
mod change;
mod peers;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_bench::{Row, Samples, Target, all_in_turn};
use berth_kube::{ApiServer, Options, Place, ProxyMode};

use crate::api::{Api, Entry, NAMESPACE};
use crate::exchange::PORT;
use crate::ground::{Ground, Node};
use agent::Agent;
use peers::{HaProxy, Peer};

/// How many Services there are, one stage after the other.
const STAGES: [u32; 4] = [1, 1_000, 10_000, 50_000];
/// Rounds of each side, and exchanges a round.
const ROUNDS: usize = 41;
const EXCHANGES: u32 = 100;
/// How long one has to follow a new stage, before it is left out of the rest.
const FOLLOW_WITHIN: Duration = Duration::from_secs(100);

/// Nodes on the wire.
struct Scene {
    // Dropped in this order: programs before the server and the wire.
    haproxy: Option<HaProxy>,
    agent: Agent,
    peers: Vec<Peer>,
    server: ApiServer,
    api: Api,
    _ground: Ground,
}

/// One way to the server pod, as a row names it.
struct Side {
    name: String,
    node: usize,
    target: SocketAddr,
}

/// The whole benchmark, up to `most` Services.
pub(crate) fn scale(most: u32) -> Result<Vec<Row>> {
    let mut scene = Scene::create()?;
    let mut rows = Vec::new();
    let mut there = 0;
    for stage in STAGES.into_iter().filter(|&stage| stage <= most) {
        // The probes' own Services count.
        for peer in &scene.peers {
            peer.set_paused(true)?;
        }
        let took = scene.api.create((there..stage).map(Entry::numbered))?;
        eprintln!("  {stage} Services: created in {:.1} s", took.as_secs_f64());
        scene.follow(stage)?;
        there = stage;
        rows.extend(scene.connections(stage)?);
    }
    rows.extend(scene.established()?);
    rows.extend(change::rows(&mut scene, there)?);
    rows.extend(agent::rows(&mut scene, there)?);
    Ok(rows)
}

impl Scene {
    fn create() -> Result<Self> {
        let ground = Ground::create()?;
        let server = ApiServer::start(Options {
            place: Place::in_netns(ground.netns(), "10.20.0.2".parse()?),
            ..Options::default()
        })?;
        server.kubectl(["create", "namespace", NAMESPACE])?;
        let api = Api {
            netns: ground.netns(),
            kubeconfig: server.kubeconfig().to_owned(),
        };
        let node = |name: &str, number: u8| -> Result<Node> {
            let node = ground.node(name, number)?;
            server.add_node(name, node.address.into(), None)?;
            api.create(std::iter::once(probe(&node)))?;
            Ok(node)
        };
        let agent = Agent::start(node("node1", 11)?, &ground, &server)?;
        let mut peers = Vec::new();
        for (name, number, mode) in [
            ("node2", 12, ProxyMode::Nftables),
            ("node3", 13, ProxyMode::Iptables),
        ] {
            peers.push(Peer::start(node(name, number)?, name, mode, &server)?);
        }
        let haproxy = HaProxy::start(node("node4", 14)?, &ground)
            .inspect_err(|error| eprintln!("  HAProxy is not measured: {error:#}"))
            .ok();
        Ok(Self {
            haproxy,
            agent,
            peers,
            server,
            api,
            _ground: ground,
        })
    }

    /// Waits until everybody serves a Service that is created now: after all
    /// the others. A peer that does not is left out from here on.
    fn follow(&mut self, stage: u32) -> Result<()> {
        let markers: Vec<_> = std::iter::once(&self.agent.node)
            .chain(self.peers.iter().map(|peer| &peer.node))
            .map(|node| Entry {
                name: format!("marker-{stage}-{}", node.address.octets()[3]),
                address: Ipv4Addr::from_bits(
                    // Above the numbered ones.
                    Ipv4Addr::new(10, 96, 250, 0).to_bits()
                        + STAGES.iter().filter(|&&s| s < stage).count() as u32 * 16
                        + u32::from(node.address.octets()[3]),
                ),
                endpoints: vec![(node.endpoints()[0], true)],
            })
            .collect();
        self.api.create(markers.clone().into_iter())?;
        let began = crate::exchange::now()?;
        let seconds = |at: u128| at.saturating_sub(began) as f64 / 1e9;
        let mut markers = markers.into_iter();
        let mut wait = |node: &mut Node| -> Result<f64> {
            let marker = markers.next().context("one for each")?;
            let target = (marker.address, 80).into();
            let wanted = marker.endpoints[0].0;
            node.client.watch(target, wanted, FOLLOW_WITHIN)?;
            node.client.until_answers().map(seconds)
        };
        for peer in &self.peers {
            peer.set_paused(false)?;
        }
        eprintln!("  Berth follows after {:.2} s", wait(&mut self.agent.node)?);
        self.peers.retain_mut(|peer| match wait(&mut peer.node) {
            Ok(seconds) => {
                eprintln!("  {} follows after {seconds:.2} s", peer.name);
                true
            }
            Err(error) => {
                eprintln!("  {} is not measured from here on: {error:#}", peer.name);
                false
            }
        });
        Ok(())
    }

    fn nodes(&mut self) -> Vec<&mut Node> {
        let peers = self.peers.iter_mut().map(|peer| &mut peer.node);
        let haproxy = self.haproxy.iter_mut().map(|haproxy| &mut haproxy.node);
        std::iter::once(&mut self.agent.node)
            .chain(peers)
            .chain(haproxy)
            .collect()
    }

    /// Berth's ClusterIP and the direct way on its node; the peers' ways.
    fn sides(&self) -> Vec<Side> {
        let mut sides = vec![
            Side {
                name: "Berth".to_owned(),
                node: 0,
                target: cluster_ip(&self.agent.node),
            },
            Side {
                name: "direct to the pod".to_owned(),
                node: 0,
                target: (self.agent.node.endpoints()[0], PORT).into(),
            },
        ];
        for peer in &self.peers {
            sides.push(Side {
                name: peer.name.clone(),
                node: sides.len() - 1,
                target: cluster_ip(&peer.node),
            });
        }
        if let Some(haproxy) = &self.haproxy {
            sides.push(Side {
                name: "HAProxy".to_owned(),
                node: sides.len() - 1,
                target: haproxy.target(),
            });
        }
        sides
    }

    fn connections(&mut self, services: u32) -> Result<Vec<Row>> {
        let name = format!("TCP connect + request + close, {services} Services");
        self.measure(&name, "tcp", "connections/s", 1.0)
    }

    fn established(&mut self) -> Result<Vec<Row>> {
        let name = "request + answer, established connection";
        self.measure(name, "hold", "exchanges/s", 0.97)
    }

    /// Medians of a round as rates, Berth's beside everybody else's.
    fn measure(&mut self, name: &str, how: &str, unit: &str, ahead: f64) -> Result<Vec<Row>> {
        let sides = self.sides();
        let mut nodes = self.nodes();
        let times = all_in_turn(sides.len(), ROUNDS, |side| {
            let side = &sides[side];
            let client = &mut nodes[side.node].client;
            client.exchanges(how, side.target, EXCHANGES)
        })?;
        let rates: Vec<Samples> = times.iter().map(|time| time.map(|us| 1e6 / us)).collect();
        for (side, time) in sides.iter().zip(&times) {
            eprintln!("  {name}: {:.2} us, {}", time.median(), side.name);
        }
        Ok(sides
            .iter()
            .zip(&rates)
            .skip(1)
            .enumerate()
            .map(|(index, (side, rate))| {
                let least = if index == 0 { 0.97 } else { ahead };
                let peer = (side.name.as_str(), rate);
                Row::new(name, unit, &rates[0], peer, Target::AtLeast(least))
            })
            .collect())
    }
}

/// The Service of a node: one of its endpoints is ready.
fn probe(node: &Node) -> Entry {
    let [ready, others @ ..] = node.endpoints();
    let number = node.address.octets()[3];
    Entry {
        name: format!("probe-{number}"),
        address: Ipv4Addr::new(10, 96, 0, number),
        endpoints: std::iter::once((ready, true))
            .chain(others.map(|other| (other, false)))
            .collect(),
    }
}

fn cluster_ip(node: &Node) -> SocketAddr {
    (probe(node).address, 80).into()
}
