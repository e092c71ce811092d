//! The thread that keeps the table true: folder, model, zones, publish.
//!
//! Knows nothing of messages and sockets.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tracing::{debug, info, warn};

use crate::model::Model;
use crate::reflector::FolderReflector;
use crate::zone::{Table, Zones};

/// How often the thread looks whether it shall stop.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

/// Keeps a table in step with a folder. Dropping it ends that.
#[derive(Debug)]
pub struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Reads the whole folder, publishes the first table, and goes on in a
    /// thread.
    ///
    /// # Errors
    /// If the folder cannot be read, or no thread can be made.
    pub fn start(folder: PathBuf, zones: Zones, tables: Arc<ArcSwap<Table>>) -> io::Result<Self> {
        let (reflector, unwatched) = FolderReflector::new(&folder);
        let mut state = State {
            reflector,
            model: Model::default(),
            zones,
            tables,
            unreadable: false,
        };
        state.round()?;
        if let Some(error) = unwatched {
            warn!(
                folder = %folder.display(), %error,
                "cannot watch the folder, so it is read every ten seconds; \
                 raise fs.inotify.max_user_watches or max_user_instances"
            );
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || state.run(&stopped))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

struct State {
    reflector: FolderReflector,
    model: Model,
    zones: Zones,
    tables: Arc<ArcSwap<Table>>,
    /// The last look failed, and that has been told.
    unreadable: bool,
}

impl State {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if !self.reflector.wait(STOP_INTERVAL) {
                continue;
            }
            match self.round() {
                Ok(()) => self.unreadable = false,
                Err(error) if !self.unreadable => {
                    self.unreadable = true;
                    warn!(%error, "cannot read the folder; the last state is served on");
                }
                Err(_) => {}
            }
        }
    }

    fn round(&mut self) -> io::Result<()> {
        let start = Instant::now();
        let round = self.reflector.refresh(&mut self.model)?;
        let read = start.elapsed();
        for rejected in &round.rejected {
            warn!("{rejected}");
        }
        let first = !self.tables.load().ready;
        let dirty = &round.dirty;
        let touched = dirty.services.len() + dirty.namespaces.len() + dirty.pods.len();
        if touched == 0 && dirty.addresses.is_empty() && !first {
            return Ok(());
        }
        let (table, warnings) = self.zones.update(&self.model, dirty, unix_seconds());
        for warning in warnings {
            warn!("{warning}");
        }
        self.tables.store(table);
        let built = start.elapsed() - read;
        if first {
            info!(
                objects = touched,
                ?read,
                ?built,
                "the first list is complete"
            );
        } else {
            debug!(objects = touched, ?read, ?built, "new table");
        }
        Ok(())
    }
}

/// For serial numbers: they rise across restarts as long as the clock does.
fn unix_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}
