//! The numbers, by the names that monitors know.

use std::time::{Duration, SystemTime};

use super::process;
use super::registry::{Codes, Numbers};
use super::text::Kind::{Counter, Gauge, Histogram};
use super::text::Page;

/// kube-proxy's names for the families.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

pub(super) fn write(numbers: &Numbers) -> String {
    let mut page = Page::default();
    synchronisation(&mut page, numbers);
    changes(&mut page, numbers);
    no_local_endpoints(&mut page, numbers);
    probes(&mut page, numbers);
    maps(&mut page, numbers);
    berth(&mut page, numbers);
    process::write(&mut page);
    page.into_text()
}

fn synchronisation(page: &mut Page, numbers: &Numbers) {
    let mut family = page.family(
        "kubeproxy_sync_proxy_rules_duration_seconds",
        Histogram,
        "How long one pass took from changes taken in to maps up to date.",
    );
    for ip_family in FAMILIES {
        family.histogram(&[("ip_family", ip_family)], &numbers.sync);
    }
    let mut family = page.family(
        "kubeproxy_network_programming_duration_seconds",
        Histogram,
        "Time from what caused an endpoint change to the maps being up to date with it.",
    );
    for (ip_family, histogram) in FAMILIES.iter().zip(&numbers.programming) {
        family.histogram(&[("ip_family", ip_family)], histogram);
    }
    let stamps = [
        (
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When the maps were last brought up to date.",
            numbers.last_synced,
        ),
        (
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "When a change was last queued.",
            numbers.last_queued,
        ),
    ];
    for (name, help, time) in stamps {
        let mut family = page.family(name, Gauge, help);
        for ip_family in FAMILIES {
            family.sample(&[("ip_family", ip_family)], seconds(time));
        }
    }
}

fn changes(page: &mut Page, numbers: &Numbers) {
    let (queued, synced) = (&numbers.queued, &numbers.synced);
    page.single(
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        Gauge,
        "EndpointSlice changes that are not in the maps yet.",
        queued.endpoints.saturating_sub(synced.endpoints),
    );
    page.single(
        "kubeproxy_sync_proxy_rules_endpoint_changes_total",
        Counter,
        "EndpointSlice changes heard.",
        queued.endpoints,
    );
    page.single(
        "kubeproxy_sync_proxy_rules_service_changes_pending",
        Gauge,
        "Service changes that are not in the maps yet.",
        queued.services.saturating_sub(synced.services),
    );
    page.single(
        "kubeproxy_sync_proxy_rules_service_changes_total",
        Counter,
        "Service changes heard.",
        queued.services,
    );
}

fn no_local_endpoints(page: &mut Page, numbers: &Numbers) {
    let mut family = page.family(
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        // A gauge in spite of its name, as upstream has it.
        Gauge,
        "Service ports with a Local traffic policy and endpoints on other nodes only.",
    );
    for (ip_family, counts) in FAMILIES.iter().zip(&numbers.view.no_local_endpoints) {
        for (policy, count) in [("internal", counts.internal), ("external", counts.external)] {
            family.sample(
                &[("ip_family", ip_family), ("traffic_policy", policy)],
                count,
            );
        }
    }
}

fn probes(page: &mut Page, numbers: &Numbers) {
    let probes = [
        (
            "kubeproxy_proxy_healthz_total",
            "Answers of /healthz.",
            numbers.healthz,
        ),
        (
            "kubeproxy_proxy_livez_total",
            "Answers of /livez.",
            numbers.livez,
        ),
    ];
    for (name, help, Codes { ok, unavailable }) in probes {
        let mut family = page.family(name, Counter, help);
        family.sample(&[("code", "200")], ok);
        family.sample(&[("code", "503")], unavailable);
    }
}

fn maps(page: &mut Page, numbers: &Numbers) {
    let Some(usage) = numbers.view.usage else {
        return;
    };
    let maps = usage.maps();
    let mut family = page.family(
        "berth_map_entries",
        Gauge,
        "Entries in use; frontends: of the fuller IP family.",
    );
    for map in &maps {
        family.sample(&[("map", map.name)], map.used);
    }
    let mut family = page.family("berth_map_capacity", Gauge, "Entries there are.");
    for map in &maps {
        family.sample(&[("map", map.name)], map.capacity);
    }
    let mut family = page.family(
        "berth_map_alarm",
        Gauge,
        "1 when a map is filled to this percentage or more.",
    );
    for map in &maps {
        for percent in [80, 95] {
            let labels = [("map", map.name), ("percent", &percent.to_string())];
            family.sample(&labels, u8::from(map.is_filled_to(percent)));
        }
    }
}

fn berth(page: &mut Page, numbers: &Numbers) {
    let view = &numbers.view;
    page.family(
        "berth_build_info",
        Gauge,
        "Always 1; the label says what runs.",
    )
    .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.single(
        "berth_services",
        Gauge,
        "Services that are served.",
        view.services,
    );
    page.single(
        "berth_frontends",
        Gauge,
        "Frontends that there should be.",
        view.frontends,
    );
    page.single(
        "berth_frontends_failing",
        Gauge,
        "Frontends that are not as they should be.",
        view.failing,
    );
    page.single(
        "berth_ready",
        Gauge,
        "1 when this node can be sent traffic.",
        u8::from(view.not_ready == 0),
    );
    if let Some(is_well) = numbers.canary {
        page.single(
            "berth_canary_up",
            Gauge,
            "1 when the canary's last connection was translated.",
            u8::from(is_well),
        );
    }
    page.single(
        "berth_stale_sockets_destroyed_total",
        Counter,
        "Connected UDP sockets that were destroyed because their endpoint had gone.",
        numbers.sockets_destroyed,
    );
    let mut family = page.family(
        "berth_address_requests_total",
        Counter,
        "Requests for addresses, by verb and result.",
    );
    for ((verb, result), count) in &numbers.address_requests {
        family.sample(&[("verb", verb), ("result", result)], count);
    }
    let mut family = page.family(
        "berth_address_api_calls_total",
        Counter,
        "Calls of the API server for addresses, by verb; watches are not counted.",
    );
    for (verb, count) in &numbers.address_calls {
        family.sample(&[("verb", verb)], count);
    }
    let mut family = page.family(
        "berth_socket_events_total",
        Counter,
        "What the programs did to sockets, by reason.",
    );
    for (reason, count) in &view.counters {
        family.sample(&[("reason", reason)], count);
    }
    let mut family = page.family(
        "berth_rejected_objects_total",
        Counter,
        "Objects that were refused for what they say; the log names them.",
    );
    for (kind, count) in &view.refused {
        family.sample(&[("kind", kind)], count);
    }
}

/// Seconds since 1970; 0 for what never was, as an unset gauge says.
fn seconds(time: Option<SystemTime>) -> f64 {
    time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .as_ref()
        .map_or(0.0, Duration::as_secs_f64)
}
