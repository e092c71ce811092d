//! Bad input: one clear message each, and everything else goes on.

use anyhow::Result;
use berth_lab::{Lab, require_binaries, require_root};

const BAD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: good}
spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: [oops
---
apiVersion: batch/v1
kind: Job
metadata: {name: report}
---
apiVersion: v1
kind: Service
metadata: {name: portless}
spec: {selector: {app: x}}
---
apiVersion: v1
kind: Pod
metadata: {name: outside, annotations: {berth.dev/ip: "192.0.2.7"}}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nonsense, annotations: {berth.dev/ip: "10.20.0.999"}}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nopool, annotations: {berth.dev/pool: "nowhere"}}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: twin-a, annotations: {berth.dev/ip: "10.20.0.190"}}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: twin-b, annotations: {berth.dev/ip: "10.20.0.190"}}
spec: {containers: [{name: c}]}
---
apiVersion: berth.dev/v1alpha1
kind: IPPool
metadata: {name: tiny}
spec: {subnet: 10.20.0.0/24, ranges: [10.20.0.240], gateway: 10.20.0.1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: crowd}
spec:
  replicas: 2
  selector: {matchLabels: {app: crowd}}
  template:
    metadata: {labels: {app: crowd}, annotations: {berth.dev/pool: tiny}}
    spec: {containers: [{name: c}]}
"#;

#[test]
fn each_mistake_is_told_once_and_the_rest_goes_on() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni");
    let lab = Lab::builder()
        .without_agent()
        .without_dns()
        .yaml("bad.yaml", BAD)
        .start()?;
    let told = lab.warnings();
    for expected in [
        &["bad.yaml:7", "cannot be read as YAML"][..],
        &["bad.yaml:11: Job default/report: kind:"],
        &["bad.yaml:15: Service default/portless: spec.ports:"],
        &["pod default/outside", "192.0.2.7"],
        &["pod default/nonsense", "10.20.0.999", "berth.dev/ip"],
        &["pod default/nopool", "nowhere"],
        &["pod default/twin-", "10.20.0.190"],
        &["pod default/crowd-", "tiny"],
    ] {
        let fits = |warning: &&String| expected.iter().all(|part| warning.contains(part));
        let count = told.iter().filter(fits).count();
        assert_eq!(count, 1, "{expected:?} in {told:#?}");
    }
    assert_eq!(told.len(), 8, "{told:#?}");
    let running: Vec<_> = lab.pods().iter().map(|pod| pod.plan.name.clone()).collect();
    assert_eq!(
        running.len(),
        3,
        "good, one twin, one of the crowd: {running:?}"
    );
    let good = lab.pod("default/good")?.address();
    lab.vm(1).tcp(&format!("{good}:80"))?;
    Ok(())
}

/// A refused pod leaves no namespace, no cgroup, no interface behind.
#[test]
fn a_refused_pod_leaves_nothing() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni");
    let lab = Lab::builder()
        .nodes(1)
        .vms(0)
        .without_agent()
        .without_dns()
        .yaml(
            "bad.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {berth.dev/ip: 192.0.2.7}}\n\
             spec: {containers: [{name: c}]}\n",
        )
        .start()?;
    assert_eq!(lab.failed_pods().len(), 1);
    let prefix = format!("berth-{}-", lab.name());
    let mut names = berth_lab::ground::netns::with_prefix(&prefix)?;
    names.sort();
    assert_eq!(names, [format!("{prefix}node1"), format!("{prefix}wire")]);
    let pods = lab.node(1).cgroup().join("pods");
    assert_eq!(
        std::fs::read_dir(pods)?
            .filter_map(Result::ok)
            .filter(|e| e.path().is_dir())
            .count(),
        0
    );
    Ok(())
}
