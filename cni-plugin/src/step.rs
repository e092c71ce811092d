//! The moments of an ADD or DEL after which something has changed that must
//! be undone if this program is killed there.
//!
//! Tests run this program's code in a process that kills itself at one of
//! these; the product's observer does nothing.

/// Hears of every step, right after it.
pub type Observer<'a> = &'a dyn Fn(Step);

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $step:ident = $name:literal,)+) => {
        /// One moment; see the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[doc = $doc])+ $step,)+
        }

        impl Step {
            /// All of them, in the order in which they happen.
            pub const ALL: &'static [Self] = &[$(Self::$step),+];

            /// A name for people and environment variables.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)+
                }
            }
        }
    };
}

steps! {
    /// ADD: the attachment has a record, which says nothing yet.
    RecordMade = "record-made",
    /// ADD: the store has given addresses that the record does not name.
    Allocated = "allocated",
    /// ADD: the record names the addresses and the interface to come.
    Planned = "planned",
    /// ADD: the interface is in the pod.
    LinkMade = "link-made",
    /// ADD: it has its addresses and is up.
    LinkUp = "link-up",
    /// ADD: the pod has its routes and neighbours.
    PodRouted = "pod-routed",
    /// ADD: the shim is recorded, but not there yet.
    ShimPlanned = "shim-planned",
    /// ADD: the shim is there, but down.
    ShimMade = "shim-made",
    /// ADD: the host has its neighbour entry for the pod.
    HostNeighbour = "host-neighbour",
    /// ADD: the host has its route to the pod.
    HostRouted = "host-routed",
    /// ADD: all is done and recorded; only the answer is missing.
    Done = "done",
    /// DEL: the interface has gone.
    LinkGone = "link-gone",
    /// DEL: the host's route and neighbour entry have gone.
    HostUnrouted = "host-unrouted",
    /// DEL: the addresses are released; the record is still there.
    Released = "released",
}
