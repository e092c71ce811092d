//! The node's DNS server: the cluster's names, the company's names for the
//! same Services and pods, and forwarding of everything else.
//!
//! ```text
//! folder -> reflector -> model -> zone -> Table -(ArcSwap)-> wire <- server <- clients
//!                                                             |
//!                                                          forward -> upstreams
//! ```
//!
//! | room | owns | must not know |
//! | --- | --- | --- |
//! | [`name`] | domain names in wire form | Kubernetes |
//! | [`reflector`] | reads objects, refuses bad ones by name | DNS messages |
//! | [`model`] | what the objects say, and which of it changed | files, messages |
//! | [`zone`] | which records follow; finished answers as bytes | sockets, files |
//! | [`feed`] | the thread that runs these four and publishes the table | messages |
//! | [`wire`] | one packet in, one packet out, without allocation | Kubernetes |
//! | [`forward`] | upstreams: choice, time-outs, validation | zones |
//! | [`resolve`] | the slow path: forwarding, and CNAMEs that lead elsewhere | sockets of clients |
//! | [`server`] | sockets and threads | what a name means |
#![forbid(unsafe_code)]

pub mod dump;
pub mod feed;
pub mod forward;
pub mod model;
pub mod name;
pub mod reflector;
pub mod resolve;
pub mod server;
pub mod wire;
pub mod zone;
