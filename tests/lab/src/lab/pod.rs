//! A running pod.

use std::net::IpAddr;
use std::ops::Deref;

use crate::controllers::PodPlan;
use crate::ground::enter::Place;
use crate::kubelet::sandbox::Sandbox;
use crate::probe::Probe;
use crate::probe::echo::Port;

/// A running pod. What its [`Probe`] can do, it can: `pod.tcp("web:80")`.
#[derive(Debug)]
pub struct Pod {
    /// What it was made from.
    pub plan: PodPlan,
    uid: String,
    node: String,
    ports: Vec<Port>,
    sandbox: Sandbox,
}

impl Pod {
    pub(super) fn new(
        plan: PodPlan,
        uid: String,
        node: &str,
        ports: Vec<Port>,
        sandbox: Sandbox,
    ) -> Self {
        Self {
            plan,
            uid,
            node: node.to_owned(),
            ports,
            sandbox,
        }
    }

    pub(super) fn into_parts(self) -> (PodPlan, Sandbox) {
        (self.plan, self.sandbox)
    }

    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.plan.full_name()
    }

    /// Its UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The name of its node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The ports that it answers on.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.sandbox.attached.address
    }

    /// Its MAC as the CNI plugin told it; none for a pod in the node's
    /// namespace.
    #[must_use]
    pub fn mac(&self) -> Option<&str> {
        self.sandbox.attached.mac.as_deref()
    }

    /// The name of its network namespace, for `ip netns exec`.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.sandbox.netns
    }

    /// Its sandbox's container ID; none for a pod in the node's namespace.
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        self.sandbox.container_id()
    }

    /// Where its processes run.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.sandbox.place
    }
}

impl Deref for Pod {
    type Target = Probe;

    fn deref(&self) -> &Probe {
        &self.sandbox.probe
    }
}
