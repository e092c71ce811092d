//! The programs beside the API server do their work: controllers and scheduler
//! make endpoints of pods, kube-proxy translates.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_kube::{
    ApiServer, ControllerManager, KubeProxy, KubeProxyOptions, Options, Place, Program, ProxyMode,
    Scheduler, binaries, eventually,
};
use berth_lab::ground::netns;
use berth_lab::{Lab, require_root, skip};
use serde_json::Value;

const SHOP: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers: [{name: shop, image: shop}]
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  selector: {app: shop}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

/// The addresses of Service `shop`: whether each is ready, and its node.
fn endpoints(server: &ApiServer) -> Result<BTreeMap<String, (bool, String)>> {
    let label = "kubernetes.io/service-name=shop";
    let slices = server.kubectl_json(["get", "endpointslices", "-l", label])?;
    let mut found = BTreeMap::new();
    for slice in slices["items"].as_array().context("a list")? {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let ready = endpoint["conditions"]["ready"] == true;
            found.insert(
                text(&endpoint["addresses"][0]),
                (ready, text(&endpoint["nodeName"])),
            );
        }
    }
    Ok(found)
}

#[test]
fn controllers_make_endpoints_of_scheduled_pods() -> Result<()> {
    if let Err(why) = available(&[Program::KubeControllerManager, Program::KubeScheduler]) {
        skip!("{why:#}");
    }
    let server = ApiServer::start(Options::default())?;
    // The stand-in's nodes send no heartbeat.
    let grace = "--node-monitor-grace-period=1h";
    let _controllers = ControllerManager::start_with(&server, &[grace])?;
    let _scheduler = Scheduler::start(&server)?;
    server.add_node("node1", "10.20.0.11".parse()?, Some("east"))?;
    server.apply(SHOP)?;
    let pods = eventually("two scheduled pods", || {
        let pods = server.kubectl_json(["get", "pods", "-l", "app=shop"])?;
        let pods = pods["items"].as_array().context("a list")?.clone();
        let scheduled = pods.iter().filter(|pod| pod["spec"]["nodeName"] == "node1");
        ensure!(scheduled.count() == 2, "{pods:?}");
        Ok(pods)
    })?;
    assert_eq!(
        endpoints(&server)?,
        BTreeMap::new(),
        "no pod has an address"
    );
    let name = |index: usize| pods[index]["metadata"]["name"].as_str().context("a name");
    server.run_pod("default", name(0)?, &["10.20.0.50".parse()?], true)?;
    server.run_pod("default", name(1)?, &["10.20.0.51".parse()?], false)?;
    let node = || "node1".to_owned();
    eventually("one ready endpoint and one that is not", || {
        let wanted = [("10.20.0.50", true), ("10.20.0.51", false)];
        let wanted = wanted.map(|(ip, ready)| (ip.to_owned(), (ready, node())));
        let found = endpoints(&server)?;
        ensure!(found == BTreeMap::from(wanted), "{found:?}");
        Ok(())
    })?;
    server.end_pod("default", name(0)?)?;
    server.run_pod("default", name(1)?, &["10.20.0.51".parse()?], true)?;
    eventually("the endpoint that is left", || {
        let found = endpoints(&server)?;
        let wanted = BTreeMap::from([("10.20.0.51".to_owned(), (true, node()))]);
        ensure!(found == wanted, "{found:?}");
        Ok(())
    })
}

#[test]
fn pods_are_bound_without_a_scheduler() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = ApiServer::start(Options::default())?;
    server.add_node("node2", "10.20.0.12".parse()?, None)?;
    server.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: default}, \
         spec: {containers: [{name: a, image: a}]}}",
    )?;
    server.bind_pod("default", "a", "node2")?;
    server.run_pod(
        "default",
        "a",
        &["10.20.0.50".parse()?, "fd00:20::50".parse()?],
        true,
    )?;
    let pod = server.kubectl_json(["get", "pod", "a"])?;
    assert_eq!(pod["spec"]["nodeName"], "node2");
    assert_eq!(pod["status"]["podIPs"][1]["ip"], "fd00:20::50");
    Ok(())
}

#[test]
fn kube_proxy_leads_to_the_api_server_in_either_mode() -> Result<()> {
    require_root!();
    if let Err(why) = available(&[Program::KubeProxy]) {
        skip!("{why:#}");
    }
    for tool in ["nft", "iptables"] {
        if Command::new(tool).arg("--version").output().is_err() {
            skip!("{tool} is not in PATH: apt-get install nftables iptables");
        }
    }
    let lab = Lab::builder().without_agent().without_dns().start()?;
    let machine = |name: &str| netns::path(&format!("berth-{}-{name}", lab.name()));
    let server = ApiServer::start(Options {
        place: Place::in_netns(machine("wire"), "10.20.0.2".parse()?),
        ..Options::default()
    })?;
    // Each on a node of its own, which never had another's rules.
    for (node, address, mode) in [
        ("node1", "10.20.0.11", ProxyMode::Nftables),
        ("node2", "10.20.0.12", ProxyMode::Iptables),
    ] {
        server.add_node(node, address.parse()?, None)?;
        let place = Place::in_netns(machine(node), address.parse()?);
        // The server's certificate names the first address of its Services.
        let ask = || -> Result<()> {
            let answer = place
                .command(binaries::find(Program::Kubectl)?)
                .arg("--kubeconfig")
                .arg(server.kubeconfig())
                .args(["--server=https://10.96.0.1", "--request-timeout=2s"])
                .args(["get", "--raw", "/readyz"])
                .output()?;
            let said = String::from_utf8_lossy(&answer.stderr);
            ensure!(answer.status.success(), "{said}");
            ensure!(answer.stdout == b"ok", "{answer:?}");
            Ok(())
        };
        assert!(ask().is_err(), "{node}: nobody translates yet");
        let _proxy = KubeProxy::start(
            &server,
            &KubeProxyOptions {
                node_name: node.to_owned(),
                place: place.clone(),
                mode,
                arguments: Vec::new(),
            },
        )?;
        eventually("kube-proxy's translation", ask).with_context(|| format!("{mode:?}"))?;
    }
    Ok(())
}

fn available(programs: &[Program]) -> Result<()> {
    berth_kube::available()?;
    binaries::ensure(programs).map(drop)
}
