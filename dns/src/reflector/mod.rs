//! Objects in, [`Change`](crate::model::Change)s out: the only room that reads Kubernetes objects.
//!
//! A bad object rejects only itself; what was known of it before stays. Knows
//! nothing of names, records or messages.

mod decode;
mod folder;
mod kinds;

pub use decode::{Decoded, decode, removed};
pub use folder::{FolderReflector, Round};
