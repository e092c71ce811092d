//! The agent in cluster mode, against a real API server and by the rights of
//! its service account alone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_api::agent::DumpedFrontend;
use berth_e2e::agent::Agent;
use berth_e2e::cluster::{Cluster, ENDPOINTS, NODE, RBAC, WITHIN};
use berth_e2e::proxy::until;
use berth_lab::probe::{FailureKind, Pace};
use berth_lab::{require_binaries, require_root, skip};
use serde_json::{Value, json};

macro_rules! require_everything {
    () => {
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent");
        if let Err(why) = berth_kube::available() {
            skip!("{why:#}");
        }
    };
}

/// A change that reaches an agent whose watch is whole.
const SOON: Duration = Duration::from_secs(30);

const WEB: &str = "10.96.7.1";
const DATABASE: &str = "10.96.7.2";
const CACHE: &str = "10.96.7.3";

fn service(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": address, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

fn slice(service: &str, addresses: &[&str]) -> Value {
    let endpoint = |address: &&str| json!({"addresses": [address], "nodeName": NODE});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-0"),
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"port": 8080}],
    })
}

fn apply(cluster: &Cluster, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    cluster.server.apply(&list.to_string()).map(drop)
}

fn frontend(agent: &Agent, address: &str) -> Result<Option<DumpedFrontend>> {
    let mut held = agent.realized()?;
    Ok(held.remove(&format!("{address}:80/TCP socket")))
}

/// Waits until exactly these endpoints are what `address` leads to.
fn leads_to(agent: &Agent, address: &str, endpoints: &[&str], within: Duration) -> Result<()> {
    let wanted: BTreeSet<_> = endpoints.iter().map(|e| format!("{e}:8080")).collect();
    let what = format!("{address} leads to {wanted:?}");
    until(&what, within, || {
        let held = frontend(agent, address)?;
        Ok(held.is_some_and(|held| {
            let backends = held.backends.iter().map(ToString::to_string);
            backends.collect::<BTreeSet<_>>() == wanted
        }))
    })
    .with_context(|| agent.tail())?;
    Ok(())
}

fn is_gone(agent: &Agent, address: &str, within: Duration) -> Result<()> {
    until(&format!("{address} is gone"), within, || {
        Ok(frontend(agent, address)?.is_none())
    })
    .with_context(|| agent.tail())?;
    Ok(())
}

#[test]
fn it_follows_the_api_server_and_outlives_it() -> Result<()> {
    require_everything!();
    let mut cluster = Cluster::start()?;
    let agent = cluster.agent()?;
    let ask = |address: &str| cluster.lab.node(1).tcp(&format!("{address}:80"));

    // Created: first without endpoints, then with.
    apply(&cluster, &[service("web", WEB)])?;
    leads_to(&agent, WEB, &[], SOON)?;
    assert_eq!(ask(WEB).unwrap_err().kind, FailureKind::Refused);
    apply(&cluster, &[slice("web", &ENDPOINTS[..2])])?;
    leads_to(&agent, WEB, &ENDPOINTS[..2], SOON)?;
    let answer = ask(WEB)?;
    assert_eq!(answer.echo.pod, "churn/echo");
    let held = frontend(&agent, WEB)?.context("it is there")?;
    assert_eq!(held.local, 2, "both are on this node: {held:?}");
    assert_eq!(held.service.as_deref(), Some("default/web:80/TCP"));

    // Changed.
    apply(&cluster, &[slice("web", &ENDPOINTS[1..3])])?;
    leads_to(&agent, WEB, &ENDPOINTS[1..3], SOON)?;

    // Headless, which a Service becomes by way of ExternalName: its ClusterIP
    // cannot be changed otherwise.
    apply(
        &cluster,
        &[service("db", DATABASE), slice("db", &ENDPOINTS[..1])],
    )?;
    leads_to(&agent, DATABASE, &ENDPOINTS[..1], SOON)?;
    let patch = |what: Value| {
        let patch = what.to_string();
        let arguments = ["patch", "service", "db", "--type=merge", "-p", &patch];
        cluster.server.kubectl(arguments)
    };
    patch(json!({"spec": {
        "type": "ExternalName", "externalName": "db.example", "clusterIP": null, "clusterIPs": null,
    }}))?;
    is_gone(&agent, DATABASE, SOON)?;
    patch(json!({"spec": {"type": "ClusterIP", "externalName": null, "clusterIP": "None"}}))?;
    let turned = cluster.server.kubectl_json(["get", "service", "db"])?;
    assert_eq!(turned["spec"]["clusterIP"], "None");

    // Deleted; a slice that is deleted alone leaves a Service that refuses.
    apply(
        &cluster,
        &[service("cache", CACHE), slice("cache", &ENDPOINTS)],
    )?;
    leads_to(&agent, CACHE, &ENDPOINTS, SOON)?;
    cluster
        .server
        .kubectl(["delete", "endpointslice", "cache-0"])?;
    leads_to(&agent, CACHE, &[], SOON)?;
    cluster.server.kubectl(["delete", "service", "cache"])?;
    is_gone(&agent, CACHE, SOON)?;
    assert!(
        frontend(&agent, DATABASE)?.is_none(),
        "headless: not served"
    );

    // The API server goes: what is served stays, connections with it.
    let pace = |hold| Pace {
        every: Duration::from_millis(10),
        timeout: Duration::from_secs(20),
        hold,
    };
    apply(
        &cluster,
        &[service("cache", CACHE), slice("cache", &ENDPOINTS)],
    )?;
    leads_to(&agent, CACHE, &ENDPOINTS, SOON)?;
    let before = agent.realized()?;
    let target = format!("{WEB}:80");
    let node = cluster.lab.node(1);
    let loads = [
        node.load(&target, pace(false))?,
        node.load(&target, pace(true))?,
    ];
    cluster.server.kill()?;
    until("the agent misses it", SOON, || {
        Ok(agent.log()?.contains("the watch broke"))
    })?;
    assert_eq!(agent.realized()?, before);
    assert_eq!(agent.get("/readyz")?.0, 200, "what is known is served");

    // While the agent cannot listen, things change. When it hears again, the
    // server does not know any more what it missed, and wants a new list.
    cluster.relay.hold();
    cluster.server.restart()?;
    cluster.server.kubectl(["delete", "service", "cache"])?;
    cluster
        .server
        .kubectl(["delete", "endpointslice", "cache-0", "db-0"])?;
    apply(&cluster, &[slice("web", &ENDPOINTS[3..])])?;
    cluster.server.restart()?;
    assert_eq!(agent.realized()?, before, "nobody has told it");
    cluster.relay.release();
    is_gone(&agent, CACHE, WITHIN)?;
    leads_to(&agent, WEB, &ENDPOINTS[3..], WITHIN)?;
    let log = agent.log()?;
    assert!(
        log.contains("too old resource version") || log.contains("Expired"),
        "the deletions were told one by one, so none was missed:\n{log}"
    );
    for load in loads {
        let report = load.stop()?;
        assert_eq!(report.failures, [] as [&str; 0]);
        assert_eq!(report.failed, 0, "{report:?}");
        assert!(report.succeeded > 1, "{report:?}");
    }
    assert!(!log.contains("forbidden"), "{log}");
    // What it did to get here is what a new agent would have done.
    assert_eq!(agent.realized()?, agent.desired()?);
    Ok(())
}

/// The requests that the server has refused, as `list services`.
fn refused(log: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for told in log.split("cannot ").skip(1) {
        let mut words = told.split(['"', '\\', ' ']).filter(|word| !word.is_empty());
        if let (Some(verb), Some("resource"), Some(resource)) =
            (words.next(), words.next(), words.next())
        {
            found.insert(format!("{verb} {resource}"));
        }
    }
    found
}

#[test]
fn every_right_of_its_role_is_needed() -> Result<()> {
    require_everything!();
    let cluster = Cluster::start()?;
    let role = cluster
        .server
        .kubectl_json(["get", "clusterrole", "berth-agent"])?;
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().context("rules")? {
        for resource in rule["resources"].as_array().context("resources")? {
            for verb in rule["verbs"].as_array().context("verbs")? {
                let word = |value: &Value| value.as_str().map(str::to_owned).context("a word");
                let group = rule["apiGroups"][0].clone();
                rights.insert((word(&group)?, word(resource)?, word(verb)?));
            }
        }
    }
    assert!(rights.len() >= 6, "{RBAC}");
    let mut agents = Vec::new();
    for missing in &rights {
        let (_, resource, verb) = missing;
        let user = format!("without-{verb}-{resource}");
        let rest = rights.iter().filter(|right| *right != missing);
        let rules: Vec<_> = rest
            .map(|(group, resource, verb)| {
                json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
            })
            .collect();
        let api = "rbac.authorization.k8s.io";
        apply(
            &cluster,
            &[
                json!({
                    "apiVersion": format!("{api}/v1"),
                    "kind": "ClusterRole",
                    "metadata": {"name": user},
                    "rules": rules,
                }),
                json!({
                    "apiVersion": format!("{api}/v1"),
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": user},
                    "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": user},
                    "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
                }),
                // What addresses take is another role's.
                json!({
                    "apiVersion": format!("{api}/v1"),
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": format!("{user}-addresses")},
                    "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "berth-agent-addresses"},
                    "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
                }),
            ],
        )?;
        let kubeconfig = cluster.server.kubeconfig_of(&user, None)?;
        agents.push((format!("{verb} {resource}"), user, kubeconfig));
    }
    for (missing, user, kubeconfig) in agents {
        // The authorizer hears of the binding by a watch of its own.
        let config = kubeconfig.to_str().context("a name of ours")?;
        let other = if missing == "list nodes" {
            "services"
        } else {
            "nodes"
        };
        berth_kube::eventually(&format!("the rights of {user}"), || {
            let can = ["auth", "can-i", "list", other, "--kubeconfig", config];
            let told = cluster.server.kubectl(can)?;
            ensure!(told.trim() == "yes", "{told}");
            Ok(())
        })?;
        let agent = cluster.another_agent(&user, Some(&kubeconfig))?;
        until(&format!("it misses the right to {missing}"), SOON, || {
            Ok(!refused(&agent.log()?).is_empty())
        })
        .with_context(|| agent.tail())?;
        assert_eq!(
            refused(&agent.log()?),
            BTreeSet::from([missing]),
            "{}",
            agent.tail()
        );
        agent.kill()?;
    }
    Ok(())
}
