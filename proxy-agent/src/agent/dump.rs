//! Every stage of the agent as text, for people who want to see where a
//! Service got lost.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use berth_abi::{Backend, Frontend};

use super::controller::Controller;
use super::input::Stage;
use crate::datapath::Datapath;

/// One stage, a line for each entry, sorted.
#[must_use]
pub fn show<D: Datapath>(controller: &Controller<D>, stage: Stage) -> String {
    match stage {
        Stage::Model => model(controller),
        Stage::Desired => desired(controller),
        Stage::Realized => realized(controller),
        Stage::Counters => counters(controller),
    }
}

fn model<D: Datapath>(controller: &Controller<D>) -> String {
    let state = controller.state();
    let mut lines: Vec<_> = state
        .services()
        .map(|service| {
            let mut line = format!("Service {}", service.name);
            for address in &service.cluster_ips {
                let _ = write!(line, " {address}");
            }
            for port in &service.ports {
                let _ = write!(line, " {}/{}", port.port, port.protocol);
            }
            for slice in state.slices(&service.name) {
                let _ = write!(line, "\n  EndpointSlice {}", slice.key.slice);
                for endpoint in &slice.endpoints {
                    let state = match (endpoint.ready, endpoint.serving, endpoint.terminating) {
                        (true, _, _) => "ready",
                        (false, true, true) => "terminating",
                        _ => "not ready",
                    };
                    let node = endpoint.node.as_deref().unwrap_or("?");
                    let _ = write!(line, "\n    {} {state} on {node}", endpoint.address);
                }
            }
            line
        })
        .collect();
    lines.sort_unstable();
    let zone = state.zone().unwrap_or("none");
    let addresses: Vec<_> = state
        .node_addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    lines.insert(0, format!("# revision {}", state.revision()));
    lines.insert(
        1,
        format!(
            "# this node: zone {zone}, addresses {}",
            addresses.join(" ")
        ),
    );
    joined(lines)
}

fn desired<D: Datapath>(controller: &Controller<D>) -> String {
    let mut all: Vec<_> = controller.desired().iter().collect();
    all.sort_unstable_by_key(|frontend| frontend.key);
    joined(all.into_iter().map(|frontend| {
        format!(
            "{} {} affinity={}s -> {}",
            frontend.key,
            frontend.owner,
            frontend.affinity_seconds,
            list(&frontend.backends, frontend.flags)
        )
    }))
}

fn realized<D: Datapath>(controller: &Controller<D>) -> String {
    let usage = controller.usage();
    let head = format!(
        "# frontends {} of {} a family, slots {} of {}, backends {} of {}",
        usage.frontends,
        usage.capacity.frontends,
        usage.slots,
        usage.capacity.slots,
        usage.backends,
        usage.capacity.backends
    );
    let rows = controller.realized().resolved();
    joined(
        [head]
            .into_iter()
            .chain(rows.into_iter().map(|(key, frontend, backends)| {
                let owner = controller
                    .realized()
                    .owner(frontend.service)
                    .unwrap_or_default();
                format!(
                    "{key} {owner} service={} slots={}+{} local={} affinity={}s -> {}",
                    frontend.service,
                    frontend.first_slot,
                    frontend.slot_count,
                    frontend.local_count,
                    frontend.affinity_seconds,
                    list(&backends, frontend.flags)
                )
            })),
    )
}

fn counters<D: Datapath>(controller: &Controller<D>) -> String {
    joined(
        controller
            .datapath()
            .counters()
            .iter()
            .map(|(name, value)| format!("{name} {value}")),
    )
}

fn list(backends: &[Backend], flags: u32) -> String {
    if backends.is_empty() {
        let only_elsewhere = flags & Frontend::LOCAL_ONLY != 0;
        let why = if only_elsewhere {
            "no endpoint on this node"
        } else {
            "no endpoints"
        };
        return format!("refused: {why}");
    }
    let one = |backend: &Backend| {
        let address: IpAddr = backend.address.into();
        let socket = SocketAddr::new(address, u16::from_be(backend.port_be));
        let here = if backend.flags & Backend::ON_THIS_NODE != 0 {
            "*"
        } else {
            ""
        };
        format!("{socket}{here}")
    };
    backends.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn joined(lines: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
