//! The CustomResourceDefinitions against a real API server: it takes what is
//! right, refuses what is wrong and names the field, and says the same of a
//! pool as the embedded mode does.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_api::pool::{IpPoolSpec, PoolMode, PoolRoute};
use berth_ipam::{Allocation, Claim, Holder, Keep, Owner, PodRef, Pools, Timestamp};
use berth_kube::{ApiServer, Options, Refused};
use berth_lab::skip;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const POOLS: &str = include_str!("../../../manifests/crds/ippools.yaml");
const ALLOCATIONS: &str = include_str!("../../../manifests/crds/ipallocations.yaml");

fn start() -> Result<ApiServer> {
    let server = ApiServer::start(Options::default())?;
    server.apply(&format!("{POOLS}---\n{ALLOCATIONS}"))?;
    server.kubectl([
        "wait",
        "--for=condition=established",
        "--timeout=60s",
        "crd/ippools.berth.dev",
        "crd/ipallocations.berth.dev",
    ])?;
    Ok(server)
}

/// What the server says against `object`; nothing if it takes it.
fn refusal(server: &ApiServer, verb: &str, object: &str) -> Result<Option<String>> {
    match server.kubectl_with([verb, "-f", "-"], object) {
        Ok(_) => Ok(None),
        Err(error) => Ok(Some(error.downcast::<Refused>()?.said)),
    }
}

fn pool(spec: &str) -> String {
    format!(
        "apiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: a}}\nspec: {{{spec}}}\n"
    )
}

/// What the embedded mode says against a pool.
fn embedded_refusal(text: &str) -> Option<String> {
    let parsed = berth_api::folder::parse(Path::new("pool.yaml"), text);
    assert_eq!(parsed.rejected, [], "{text}");
    let pools = Pools::compile(&parsed.objects);
    pools.refusal("a").map(ToString::to_string)
}

const GOOD: &[&str] = &[
    "subnet: 10.20.0.0/24",
    "subnet: 10.20.0.0/24, ranges: [10.20.0.50-10.20.0.99, 10.20.0.7, 10.20.0.128/25], exclude: [10.20.0.60]",
    "subnet: 10.20.0.0/24, ranges: ['10.20.0.9 - 10.20.0.10'], gateway: 10.20.0.1",
    "subnet: 10.9.0.0/16, ranges: [10.9.0.200-10.9.1.100]",
    "subnet: 'fd00:20::/64', gateway: 'fd00:20::1', mtu: 1280, routes: [{dst: 'fd00:30::/48'}]",
    "subnet: 10.20.0.0/24, routes: [{dst: 10.30.0.0/16, gw: 10.20.0.2}], vlan: 4094, parent: eth1.7, mode: ipvlan",
    "subnet: 10.20.0.0/24, mtu: 1500, default: true, priority: -5, keep: 1h30m, coolDown: 30s",
    "subnet: 10.20.0.0/24, keep: forever",
];

/// Spec, field, and a word of the message. Both sides refuse each of them.
const BAD: &[(&str, &str, &str)] = &[
    ("ranges: [10.20.0.5]", "spec.subnet", "Required value"),
    ("subnet: 10.20.0.0/33", "spec.subnet", "must be a subnet"),
    ("subnet: tomorrow", "spec.subnet", "must be a subnet"),
    (
        "subnet: 10.20.0.0/24, ranges: [10.20.1.5]",
        "spec.ranges",
        "inside of the subnet 10.20.0.0/24",
    ),
    (
        "subnet: 10.20.0.0/24, ranges: [10.20.0.9-10.20.1.5]",
        "spec.ranges",
        "inside of the subnet",
    ),
    (
        "subnet: 10.20.0.0/24, ranges: [10.20.0.0/23]",
        "spec.ranges",
        "inside of the subnet",
    ),
    (
        "subnet: 10.20.0.0/24, ranges: ['fd00::1']",
        "spec.ranges",
        "inside of the subnet",
    ),
    (
        "subnet: 10.20.0.0/24, ranges: [10.20.0.2, 10.20.0.9-10.20.0.5]",
        "spec.ranges[1]",
        "ends before it starts",
    ),
    (
        "subnet: 10.0.0.0/8, ranges: [10.2.0.0-10.1.255.255]",
        "spec.ranges[0]",
        "ends before it starts",
    ),
    (
        "subnet: 10.20.0.0/24, ranges: ['10.20.0.1-fd00::1']",
        "spec.ranges[0]",
        "mixes IPv4 and IPv6",
    ),
    (
        "subnet: 10.20.0.0/24, ranges: [x]",
        "spec.ranges[0]",
        "must be an address, a range",
    ),
    (
        "subnet: 10.20.0.0/24, ranges: [10.20.0.1-10.20.0.2-10.20.0.3]",
        "spec.ranges[0]",
        "must be an address",
    ),
    (
        "subnet: 10.20.0.0/24, exclude: [10.21.0.1]",
        "spec.exclude",
        "inside of the subnet",
    ),
    (
        "subnet: 10.20.0.0/24, exclude: ['']",
        "spec.exclude[0]",
        "must be an address",
    ),
    (
        "subnet: 10.20.0.0/24, gateway: 10.21.0.1",
        "spec.gateway",
        "10.21.0.1 is not inside of the subnet 10.20.0.0/24",
    ),
    (
        "subnet: 10.20.0.0/24, gateway: 'fd00::1'",
        "spec.gateway",
        "not inside of the subnet",
    ),
    (
        "subnet: 10.20.0.0/24, gateway: 10.20.0.256",
        "spec.gateway",
        "must be an address",
    ),
    (
        "subnet: 10.20.0.0/24, gateway: 10.20.0.1, ranges: [10.20.0.1]",
        "spec.ranges",
        "no address is left",
    ),
    (
        "subnet: 10.20.0.0/24, routes: [{dst: 10.9.0.0/16}]",
        "spec.routes",
        "needs the pool to have a gateway",
    ),
    (
        "subnet: 10.20.0.0/24, routes: [{dst: 10.9.0.0/16, gw: 10.9.0.1}]",
        "spec.routes",
        "inside of the subnet",
    ),
    (
        "subnet: 10.20.0.0/24, routes: [{dst: 'fd01::/64', gw: 10.20.0.2}]",
        "spec.routes",
        "same family",
    ),
    (
        "subnet: 10.20.0.0/24, routes: [{dst: 10.9.0.0, gw: x}]",
        "spec.routes[0].gw",
        "must be an address",
    ),
    (
        "subnet: 10.20.0.0/24, vlan: 4095",
        "spec.vlan",
        "less than or equal to 4094",
    ),
    (
        "subnet: 10.20.0.0/24, vlan: 0",
        "spec.vlan",
        "greater than or equal to 1",
    ),
    (
        "subnet: 10.20.0.0/24, parent: an-interface-too-long",
        "spec.parent",
        "15",
    ),
    (
        "subnet: 10.20.0.0/24, parent: 'eth 1'",
        "spec.parent",
        "should match",
    ),
    (
        "subnet: 10.20.0.0/24, parent: '..'",
        "spec.parent",
        "must be an interface name",
    ),
    (
        "subnet: 10.20.0.0/24, mode: bridge",
        "spec.mode",
        "\"macvlan\", \"ipvlan\"",
    ),
    (
        "subnet: 10.20.0.0/24, mtu: 60",
        "spec.mtu",
        "greater than or equal to 68",
    ),
    (
        "subnet: 'fd00::/64', mtu: 1279",
        "spec.mtu",
        "at least 1280",
    ),
    (
        "subnet: 10.20.0.0/24, keep: always",
        "spec.keep",
        "should match",
    ),
    (
        "subnet: 10.20.0.0/24, coolDown: soon",
        "spec.coolDown",
        "should match",
    ),
    (
        "subnet: 10.20.0.0/24, gatewya: 10.20.0.1",
        "gatewya",
        "unknown field",
    ),
];

#[test]
fn pools_are_judged_as_in_the_embedded_mode() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = start()?;
    let mut wrong = Vec::new();
    for spec in GOOD {
        assert_eq!(embedded_refusal(&pool(spec)), None, "{spec}");
        if let Some(said) = refusal(&server, "create", &pool(spec))? {
            wrong.push(format!("{spec}: refused: {said}"));
        }
        server.kubectl(["delete", "ippool", "a", "--ignore-not-found"])?;
    }
    for (spec, field, word) in BAD {
        assert!(embedded_refusal(&pool(spec)).is_some(), "{spec}");
        match refusal(&server, "create", &pool(spec))? {
            None => {
                wrong.push(format!("{spec}: taken"));
                server.kubectl(["delete", "ippool", "a"])?;
            }
            Some(said) if said.contains(field) && said.contains(word) => {}
            Some(said) => wrong.push(format!("{spec}: not about {field}: {said}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_pool_shows_its_use_and_keeps_its_subnet_while_it_is_used() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = start()?;
    let with = |subnet: &str| pool(&format!("subnet: {subnet}"));
    server.apply(&with("10.20.0.0/24"))?;
    // Nothing is allocated: it may change. What others write of the status is
    // for the status' own path.
    server.apply(&with("10.21.0.0/24"))?;
    let status = json!({"status": {
        "total": 254, "allocated": 5, "used": 3, "idle": 1, "coolingDown": 1, "free": 249,
    }})
    .to_string();
    let patch = [
        "patch",
        "ippool",
        "a",
        "--type=merge",
        "-p",
        status.as_str(),
    ];
    server.kubectl(patch)?;
    let pool = server.kubectl_json(["get", "ippool", "a"])?;
    assert_eq!(pool.get("status"), None, "not through the spec's path");
    server.kubectl(patch.into_iter().chain(["--subresource=status"]))?;

    let table = server.kubectl(["get", "ippools"])?;
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        lines.next().context("no header")?,
        ["NAME", "SUBNET", "USED", "TOTAL", "FREE", "AGE"]
    );
    assert_eq!(
        lines.next().context("no pool")?[..5],
        ["a", "10.21.0.0/24", "3", "254", "249"]
    );

    let said = refusal(&server, "replace", &with("10.20.0.0/24"))?.context("it was taken")?;
    assert!(
        said.contains("spec.subnet") && said.contains("may not change"),
        "{said}"
    );
    // Everything else may.
    server.apply(&pool_with_gateway("10.21.0.0/24", "10.21.0.1"))?;
    let long = "a".repeat(64);
    let named = with("10.22.0.0/24").replace("name: a", &format!("name: {long}"));
    let said = refusal(&server, "create", &named)?.context("it was taken")?;
    assert!(
        said.contains("metadata.name must be no more than 63"),
        "{said}"
    );
    Ok(())
}

fn pool_with_gateway(subnet: &str, gateway: &str) -> String {
    pool(&format!("subnet: {subnet}, gateway: {gateway}"))
}

fn pod(uid: &str) -> PodRef {
    PodRef {
        namespace: "shop".to_owned(),
        name: "web-0".to_owned(),
        uid: uid.to_owned(),
    }
}

fn record(address: &str, owner: Owner, uid: &str) -> Allocation {
    let since = Timestamp(1_790_000_000_123);
    Allocation {
        address: address.parse().expect("the tests' own"),
        pool: "payments".to_owned(),
        claim: Claim {
            owner,
            ifname: "eth0".to_owned(),
            keep: Keep::For(Duration::from_secs(90)),
            cool_down: Duration::from_secs(10),
            pod: pod(uid),
            since,
        },
        holder: Some(Holder {
            pod: pod(uid),
            container_id: "c0ffee".to_owned(),
            ifname: "eth0".to_owned(),
            netns: "/run/netns/x".to_owned(),
            node: "node1".to_owned(),
            since,
        }),
        released: Some(since),
    }
}

fn ordinal(ordinal: u32) -> Owner {
    Owner::StatefulSet {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        ordinal,
    }
}

/// The record as an object: the same names; a moment is a date-time.
fn object(record: &Allocation) -> Result<Value> {
    fn dates(value: &mut Value) -> Result<()> {
        let Value::Object(fields) = value else {
            return Ok(());
        };
        for (name, field) in fields {
            let millis = field
                .as_u64()
                .filter(|_| name == "since" || name == "released");
            match millis {
                Some(millis) => {
                    let nanos = i128::from(millis) * 1_000_000;
                    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos)?;
                    *field = moment.format(&Rfc3339)?.into();
                }
                None => dates(field)?,
            }
        }
        Ok(())
    }
    let mut spec = serde_json::to_value(record)?;
    dates(&mut spec)?;
    let name = record.address.to_string().replace(['.', ':'], "-");
    Ok(json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "IPAllocation",
        "metadata": {"name": name},
        "spec": spec,
    }))
}

#[test]
fn every_record_is_an_allocation_and_comes_back_whole() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = start()?;
    let owners = [
        Owner::Pod(pod("u1")),
        Owner::PodName {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
        },
        ordinal(u32::MAX),
        Owner::Workload {
            workload: "Deployment".to_owned(),
            namespace: String::new(),
            name: "web".to_owned(),
        },
    ];
    for (owner, address) in
        owners
            .into_iter()
            .zip(["10.20.0.57", "10.20.0.58", "fd00:20::7", "fd00::a:0:1"])
    {
        let mut record = record(address, owner, "u1");
        if address == "10.20.0.58" {
            record.holder = None;
        }
        let object = object(&record)?;
        let text = object.to_string();
        let said = refusal(&server, "create", &text)?;
        assert_eq!(said, None, "{text}");
        // Creating the object is the lock.
        let said = refusal(&server, "create", &text)?.context("a second one was made")?;
        assert!(said.contains("AlreadyExists"), "{said}");
        let name = object["metadata"]["name"].as_str().context("named above")?;
        let read = server.kubectl_json(["get", "ipallocation", name])?;
        // Equal: nothing was pruned, nothing was added.
        assert_eq!(read["spec"], object["spec"]);
    }

    let table = server.kubectl(["get", "ipalloc", "10-20-0-57", "fd00-20--7"])?;
    let lines: Vec<Vec<_>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "NAME",
            "ADDRESS",
            "POOL",
            "NAMESPACE",
            "KIND",
            "OWNER",
            "POD",
            "NODE",
            "AGE"
        ]
    );
    assert_eq!(
        lines[1][..8],
        [
            "10-20-0-57",
            "10.20.0.57",
            "payments",
            "shop",
            "Pod",
            "web-0",
            "web-0",
            "node1"
        ]
    );
    assert_eq!(lines[2][..2], ["fd00-20--7", "fd00:20::7"]);

    let names = |selector: &str| -> Result<usize> {
        let flag = format!("--field-selector={selector}");
        Ok(server
            .kubectl(["get", "ipalloc", "-o", "name", &flag])?
            .lines()
            .count())
    };
    assert_eq!(names("spec.pool=payments")?, 4);
    assert_eq!(names("spec.pool=other")?, 0);
    assert_eq!(names("spec.holder.node=node1")?, 3);
    assert_eq!(names("spec.claim.pod.uid=u1,spec.claim.owner.name=web")?, 2);
    Ok(())
}

#[test]
fn an_address_never_goes_from_one_holder_to_the_next() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = start()?;
    let first = record("10.20.0.57", ordinal(0), "u1");
    server.kubectl_with(["create", "-f", "-"], &object(&first)?.to_string())?;

    // The same pod in a new sandbox keeps it.
    let mut again = first.clone();
    let holder = again.holder.as_mut().context("held")?;
    holder.container_id = "decaf".to_owned();
    assert_eq!(
        refusal(&server, "replace", &object(&again)?.to_string())?,
        None
    );
    // Another pod of the same name does not get it, until it is let go of.
    let next = record("10.20.0.57", ordinal(0), "u2");
    let said = refusal(&server, "replace", &object(&next)?.to_string())?.context("it was taken")?;
    assert!(
        said.contains("spec.holder") && said.contains("another pod's"),
        "{said}"
    );
    let idle = Allocation {
        holder: None,
        ..again
    };
    assert_eq!(
        refusal(&server, "replace", &object(&idle)?.to_string())?,
        None
    );
    assert_eq!(
        refusal(&server, "replace", &object(&next)?.to_string())?,
        None
    );
    Ok(())
}

#[test]
fn allocations_that_make_no_sense_are_refused() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = start()?;
    let good = object(&record("10.20.0.57", ordinal(0), "u1"))?;
    // What is changed, to what (null takes it away), the field, and a word.
    let cases = [
        (
            "/metadata/name",
            json!("10-20-0-58"),
            "metadata.name",
            "must be 10-20-0-57",
        ),
        (
            "/spec/address",
            json!("10.20.0.057"),
            "spec.address",
            "canonical",
        ),
        (
            "/spec/address",
            json!("FD00::1"),
            "spec.address",
            "canonical",
        ),
        ("/spec/pool", Value::Null, "spec.pool", "Required value"),
        (
            "/spec/claim",
            Value::Null,
            "spec.claim",
            "as there is a holder",
        ),
        (
            "/spec/claim/keep",
            json!("always"),
            "spec.claim.keep",
            "should match",
        ),
        (
            "/spec/claim/owner/kind",
            json!("Pod"),
            "spec.claim.owner.uid",
            "must be there for a Pod",
        ),
        (
            "/spec/claim/owner/ordinal",
            Value::Null,
            "spec.claim.owner.ordinal",
            "for a StatefulSet",
        ),
        (
            "/spec/claim/owner/ordinal",
            json!(-1),
            "spec.claim.owner.ordinal",
            "greater than or equal to 0",
        ),
        (
            "/spec/claim/since",
            json!(1_790_000_000_123_u64),
            "spec.claim.since",
            "date-time",
        ),
        (
            "/spec/holder/pod/uid",
            json!("u2"),
            "spec.holder",
            "must be of the claim's pod",
        ),
        (
            "/spec/holder/containerID",
            json!("c"),
            "containerID",
            "unknown field",
        ),
        (
            "/spec/quarantine",
            json!({"mac": "AA", "node": "n", "since": "2026-01-01T00:00:00Z"}),
            "spec.quarantine.mac",
            "should match",
        ),
    ];
    let mut wrong = Vec::new();
    for (pointer, value, field, word) in cases {
        let mut bad = good.clone();
        let (parent, key) = pointer.rsplit_once('/').context("a path")?;
        let parent = bad.pointer_mut(parent).and_then(Value::as_object_mut);
        let parent = parent.with_context(|| format!("nothing at {pointer}"))?;
        match &value {
            Value::Null => drop(parent.remove(key)),
            _ => drop(parent.insert(key.to_owned(), value)),
        }
        match refusal(&server, "create", &bad.to_string())? {
            Some(said) if said.contains(field) && said.contains(word) => {}
            said => wrong.push(format!("{pointer}: not about {field}: {said:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // An address in quarantine has no claim; one with neither is nothing.
    let mut bare = good;
    bare["spec"] = json!({"address": "10.20.0.57", "pool": "payments"});
    let said = refusal(&server, "create", &bare.to_string())?.context("it was taken")?;
    assert!(said.contains("spec.claim"), "{said}");
    bare["spec"]["quarantine"] =
        json!({"mac": "02:00:00:00:00:01", "node": "node1", "since": "2026-01-01T00:00:00Z"});
    assert_eq!(refusal(&server, "create", &bare.to_string())?, None);
    Ok(())
}

#[test]
fn the_definition_has_the_fields_that_berth_reads() -> Result<()> {
    let spec = IpPoolSpec {
        subnet: "10.20.0.0/24".parse()?,
        ranges: vec!["10.20.0.7".to_owned()],
        exclude: vec!["10.20.0.8".to_owned()],
        gateway: Some("10.20.0.1".parse()?),
        routes: vec![PoolRoute {
            dst: "10.30.0.0/16".parse()?,
            gw: Some("10.20.0.1".parse()?),
        }],
        vlan: Some(7),
        parent: Some("eth1".to_owned()),
        mode: PoolMode::Ipvlan,
        mtu: Some(1500),
        default: true,
        priority: 1,
        keep: Some("app".to_owned()),
        cool_down: Some("30s".to_owned()),
    };
    let parsed = berth_api::folder::parse(Path::new("ippools.yaml"), POOLS);
    let [definition] = parsed.objects.as_slice() else {
        panic!("{parsed:?}: one definition was expected");
    };
    let definition: Value = definition.decode()?;
    let fields = definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .and_then(Value::as_object)
        .context("the definition's fields")?;
    let defined: BTreeSet<_> = fields.keys().cloned().collect();
    let written = serde_json::to_value(spec)?;
    let read: BTreeSet<_> = written
        .as_object()
        .context("an object")?
        .keys()
        .cloned()
        .collect();
    ensure!(
        defined == read,
        "{defined:?} in the definition, {read:?} in the code"
    );
    Ok(())
}
