//! What the agent believes about the cluster: Services and their endpoints,
//! in Berth's own words, with names and addresses already checked.
//!
//! Must not know where objects come from (that is `reflector`) nor what a map
//! is (that is `datapath`). One [`ClusterState`], owned by one thread.

mod pod;
mod service;
mod state;

pub use pod::{HostPort, Pod};
pub use service::{
    Endpoint, EndpointPort, EndpointSlice, Family, NamespacedName, Owner, PortId, Protocol,
    Service, ServicePort, SliceKey, TrafficPolicy,
};
pub use state::{Change, ClusterState, Dirty, SourceKind};
