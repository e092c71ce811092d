//! Every answer of a table as text: what `berth-dns --dump` prints.
//!
//! Made by asking the table and reading the answers back, so that it shows
//! what a client would see.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::Message;

use crate::wire::{Transport, respond};
use crate::zone::{Node, Table, View};

/// One line for each record, sorted: name, view, type and data. Names that
/// exist without data are `(no data)`. Serial numbers do not appear.
#[must_use]
pub fn dump(table: &Table) -> String {
    let mut nodes: Vec<_> = table.nodes().collect();
    nodes.sort_by_key(|node| {
        let mut labels: Vec<String> = node
            .name
            .to_string()
            .split('.')
            .map(str::to_owned)
            .collect();
        labels.reverse();
        labels
    });
    let mut text = String::new();
    for node in nodes {
        let inside = lines(table, node, View::Inside);
        let outside = lines(table, node, View::Outside);
        let views = if inside == outside {
            vec![("all", inside)]
        } else {
            vec![("inside", inside), ("outside", outside)]
        };
        for (view, lines) in views {
            for line in lines {
                let _ = writeln!(text, "{} {view} {line}", node.name);
            }
        }
    }
    text
}

fn lines(table: &Table, node: &Node, view: View) -> Vec<String> {
    // Loopback is inside; TEST-NET-1 (RFC 5737) is nobody's.
    let client: IpAddr = match view {
        View::Inside => Ipv4Addr::LOCALHOST.into(),
        View::Outside => Ipv4Addr::new(192, 0, 2, 1).into(),
    };
    let mut lines = Vec::new();
    for rtype in node.records(view).types() {
        let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(node.name.as_wire());
        packet.extend(rtype.to_be_bytes());
        packet.extend([0, 1]);
        let mut out = Vec::new();
        respond(&packet, Transport::Tcp, client, table, false, &mut out);
        match Message::from_vec(&out) {
            Ok(message) => lines.extend(
                message
                    .answers
                    .iter()
                    .map(|record| format!("{} {}", record.record_type(), record.data)),
            ),
            Err(error) => lines.push(format!("unreadable: {error}")),
        }
    }
    lines.sort();
    if lines.is_empty() {
        lines.push("(no data)".to_owned());
    }
    lines
}
