//! The names of the annotations and labels that Berth reads or writes.

/// The addresses a pod asks for: `10.20.0.57`, a range
/// `10.20.0.57-10.20.0.61`, or a comma-separated list of either. A
/// StatefulSet's pods take them by ordinal.
pub const IP: &str = "berth.dev/ip";

/// The pool, or a comma-separated list of pools in order of preference, that
/// a pod's address comes from. Read from the pod, then from its namespace.
pub const POOL: &str = "berth.dev/pool";

/// How long a pod's address stays claimed after the pod has gone: `pod`,
/// `app`, a duration such as `24h`, or `forever`.
pub const KEEP: &str = "berth.dev/keep";

/// A company DNS name for a Service or pod, instead of the zone's template.
pub const HOSTNAME: &str = "berth.dev/hostname";

/// `disabled` on a Namespace or a Pod: connections of its pods are not
/// translated, since something of their own (a mesh's sidecar, a sandbox with
/// its own kernel) deals with Services.
pub const SERVICE_PROXY: &str = "berth.dev/service-proxy";
