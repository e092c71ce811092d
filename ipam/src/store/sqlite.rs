//! Records in one SQLite file that any number of processes use at once.
//!
//! Each attempt is one `BEGIN IMMEDIATE` transaction, so writers queue and
//! never see half of each other's work. A row is the record as JSON beside the
//! columns that are looked up; `sqlite3 ipam.db 'select name, record from
//! allocation'` shows it all.

mod open;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{Census, Records, Revision, Store, StoreError, Stored};
use crate::address::AddressSet;
use crate::allocation::{Allocation, Owner, Timestamp};
use crate::pool::Pool;

/// Allocations in a file.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens the database at `path`, and makes it first if `create` says so:
    /// folder mode 0700, file mode 0600.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if it does not exist and is not to be made;
    /// [`StoreError::Unusable`] if it is not Berth's or of another version.
    pub fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        Ok(Self {
            connection: open::open(path, create)?,
            path: path.to_owned(),
        })
    }
}

impl SqliteStore {
    /// Every record, by address.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn all(mut self) -> Result<Vec<Stored>, StoreError> {
        let path = self.path.clone();
        let failed = |source| StoreError::Sqlite {
            path,
            doing: "begin a transaction",
            source,
        };
        // A reader: it does not stand in the writers' queue.
        let transaction = self.connection.transaction().map_err(failed)?;
        let session = Session {
            transaction: &transaction,
            path: &self.path,
        };
        session.select("1 ORDER BY key", [])
    }
}

impl Store for SqliteStore {
    fn attempt<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut dyn Records) -> Result<T, E>,
    ) -> Result<T, E> {
        let told = |doing| {
            let path = self.path.clone();
            move |source| StoreError::Sqlite {
                path,
                doing,
                source,
            }
        };
        let (begin, commit) = (told("begin a transaction"), told("commit"));
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(begin)?;
        let result = work(&mut Session {
            transaction: &transaction,
            path: &self.path,
        })?;
        transaction.commit().map_err(commit)?;
        Ok(result)
    }
}

struct Session<'a> {
    transaction: &'a Transaction<'a>,
    path: &'a Path,
}

/// Sorts as addresses do, IPv4 before IPv6.
fn key(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => [&[4], v4.octets().as_slice()].concat(),
        IpAddr::V6(v6) => [&[6], v6.octets().as_slice()].concat(),
    }
}

fn from_key(key: &[u8]) -> Option<IpAddr> {
    match key.split_first()? {
        (4, octets) => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        (6, octets) => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

fn sql_time(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

fn owner_key(owner: &Owner) -> String {
    serde_json::to_string(owner).expect("strings and numbers can be written")
}

type RawRow = (String, String, i64);

fn raw(row: &Row<'_>) -> rusqlite::Result<RawRow> {
    Ok((row.get("name")?, row.get("record")?, row.get("revision")?))
}

fn stored((name, record, revision): RawRow) -> Result<Stored, StoreError> {
    let allocation =
        serde_json::from_str(&record).map_err(|source| StoreError::Record { name, source })?;
    Ok(Stored {
        allocation,
        revision: Revision(revision.to_string()),
    })
}

impl Session<'_> {
    fn failed(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
        let path = self.path.to_owned();
        move |source| StoreError::Sqlite {
            path,
            doing,
            source,
        }
    }

    fn select(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Stored>, StoreError> {
        let rows = || {
            self.transaction
                .prepare_cached(&format!(
                    "SELECT name, record, revision FROM allocation WHERE {condition}"
                ))?
                .query_map(parameters, raw)?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        rows()
            .map_err(self.failed("read records"))?
            .into_iter()
            .map(stored)
            .collect()
    }

    /// Where the search for a never used address of `pool` starts; `None` when
    /// none is left. A pool whose addresses changed starts anew, and takes over
    /// the records that lie in it now.
    fn cursor(&self, pool: &Pool) -> Result<Option<IpAddr>, StoreError> {
        let addresses = pool.addresses.to_string();
        let known = self
            .transaction
            .prepare_cached("SELECT addresses, next FROM pool WHERE name = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([&pool.name], |row| {
                        Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
                    })
                    .optional()
            })
            .map_err(self.failed("read a pool"))?;
        match known {
            Some((same, next)) if same == addresses => Ok(next.as_deref().and_then(from_key)),
            _ => {
                let settle = || -> rusqlite::Result<()> {
                    for range in pool.addresses.ranges() {
                        self.transaction.execute(
                            "UPDATE allocation SET pool = ?1, revision = revision + 1,
                                    record = json_set(record, '$.pool', ?1)
                             WHERE key BETWEEN ?2 AND ?3 AND pool <> ?1",
                            params![pool.name, key(range.first()), key(range.last())],
                        )?;
                    }
                    self.transaction.execute(
                        "INSERT OR REPLACE INTO pool (name, addresses, next) VALUES (?1, ?2, ?3)",
                        params![pool.name, addresses, pool.addresses.first().map(key)],
                    )?;
                    Ok(())
                };
                settle().map_err(self.failed("take over a pool's records"))?;
                Ok(pool.addresses.first())
            }
        }
    }

    /// The lowest address of `set`, not below `from`, without a row. Reads rows
    /// in the order of their addresses, so it stops at the first gap.
    fn first_gap(&self, set: &AddressSet, from: IpAddr) -> rusqlite::Result<Option<IpAddr>> {
        let mut wanted = set.at_or_after(from);
        let mut statement = self
            .transaction
            .prepare_cached("SELECT key FROM allocation WHERE key >= ?1 ORDER BY key")?;
        let mut rows = statement.query([key(from)])?;
        while let Some(address) = wanted {
            // Rows outside the set lie below `wanted`: pass over them.
            let row = loop {
                match rows.next()? {
                    Some(row) => match from_key(&row.get::<_, Vec<u8>>(0)?) {
                        Some(taken) if taken < address => {}
                        taken => break taken,
                    },
                    None => break None,
                }
            };
            if row != Some(address) {
                return Ok(wanted);
            }
            wanted = set.after(address);
        }
        Ok(None)
    }
}

impl Records for Session<'_> {
    fn get(&mut self, address: IpAddr) -> Result<Option<Stored>, StoreError> {
        Ok(self.select("name = ?1", [address.to_string()])?.pop())
    }

    fn create(&mut self, allocation: &Allocation) -> Result<bool, StoreError> {
        let insert = || {
            self.transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO allocation
                        (name, key, pool, owner, pod, container, free_at, revision, record)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8)",
                )?
                .execute(params![
                    allocation.address.to_string(),
                    key(allocation.address),
                    allocation.pool,
                    owner_key(&allocation.claim.owner),
                    allocation.claim.pod.uid,
                    allocation.holder.as_ref().map(|h| &h.container_id),
                    allocation.free_at().map(sql_time),
                    record(allocation),
                ])
        };
        Ok(insert().map_err(self.failed("create a record"))? == 1)
    }

    fn replace(
        &mut self,
        allocation: &Allocation,
        revision: &Revision,
    ) -> Result<bool, StoreError> {
        let update = || {
            self.transaction
                .prepare_cached(
                    "UPDATE allocation SET pool = ?2, owner = ?3, pod = ?4, container = ?5,
                            free_at = ?6, record = ?7, revision = revision + 1
                     WHERE name = ?1 AND CAST(revision AS TEXT) = ?8",
                )?
                .execute(params![
                    allocation.address.to_string(),
                    allocation.pool,
                    owner_key(&allocation.claim.owner),
                    allocation.claim.pod.uid,
                    allocation.holder.as_ref().map(|h| &h.container_id),
                    allocation.free_at().map(sql_time),
                    record(allocation),
                    revision.0,
                ])
        };
        Ok(update().map_err(self.failed("replace a record"))? == 1)
    }

    fn of_pod(&mut self, uid: &str) -> Result<Vec<Stored>, StoreError> {
        self.select("pod = ?1", [uid])
    }

    fn of_owner(&mut self, owner: &Owner) -> Result<Vec<Stored>, StoreError> {
        self.select("owner = ?1", [owner_key(owner)])
    }

    fn of_container(&mut self, container_id: &str) -> Result<Vec<Stored>, StoreError> {
        self.select("container = ?1", [container_id])
    }

    fn held(&mut self) -> Result<Vec<Stored>, StoreError> {
        self.select("container IS NOT NULL", [])
    }

    fn unused(&mut self, pool: &Pool, after: Option<IpAddr>) -> Result<Option<IpAddr>, StoreError> {
        let Some(cursor) = self.cursor(pool)? else {
            return Ok(None);
        };
        let from = match after.filter(|after| *after >= cursor) {
            None => Some(cursor),
            Some(after) => pool.addresses.after(after),
        };
        let Some(from) = from else { return Ok(None) };
        let found = self
            .first_gap(&pool.addresses, from)
            .map_err(self.failed("look for an unused address"))?;
        // Rows are never deleted, so nothing below a gap becomes unused again.
        if from == cursor && found != Some(cursor) {
            self.transaction
                .execute(
                    "UPDATE pool SET next = ?2 WHERE name = ?1",
                    params![pool.name, found.map(key)],
                )
                .map_err(self.failed("move a pool's cursor"))?;
        }
        Ok(found)
    }

    fn lapsed(
        &mut self,
        pool: &Pool,
        by: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        self.cursor(pool)?;
        self.select(
            "pool = ?1 AND free_at <= ?2 ORDER BY free_at LIMIT ?3 OFFSET ?4",
            params![
                pool.name,
                sql_time(by),
                i64::try_from(limit).unwrap_or(i64::MAX),
                i64::try_from(skip).unwrap_or(i64::MAX),
            ],
        )
    }

    fn census(&mut self, pool: &Pool, now: Timestamp) -> Result<Census, StoreError> {
        let count = || {
            self.transaction.query_row(
                "SELECT count(*) FILTER (WHERE container IS NOT NULL),
                        count(*) FILTER (WHERE container IS NULL AND free_at IS NULL),
                        count(*) FILTER (WHERE free_at > ?2),
                        min(free_at) FILTER (WHERE free_at > ?2)
                 FROM allocation WHERE pool = ?1",
                params![pool.name, sql_time(now)],
                |row| {
                    let number =
                        |index| Ok::<_, rusqlite::Error>(row.get::<_, i64>(index)?.unsigned_abs());
                    Ok(Census {
                        held: number(0)?,
                        kept: number(1)?,
                        resting: number(2)?,
                        next: row
                            .get::<_, Option<i64>>(3)?
                            .map(|at| Timestamp(at.unsigned_abs())),
                    })
                },
            )
        };
        count().map_err(self.failed("count a pool's records"))
    }
}

fn record(allocation: &Allocation) -> String {
    serde_json::to_string(allocation).expect("strings and numbers can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_addresses_do() {
        let mut addresses: Vec<IpAddr> = ["10.0.0.2", "10.0.0.10", "9.255.0.1", "fd00::1", "::1"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        addresses.sort();
        let mut keys: Vec<_> = addresses.iter().map(|a| key(*a)).collect();
        keys.sort();
        let back: Vec<_> = keys.iter().map(|k| from_key(k).unwrap()).collect();
        assert_eq!(back, addresses);
    }
}
