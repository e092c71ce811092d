//! Programs that somebody has taken from their hooks are put back: when the
//! canary does not pass, and on the prune timer for what no canary sees.

use std::time::Instant;

use berth_agent::agent::Controller;
use berth_agent::datapath::FakeDatapath;
use berth_agent::diff::Capacity;
use berth_agent::model::{Change, SourceKind};

const SMALL: Capacity = Capacity {
    frontends: 8,
    slots: 8,
    backends: 8,
};

fn controller() -> Controller<FakeDatapath> {
    Controller::new(FakeDatapath::new(SMALL), "n1").unwrap()
}

fn serving() -> Controller<FakeDatapath> {
    let mut controller = controller();
    controller.take(SourceKind::ALL.map(Change::Synced));
    controller.sync(Instant::now());
    assert!(controller.datapath().is_active());
    controller
}

#[test]
fn programs_come_back_when_the_canary_fails_and_on_the_prune_timer() {
    let mut controller = serving();
    controller.datapath_mut().detach();
    controller.heal();
    assert!(controller.datapath().is_active());

    controller.datapath_mut().detach();
    controller.prune(Instant::now());
    assert!(controller.datapath().is_active());
}

#[test]
fn programs_are_not_put_in_charge_before_the_maps_are_filled() {
    let mut controller = controller();
    controller.heal();
    controller.prune(Instant::now());
    assert!(!controller.datapath().is_active());
}
