//! `berth ip` and `berth whitelist`: who has which address, laid out for
//! people and for firewalls.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use berth_api::addresses::{Address, AddressState};

use crate::table::table;

/// How a whitelist is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One address a line.
    Text,
    /// A list of objects.
    Json,
    /// With a line of names.
    Csv,
    /// For `ipset restore`.
    Ipset,
    /// For `nft -f`.
    Nft,
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// How long ago, or how long from now, in its largest unit.
fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn state(state: AddressState) -> &'static str {
    match state {
        AddressState::Held => "held",
        AddressState::Kept => "kept",
        AddressState::Resting => "resting",
        AddressState::Free => "free",
    }
}

pub(crate) fn list(all: &[Address]) -> String {
    if all.is_empty() {
        return "no address was given to a pod yet\n".to_owned();
    }
    let rows: Vec<_> = all
        .iter()
        .map(|known| {
            [
                known.address.to_string(),
                known.pool.clone(),
                state(known.state).to_owned(),
                known.pod.clone(),
                known.node.clone().unwrap_or_else(|| "-".to_owned()),
                known.keep.clone(),
                known.owner.clone(),
            ]
        })
        .collect();
    table(
        ["ADDRESS", "POOL", "STATE", "POD", "NODE", "KEEP", "OWNER"],
        &rows,
    )
}

pub(crate) fn who(known: &Address, now: u64) -> String {
    let mut text = format!("{} of pool {}: ", known.address, known.pool);
    let _ = match (known.state, known.free_at) {
        (AddressState::Held, _) => writeln!(
            text,
            "held by pod {} (sandbox {}) on node {}",
            known.pod,
            known.sandbox.as_deref().unwrap_or("unknown"),
            known.node.as_deref().unwrap_or("unknown"),
        ),
        (AddressState::Kept, _) => writeln!(text, "used by no pod now, and kept for its owner"),
        (AddressState::Resting, Some(at)) => {
            writeln!(text, "free in {}", span(at.saturating_sub(now)))
        }
        (AddressState::Resting | AddressState::Free, _) => writeln!(text, "free"),
    };
    let was = if known.state == AddressState::Free {
        "last owner"
    } else {
        "owner"
    };
    let ago = span(now.saturating_sub(known.since));
    let _ = writeln!(
        text,
        "  {was}: {}, since {ago} ago, keep {}",
        known.owner, known.keep
    );
    if known.state != AddressState::Held {
        let _ = writeln!(text, "  last pod: {}", known.pod);
    }
    if let Some(at) = known.released {
        let _ = writeln!(
            text,
            "  last let go of: {} ago",
            span(now.saturating_sub(at))
        );
    }
    text
}

/// The addresses that belong to a workload: what a firewall has to let through
/// now and when its pods come back.
pub(crate) fn of_workload(all: Vec<Address>, namespace: &str, name: &str) -> Vec<Address> {
    let mut own = all;
    own.retain(|known| {
        let is_its = known.namespace == namespace && known.workload == name;
        is_its && matches!(known.state, AddressState::Held | AddressState::Kept)
    });
    own.sort_by_key(|known| known.address);
    own
}

/// The whitelist of `namespace/name`. Sets are named `berth-NAMESPACE-NAME`
/// for ipset, whose names have at most 31 bytes, and with `_` for nftables.
pub(crate) fn whitelist(format: Format, all: &[Address], namespace: &str, name: &str) -> String {
    let of = |is_v4: bool| -> Vec<IpAddr> {
        let addresses = all.iter().map(|known| known.address);
        addresses
            .filter(|address| address.is_ipv4() == is_v4)
            .collect()
    };
    let mut text = String::new();
    match format {
        Format::Text => {
            for known in all {
                let _ = writeln!(text, "{}", known.address);
            }
        }
        Format::Json => {
            text = serde_json::to_string_pretty(all).expect("strings and numbers can be written");
            text.push('\n');
        }
        Format::Csv => {
            text.push_str("address,pool,state,namespace,workload,pod,node\n");
            for known in all {
                // Kubernetes' names hold neither commas nor quotes.
                let node = known.node.as_deref().unwrap_or_default();
                let _ = writeln!(
                    text,
                    "{},{},{},{},{},{},{node}",
                    known.address,
                    known.pool,
                    state(known.state),
                    known.namespace,
                    known.workload,
                    known.pod,
                );
            }
        }
        Format::Ipset => {
            for (is_v4, family, suffix) in [(true, "inet", "4"), (false, "inet6", "6")] {
                let set = set_name(namespace, name, suffix);
                // Both sets are there even if empty, for rules that name them.
                let _ = writeln!(text, "create {set} hash:ip family {family} -exist");
                let _ = writeln!(text, "flush {set}");
                for address in of(is_v4) {
                    let _ = writeln!(text, "add {set} {address}");
                }
            }
        }
        Format::Nft => {
            text.push_str("add table inet berth\n");
            for (is_v4, kind, suffix) in [(true, "ipv4_addr", "4"), (false, "ipv6_addr", "6")] {
                let set = format!("{namespace}_{name}_{suffix}").replace(['-', '.'], "_");
                let set = format!("berth_{set}");
                let _ = writeln!(text, "add set inet berth {set} {{ type {kind}; }}");
                let _ = writeln!(text, "flush set inet berth {set}");
                let addresses: Vec<_> = of(is_v4).iter().map(ToString::to_string).collect();
                if !addresses.is_empty() {
                    let all = addresses.join(", ");
                    let _ = writeln!(text, "add element inet berth {set} {{ {all} }}");
                }
            }
        }
    }
    text
}

/// A name that is too long ends in a hash of the whole (FNV-1a, 32 bits).
fn set_name(namespace: &str, name: &str, suffix: &str) -> String {
    const MOST: usize = 31;
    let whole = format!("berth-{namespace}-{name}-{suffix}");
    if whole.len() <= MOST {
        return whole;
    }
    let hash = whole.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let kept: String = whole.chars().take(MOST - 9).collect();
    format!("{kept}-{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(address: &str, workload: &str, state: AddressState) -> Address {
        Address {
            address: address.parse().unwrap(),
            pool: "payments".to_owned(),
            state,
            owner: format!("StatefulSet shop/{workload} ordinal 0"),
            namespace: "shop".to_owned(),
            workload: workload.to_owned(),
            pod: format!("shop/{workload}-0"),
            keep: "app".to_owned(),
            since: 1_000,
            sandbox: (state == AddressState::Held).then(|| "c0ffee".to_owned()),
            node: (state == AddressState::Held).then(|| "node1".to_owned()),
            released: None,
            free_at: None,
        }
    }

    #[test]
    fn who_says_what_the_address_is_for() {
        let text = who(&known("10.20.0.57", "db", AddressState::Held), 61_000);
        assert_eq!(
            text,
            "10.20.0.57 of pool payments: held by pod shop/db-0 (sandbox c0ffee) on node node1\n  \
             owner: StatefulSet shop/db ordinal 0, since 60s ago, keep app\n"
        );
        let mut resting = known("10.20.0.57", "db", AddressState::Resting);
        resting.free_at = Some(66_000);
        assert!(who(&resting, 61_000).contains(": free in 5s\n"));
        let kept = who(&known("10.20.0.57", "db", AddressState::Kept), 400_000_000);
        assert!(
            kept.contains("kept for its owner\n") && kept.contains("since 4d ago"),
            "{kept}"
        );
    }

    #[test]
    fn a_list_is_a_table() {
        let text = list(&[known("10.20.0.57", "db", AddressState::Kept)]);
        let lines: Vec<_> = text
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>())
            .collect();
        assert_eq!(
            lines[0],
            ["ADDRESS", "POOL", "STATE", "POD", "NODE", "KEEP", "OWNER"]
        );
        assert_eq!(
            lines[1][..6],
            ["10.20.0.57", "payments", "kept", "shop/db-0", "-", "app"]
        );
        assert!(list(&[]).starts_with("no address"));
    }

    #[test]
    fn a_whitelist_is_the_workloads_own_and_speaks_each_format() {
        let all = of_workload(
            vec![
                known("fd00:20::7", "db", AddressState::Held),
                known("10.20.0.58", "db", AddressState::Kept),
                known("10.20.0.57", "db", AddressState::Held),
                known("10.20.0.59", "db", AddressState::Free),
                known("10.20.0.60", "web", AddressState::Held),
            ],
            "shop",
            "db",
        );
        let written = |format| whitelist(format, &all, "shop", "db");
        assert_eq!(
            written(Format::Text),
            "10.20.0.57\n10.20.0.58\nfd00:20::7\n"
        );
        let json: Vec<Address> = serde_json::from_str(&written(Format::Json)).unwrap();
        assert_eq!(json, all);
        assert_eq!(
            written(Format::Csv).lines().nth(2),
            Some("10.20.0.58,payments,kept,shop,db,shop/db-0,")
        );
        assert_eq!(
            written(Format::Ipset),
            "create berth-shop-db-4 hash:ip family inet -exist\nflush berth-shop-db-4\n\
             add berth-shop-db-4 10.20.0.57\nadd berth-shop-db-4 10.20.0.58\n\
             create berth-shop-db-6 hash:ip family inet6 -exist\nflush berth-shop-db-6\n\
             add berth-shop-db-6 fd00:20::7\n"
        );
        assert_eq!(
            written(Format::Nft),
            "add table inet berth\n\
             add set inet berth berth_shop_db_4 { type ipv4_addr; }\n\
             flush set inet berth berth_shop_db_4\n\
             add element inet berth berth_shop_db_4 { 10.20.0.57, 10.20.0.58 }\n\
             add set inet berth berth_shop_db_6 { type ipv6_addr; }\n\
             flush set inet berth berth_shop_db_6\n\
             add element inet berth berth_shop_db_6 { fd00:20::7 }\n"
        );
    }

    #[test]
    fn a_long_name_still_makes_a_set() {
        let long = set_name("a-long-namespace", "a-long-workload-name", "4");
        assert_eq!(long.len(), 31);
        assert_ne!(
            long,
            set_name("a-long-namespace", "a-long-workload-name", "6")
        );
    }
}
