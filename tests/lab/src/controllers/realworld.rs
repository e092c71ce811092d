//! Manifests that other projects wrote, through the whole stand-in.

use super::slices::{open_ports, slices};
use super::{Allocator, Service, plan, read};
use crate::{require, skip};

#[derive(Debug)]
struct World {
    pods: Vec<super::PodPlan>,
    services: Vec<Service>,
    warnings: Vec<String>,
}

fn world(names: &[&str]) -> anyhow::Result<World> {
    let mut files = Vec::new();
    for name in names {
        let path = require::realworld(name)?;
        let text = std::fs::read_to_string(&path)?;
        files.push((path, text));
    }
    let manifests = read(&files);
    let plan = plan(&manifests.workloads, &["node1".into(), "node2".into()])?;
    let (services, refused) =
        Allocator::new("10.96.0.0/16".parse()?, []).admit(&manifests.services);
    let rejected = plan.rejected.iter().chain(&refused);
    let mut warnings = manifests.warnings;
    warnings.extend(rejected.map(ToString::to_string));
    Ok(World {
        pods: plan.pods,
        services,
        warnings,
    })
}

macro_rules! world {
    ($($name:literal),+) => {
        match world(&[$($name),+]) {
            Ok(world) => world,
            Err(why) => skip!("{why:#}"),
        }
    };
}

#[test]
fn online_boutique_is_understood_whole() {
    let world = world!("online-boutique.yaml");
    assert_eq!(world.warnings, [] as [&str; 0]);
    assert_eq!((world.pods.len(), world.services.len()), (12, 12));
    let frontend = world.services.iter().find(|s| s.name == "frontend");
    let slice = &slices(frontend.unwrap(), &[])[0];
    assert_eq!(slice["metadata"]["name"], "frontend-0");
    let pod = world
        .pods
        .iter()
        .find(|p| p.name.starts_with("emailservice-"));
    let ports: Vec<_> = open_ports(pod.unwrap(), &world.services)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ports, ["TCP:8080"], "the Service's 5000 leads there");
}

#[test]
fn a_stateful_set_behind_a_headless_service() {
    let world = world!("cassandra.yaml");
    assert_eq!(world.warnings, [] as [&str; 0]);
    let names: Vec<_> = world.pods.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["cassandra-0", "cassandra-1", "cassandra-2"]);
    assert!(world.services[0].is_headless());
}

#[test]
fn two_applications_with_a_frontend_run_side_by_side() {
    let world = world!("online-boutique.yaml", "guestbook.yaml", "cassandra.yaml");
    assert_eq!(world.warnings.len(), 1, "{:?}", world.warnings);
    assert_eq!(world.pods.len(), 21);
    let namespaces: Vec<_> = world
        .services
        .iter()
        .filter(|service| service.name == "frontend")
        .map(|service| service.namespace.as_str())
        .collect();
    assert_eq!(namespaces, ["default", "guestbook"]);
}
