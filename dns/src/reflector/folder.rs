//! The folder of YAML as a source of changes.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use berth_api::Rejected;
use berth_api::folder::Folder;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::decode::{Decoded, decode, removed};
use crate::model::{Dirty, Model, Source};

/// Many files are often written together; what comes within this time of the
/// first is read in one go.
const BATCH: Duration = Duration::from_millis(10);
/// A lost wake-up costs at most this.
const BACKSTOP: Duration = Duration::from_secs(10);

/// One reading of the folder.
#[derive(Debug, Default)]
pub struct Round {
    /// What changed in the model.
    pub dirty: Dirty,
    /// What was refused, each to be told once.
    pub rejected: Vec<Rejected>,
}

/// Reads a folder, and again whenever something in it changes.
#[derive(Debug)]
pub struct FolderReflector {
    folder: Folder,
    /// Watching goes on as long as this lives.
    _watcher: Option<RecommendedWatcher>,
    wakeups: Receiver<()>,
    last_look: Instant,
}

impl FolderReflector {
    /// Watches `root`. If the kernel refuses a watch (too few inotify
    /// watches, a file system without them), the second value says so, and
    /// the folder is read every ten seconds instead.
    pub fn new(root: impl Into<PathBuf>) -> (Self, Option<notify::Error>) {
        let root = root.into();
        // One wake-up waiting is as good as many.
        let (wake, wakeups) = sync_channel(1);
        let watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
                Ok(event) if !is_change(&event.kind) => {}
                // An error may mean lost events: look again.
                _ => drop(wake.try_send(())),
            })
            .and_then(|mut watcher| {
                watcher.watch(&root, RecursiveMode::Recursive)?;
                Ok(watcher)
            });
        let (watcher, error) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error)),
        };
        let reflector = Self {
            folder: Folder::new(root),
            _watcher: watcher,
            wakeups,
            last_look: Instant::now(),
        };
        (reflector, error)
    }

    /// Reads what changed into `model`. The first call reads everything.
    ///
    /// # Errors
    /// If the folder cannot be listed; the model is then as it was.
    pub fn refresh(&mut self, model: &mut Model) -> io::Result<Round> {
        self.last_look = Instant::now();
        let delta = self.folder.refresh()?;
        let mut round = Round {
            rejected: delta.rejected,
            ..Round::default()
        };
        for key in &delta.removed {
            if let Decoded::Change(change) = removed(key) {
                model.apply(change, &mut round.dirty);
            }
        }
        for object in &delta.applied {
            match decode(object) {
                Ok(Decoded::Change(change)) => model.apply(change, &mut round.dirty),
                Ok(Decoded::Nothing) => {}
                Err(rejected) => round.rejected.push(rejected),
            }
        }
        for source in Source::ALL {
            model.finish_first_list(source);
        }
        Ok(round)
    }

    /// Waits at most `limit`; tells whether it is time to look again: because
    /// something changed, or because the last look was ten seconds ago.
    pub fn wait(&self, limit: Duration) -> bool {
        match self.wakeups.recv_timeout(limit) {
            Ok(()) => {
                std::thread::sleep(BATCH);
                // The wake-ups of the batch; what comes later wakes us again.
                while self.wakeups.try_recv().is_ok() {}
                return true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            // No watcher: the backstop is all there is.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(limit),
        }
        self.last_look.elapsed() >= BACKSTOP
    }
}

/// Our own reading shows as events too, and must not wake us.
fn is_change(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}
