//! Which records follow from the model, as finished bytes.
//!
//! ```text
//! Service, its slices --cluster, company--> Unit (entries) --merge--> Node (bytes) -> Table
//! ```
//!
//! Each Service, Namespace and Pod makes one [`Unit`](unit::Unit): what it has
//! to say, apart from all others. A change recomputes the units that it
//! touches and then the names that those speak of; all else in the next
//! [`Table`] is shared with the one before. A full build is the same code with
//! everything touched, and tests compare the two.
//!
//! Pure: no sockets, no files, no clock.

mod builder;
mod cluster;
mod company;
mod config;
mod merge;
mod record;
mod shards;
mod table;
mod unit;

pub use builder::Zones;
pub use config::{CompanyZone, Config, ConfigError};
pub use record::{Answer, Records, Set, rtype};
pub use table::{Found, Node, Table, View, ZoneSerial};
