//! A real API server: it serves, survives a crash with its objects, is reached
//! from a lab's nodes, and leaves nothing behind.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use berth_kube::{ApiServer, Options, Place, Program, Refused, binaries, eventually};
use berth_lab::ground::netns;
use berth_lab::{Lab, require_root, skip};

const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80}]
";

#[test]
fn a_service_gets_its_addresses_and_outlives_a_crash() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let mut server = ApiServer::start(Options::default())?;
    println!("ready after {:.1} s", server.took().as_secs_f32());
    let version: serde_json::Value = serde_json::from_str(&server.get("/version")?)?;
    assert_eq!(version["gitVersion"], binaries::kubernetes_version());

    server.apply(SHOP)?;
    let before = server.kubectl_json(["get", "service", "shop"])?;
    let addresses = before["spec"]["clusterIPs"].as_array().context("no list")?;
    let [v4, v6] = addresses.as_slice() else {
        panic!("{addresses:?}: one of each family was asked for");
    };
    let starts = |address: &serde_json::Value, with| {
        address.as_str().is_some_and(|text| text.starts_with(with))
    };
    assert!(starts(v4, "10.96."), "{v4}");
    assert!(starts(v6, "fd00:96::"), "{v6}");

    server.kill()?;
    assert!(server.get("/readyz").is_err(), "it was killed");
    server.restart()?;
    let after = server.kubectl_json(["get", "service", "shop"])?;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    Ok(())
}

#[test]
fn a_user_may_do_nothing_until_rbac_says_so() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = ApiServer::start(Options::default())?;
    let config = server.kubeconfig_of("berth-dns", None)?;
    let config = config.to_str().context("a name of ours")?;
    let list = ["--kubeconfig", config, "get", "services", "-A"];
    let refused = server.kubectl(list).unwrap_err();
    let refused = refused.downcast::<Refused>()?;
    assert!(
        refused
            .said
            .contains("User \"berth-dns\" cannot list resource \"services\""),
        "{refused}"
    );
    server.kubectl([
        "create",
        "clusterrole",
        "see",
        "--verb=list",
        "--resource=services",
    ])?;
    server.kubectl([
        "create",
        "clusterrolebinding",
        "see",
        "--clusterrole=see",
        "--user=berth-dns",
    ])?;
    // The authorizer hears of it through a watch of its own.
    eventually("the right to list Services", || server.kubectl(list))?;
    Ok(())
}

#[test]
fn a_paused_server_answers_when_it_goes_on() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let server = ApiServer::start(Options::default())?;
    server.pause()?;
    let start = ["--request-timeout=1s", "get", "namespaces"];
    let refused = server.kubectl(start).unwrap_err().to_string();
    assert!(refused.contains("Timeout"), "{refused}");
    server.resume()?;
    eventually("an answer", || server.kubectl(start)).map(drop)
}

#[test]
fn a_labs_nodes_reach_it_and_nothing_is_left() -> Result<()> {
    require_root!();
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let lab = Lab::builder().without_agent().without_dns().start()?;
    let wire = netns::path(&format!("berth-{}-wire", lab.name()));
    let server = ApiServer::start(Options {
        place: Place::in_netns(&wire, "10.20.0.2".parse()?),
        ..Options::default()
    })?;
    let node = Place::in_netns(
        netns::path(&format!("berth-{}-node1", lab.name())),
        "10.20.0.11".parse()?,
    );
    let kubectl = binaries::find(Program::Kubectl)?;
    let endpoint = "jsonpath={.endpoints[0].addresses[0]}";
    // The server writes its own endpoint when it is ready already.
    let said = eventually("the API server's own endpoint", || {
        let answer = node
            .command(&kubectl)
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .args(["get", "endpointslices", "kubernetes", "-o", endpoint])
            .output()?;
        let error = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.status.success(), "{error}");
        Ok(String::from_utf8(answer.stdout)?)
    })?;
    assert_eq!(said, "10.20.0.2");

    let folder = server.folder().to_owned();
    let processes = [server.process().id(), server.etcd().id()];
    for pid in processes {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        assert!(["kube-apiserver", "etcd"].contains(&name.trim()), "{name}");
    }
    drop(server);
    assert!(!folder.exists());
    for pid in processes {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid}");
    }
    Ok(())
}
