//! From the API server's answer to a change until a new connection meets it.

use anyhow::Result;
use berth_bench::{Row, Samples, Target};

use super::{FOLLOW_WITHIN, Scene, cluster_ip, probe};
use crate::api::{self, Api};
use crate::exchange::now;
use crate::ground::Node;

/// Changes measured of Berth, and of each peer, which takes far longer.
const OURS: usize = 200;
const THEIRS: usize = 20;
/// Berth's limits, in milliseconds.
const P99: f64 = 10.0;

/// One change of one endpoint among `services` Services.
pub(super) fn rows(scene: &mut Scene, services: u32) -> Result<Vec<Row>> {
    let name = format!("one endpoint change until it is met, {services} Services");
    let ours = changes(&scene.api, &mut scene.agent.node, OURS)?;
    let (p50, p99) = (ours.quantile(50), ours.quantile(99));
    eprintln!("  {name}: p50 {p50:.2} ms, p99 {p99:.2} ms, Berth");
    let worst = Samples::from(vec![p99]);
    let mut rows = vec![Row::limit(&format!("{name}, p99"), "ms", &worst, P99)];
    for peer in &mut scene.peers {
        match changes(&scene.api, &mut peer.node, THEIRS) {
            Ok(theirs) => rows.push(Row::new(
                &format!("{name}, p50"),
                "ms",
                &ours,
                (&peer.name, &theirs),
                Target::AtMost(1.0),
            )),
            Err(error) => eprintln!("  {name}: {} is not measured: {error:#}", peer.name),
        }
    }
    Ok(rows)
}

/// Milliseconds of each change; the watching client looks every 0.2 ms.
fn changes(api: &Api, node: &mut Node, count: usize) -> Result<Samples> {
    let target = cluster_ip(node);
    let mut entry = probe(node);
    let times = api.run(async |client| {
        let mut times = Vec::new();
        for n in 1..=count {
            let ready = n % 2;
            for (index, endpoint) in entry.endpoints.iter_mut().enumerate() {
                endpoint.1 = index == ready;
            }
            let wanted = entry.endpoints[ready].0;
            node.client.watch(target, wanted, FOLLOW_WITHIN)?;
            api::change(&client, &entry).await?;
            let written = now()?;
            let met = node.client.until_answers()?;
            // Met before the answer came: at most what one look takes.
            times.push((met.saturating_sub(written) as f64 / 1e6).max(0.001));
        }
        // As it was.
        entry.endpoints = probe(node).endpoints;
        api::change(&client, &entry).await?;
        anyhow::Ok(times)
    })?;
    Ok(Samples::from(times))
}
