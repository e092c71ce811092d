//! The agent is killed and started again under continuous connections: no
//! connection fails.

use std::time::Duration;

use anyhow::Result;
use berth_lab::probe::Pace;
use berth_lab::{Lab, require_binaries, require_root};

const SHOP: &str = include_str!("../../lab/examples/shop.yaml");
/// Nothing may fail, however slow the machine is.
const PACE: Pace = Pace {
    every: Duration::from_millis(1),
    timeout: Duration::from_secs(10),
    hold: false,
};
const HELD: Pace = Pace { hold: true, ..PACE };

#[test]
fn no_connection_fails_while_the_agent_is_killed_and_restarted() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-dns");
    let lab = Lab::builder().yaml("shop.yaml", SHOP).start()?;
    let pods = [lab.pod("default/ledger-0")?, lab.pod("default/ledger-1")?];
    assert_ne!(pods[0].node(), pods[1].node(), "both agents are tried");
    let loads = pods
        .iter()
        .flat_map(|pod| [pod.load("web:80", PACE), pod.load("web:80", HELD)])
        .collect::<Result<Vec<_>, _>>()?;
    for _ in 0..3 {
        for node in lab.nodes() {
            node.kill_agent()?;
            // The kernel goes on alone, for new connections too.
            for pod in &pods {
                pod.tcp("web:80")?;
                pod.udp_unconnected("clock:123")?;
            }
            node.start_agent()?;
        }
    }
    for load in loads {
        let report = load.stop()?;
        assert_eq!(report.failures, [] as [&str; 0]);
        assert_eq!(report.failed, 0);
        assert!(report.succeeded > 10, "{report:?}");
    }
    Ok(())
}

#[test]
fn what_changes_while_the_agent_is_away_is_true_when_it_is_back() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-dns");
    let lab = Lab::builder().yaml("shop.yaml", SHOP).start()?;
    let client = lab.pod("default/ledger-0")?;
    assert_eq!(client.tcp("licence:27000")?.echo.pod, "default/licence");
    for node in lab.nodes() {
        node.kill_agent()?;
    }
    lab.delete_pod("default/licence")?;
    for node in lab.nodes() {
        node.start_agent()?;
    }
    let failure = client.tcp("licence:27000").unwrap_err();
    assert_eq!(
        failure.kind,
        berth_lab::probe::FailureKind::Refused,
        "{failure}"
    );
    Ok(())
}
