//! Opening the file, and making it: the whole database appears at once, so
//! that no process ever sees half of one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// Written to the file as `user_version`. A change that an older program
/// cannot live with takes the next number.
const SCHEMA_VERSION: i64 = 1;

/// `application_id`: "Brth".
const APPLICATION_ID: i64 = 0x4272_7468;

const SCHEMA: &str = "
CREATE TABLE allocation (
    name      TEXT PRIMARY KEY,     -- the address; creating it is the lock
    key       BLOB NOT NULL UNIQUE, -- family and octets: sorts as addresses do
    pool      TEXT NOT NULL,
    owner     TEXT NOT NULL,        -- the claim's owner, as JSON
    pod       TEXT NOT NULL,        -- UID of the pod that used it last
    container TEXT,                 -- the holder's container ID
    free_at   INTEGER,              -- when others may have it, ms since 1970
    revision  INTEGER NOT NULL,
    record    TEXT NOT NULL         -- the whole record, as JSON
) STRICT;
CREATE INDEX allocation_pool ON allocation (pool, free_at);
CREATE INDEX allocation_owner ON allocation (owner);
CREATE INDEX allocation_pod ON allocation (pod);
CREATE INDEX allocation_container ON allocation (container) WHERE container IS NOT NULL;
CREATE TABLE pool (
    name      TEXT PRIMARY KEY,
    addresses TEXT NOT NULL,        -- the ranges that `next` was found in
    next      BLOB                  -- no address below it is unused; NULL: none is
) STRICT;
";

/// Waits of a writer for the others: 1 to 4 ms each, spread by the process ID,
/// for about 30 s in all. SQLite's own handler waits up to 100 ms at a time,
/// which is longer than a hundred ADDs hold the lock together.
fn wait_for_others(tries: i32) -> bool {
    let millis = 1 + (u64::from(std::process::id()) + u64::from(tries.unsigned_abs())) % 4;
    thread::sleep(Duration::from_millis(millis));
    tries < 12_000
}

fn told(path: &Path, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Sqlite {
        path,
        doing,
        source,
    }
}

fn unusable(path: &Path, problem: impl ToString, mend: &str) -> StoreError {
    StoreError::Unusable {
        path: path.to_owned(),
        problem: problem.to_string(),
        mend: mend.to_owned(),
    }
}

pub(super) fn open(path: &Path, create: bool) -> Result<Connection, StoreError> {
    if !path.exists() {
        if !create {
            return Err(StoreError::Missing {
                path: path.to_owned(),
            });
        }
        make(path)?;
    }
    let connection = connect(path).map_err(told(path, "open the database"))?;
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(told(path, "read the database's version"))
    };
    if pragma("application_id")? != APPLICATION_ID {
        return Err(unusable(
            path,
            "is not a database of Berth's",
            "name another file as `database`, or move this one away",
        ));
    }
    let version = pragma("user_version")?;
    if version != SCHEMA_VERSION {
        return Err(unusable(
            path,
            format!("has schema version {version}, and this program knows {SCHEMA_VERSION}"),
            "run the version of Berth that wrote it, or the migration that its release notes name",
        ));
    }
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_for_others))?;
    // Each CNI call opens and closes the file. Without this the last one out
    // would write the log back and delete it, every time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // The first to open the file reads the log through, page by page, and on a
    // quiet node that is every call: keep it short. A commit writes about six
    // pages.
    connection.pragma_update(None, "wal_autocheckpoint", 32)?;
    // An allocation that was told to a runtime must survive a power cut: a
    // StatefulSet would come back with another address.
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Makes the database under another name and links it into place. If another
/// process was faster, its file stays.
fn make(path: &Path) -> Result<(), StoreError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mend = "make its folder writable, or name another one as `database`";
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|e| unusable(path, format!("cannot make its folder: {e}"), mend))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = folder.join(format!(
        ".{name}.{}.{}.new",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ));
    // What a killed process of the same number left.
    let _ = fs::remove_file(&fresh);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(|e| unusable(path, format!("cannot be made: {e}"), mend))?;
    let result = fill(&fresh)
        .map_err(told(path, "make the database"))
        .and_then(|()| match fs::hard_link(&fresh, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(unusable(path, format!("cannot be made: {error}"), mend))
            }
            _ => Ok(()),
        });
    let _ = fs::remove_file(&fresh);
    result
}

fn fill(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Closing writes everything into the one file that is linked.
    connection.close().map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_a_private_file_in_a_private_folder_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("berth/ipam.db");
        assert!(matches!(
            open(&path, false),
            Err(StoreError::Missing { .. })
        ));
        drop(open(&path, true).unwrap());
        drop(open(&path, false).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name.starts_with("ipam.db"), "{name}");
        }
    }

    #[test]
    fn refuses_what_is_not_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipam.db");
        fs::write(&path, b"").unwrap();
        let told = open(&path, true).unwrap_err().to_string();
        assert!(
            told.contains("is not a database of Berth's; name another"),
            "{told}"
        );
        fs::write(
            &path,
            b"something else entirely, and long enough to be looked at",
        )
        .unwrap();
        assert!(open(&path, true).is_err());
        fs::remove_file(&path).unwrap();
        let newer = open(&path, true).unwrap();
        newer.pragma_update(None, "user_version", 2).unwrap();
        drop(newer);
        let told = open(&path, true).unwrap_err().to_string();
        assert!(
            told.contains("schema version 2, and this program knows 1"),
            "{told}"
        );
    }
}
