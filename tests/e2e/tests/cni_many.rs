//! Many calls at once, as a node that starts makes them.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use berth_e2e::cni::{Node, POOL, Sandbox, connect};
use berth_lab::{require_binaries, require_root};

const PODS: usize = 50;

#[test]
fn fifty_at_once_get_fifty_addresses_and_leave_nothing() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let pods: Vec<_> = (0..PODS).map(|n| Sandbox::new(&format!("c{n}"))).collect();
    let start = Barrier::new(PODS);
    let all = |verb: &'static str| {
        thread::scope(|scope| {
            let calls: Vec<_> = pods
                .iter()
                .map(|pod| {
                    let (node, start) = (&node, &start);
                    scope.spawn(move || {
                        let call = node.call(verb, pod, &format!("pod-{}", pod.id));
                        start.wait();
                        node.run(&call)
                    })
                })
                .collect();
            for call in calls {
                let answer = call.join().unwrap();
                assert!(answer.ok, "{answer:?}");
            }
        });
    };
    all("ADD");
    let given: BTreeSet<_> = pods.iter().map(|pod| pod.address().unwrap()).collect();
    assert_eq!(given.len(), PODS, "{given:?}");
    assert_eq!(node.held().len(), PODS);
    for pod in &pods {
        connect(&node.netns, &pod.netns, pod.address().unwrap()).unwrap();
    }
    all("DEL");
    assert!(node.traces().is_empty(), "{:?}", node.traces());
    // And both at once, each its own way, again and again.
    for _ in 0..3 {
        all("ADD");
        all("DEL");
    }
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}
