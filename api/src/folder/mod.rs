//! A folder of ordinary Kubernetes YAML in the place of an API server.
//!
//! [`parse`] turns one file's text into objects; [`Folder`] keeps up with a
//! folder and says what changed since it last looked. Every `.yaml`, `.yml`
//! and `.json` file below the folder counts, hidden ones excepted. A writer
//! replaces a file by renaming a complete one over it.
//!
//! A bad document refuses only itself. While a file holds a document that
//! cannot be read, the objects that the file held before stay: an API server
//! would have refused the edit too.

mod parse;
mod tracker;

pub use parse::{Parsed, parse};
pub use tracker::{Delta, Folder};
