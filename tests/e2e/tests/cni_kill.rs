//! An ADD or DEL that is killed at any step leaves nothing that the next DEL
//! or ADD does not put right.

use berth_cni::Step;
use berth_e2e::cni::{Call, Node, POOL, Sandbox, connect};
use berth_lab::require_root;

const ADD_STEPS: usize = 11;

fn killable(node: &Node, verb: &'static str, sandbox: &Sandbox, at: Step) -> Call {
    Call {
        program: env!("CARGO_BIN_EXE_berth-cni-killable").into(),
        kill_at: at.name(),
        ..node.call(verb, sandbox, "web")
    }
}

fn plain(node: &Node, verb: &'static str, sandbox: &Sandbox) -> Call {
    Call {
        program: env!("CARGO_BIN_EXE_berth-cni-killable").into(),
        ..node.call(verb, sandbox, "web")
    }
}

#[test]
fn del_after_a_killed_add_leaves_nothing() {
    require_root!();
    for step in &Step::ALL[..ADD_STEPS] {
        let node = Node::new(POOL);
        let pod = Sandbox::new("c1");
        let answer = node.run(&killable(&node, "ADD", &pod, *step));
        assert!(
            answer.killed,
            "{} was never reached: {answer:?}",
            step.name()
        );
        assert!(!node.traces().is_empty(), "{}", step.name());
        assert!(node.run(&plain(&node, "DEL", &pod)).ok, "{}", step.name());
        assert!(
            node.traces().is_empty(),
            "{}: {:?}",
            step.name(),
            node.traces()
        );
        assert!(pod.handle.link_by_name("eth0").is_err(), "{}", step.name());
        let again = node.run(&plain(&node, "ADD", &pod));
        assert!(again.ok, "{}: {again:?}", step.name());
        assert!(connect(&node.netns, &pod.netns, pod.address().unwrap()).is_ok());
    }
}

#[test]
fn del_after_a_killed_add_works_when_the_namespace_has_gone() {
    require_root!();
    for step in &Step::ALL[..ADD_STEPS] {
        let node = Node::new(POOL);
        let pod = Sandbox::new("c1");
        assert!(node.run(&killable(&node, "ADD", &pod, *step)).killed);
        let mut del = plain(&node, "DEL", &pod);
        del.netns = String::new();
        drop(pod);
        assert!(node.run(&del).ok, "{}", step.name());
        assert!(
            node.traces().is_empty(),
            "{}: {:?}",
            step.name(),
            node.traces()
        );
    }
}

#[test]
fn add_after_a_killed_add_works_in_the_same_sandbox_and_in_another() {
    require_root!();
    for step in &Step::ALL[..ADD_STEPS - 1] {
        let node = Node::new(POOL);
        let pod = Sandbox::new("c1");
        assert!(node.run(&killable(&node, "ADD", &pod, *step)).killed);
        let answer = node.run(&plain(&node, "ADD", &pod));
        assert!(answer.ok, "{}: {answer:?}", step.name());
        assert!(connect(&node.netns, &pod.netns, pod.address().unwrap()).is_ok());
        assert!(node.run(&plain(&node, "DEL", &pod)).ok);
        assert!(
            node.traces().is_empty(),
            "{}: {:?}",
            step.name(),
            node.traces()
        );

        let (dead, next) = (Sandbox::new("c2"), Sandbox::new("c3"));
        assert!(node.run(&killable(&node, "ADD", &dead, *step)).killed);
        let answer = node.run(&plain(&node, "ADD", &next));
        assert!(answer.ok, "{}: {answer:?}", step.name());
        assert!(node.run(&plain(&node, "DEL", &dead)).ok);
        assert!(connect(&node.netns, &next.netns, next.address().unwrap()).is_ok());
        assert!(node.run(&plain(&node, "DEL", &next)).ok);
        assert!(
            node.traces().is_empty(),
            "{}: {:?}",
            step.name(),
            node.traces()
        );
    }
}

#[test]
fn a_killed_del_is_finished_by_the_next() {
    require_root!();
    for step in &Step::ALL[ADD_STEPS..] {
        let node = Node::new(POOL);
        let pod = Sandbox::new("c1");
        assert!(node.run(&plain(&node, "ADD", &pod)).ok);
        let answer = node.run(&killable(&node, "DEL", &pod, *step));
        assert!(
            answer.killed,
            "{} was never reached: {answer:?}",
            step.name()
        );
        assert!(node.run(&plain(&node, "DEL", &pod)).ok, "{}", step.name());
        assert!(
            node.traces().is_empty(),
            "{}: {:?}",
            step.name(),
            node.traces()
        );
    }
}
