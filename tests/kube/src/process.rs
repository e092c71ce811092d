//! Programs that end with us, however we end.
//!
//! `PR_SET_PDEATHSIG` (prctl(2)) fires when the *thread* that started the child
//! ends, and a test's thread ends with its test, which may have started a
//! program for others too. So one thread of the process starts them all, and
//! lives as long as the process.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a program is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

static STARTER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, taken) = mpsc::channel::<Order>();
    thread::spawn(move || {
        for (mut command, reply) in taken {
            // Nobody waits any more only if the caller panicked.
            let _ = reply.send(command.spawn());
        }
    });
    Mutex::new(orders)
});

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it says goes to the end of the file `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let copy = file.try_clone().context("duplicate the log's descriptor")?;
        command
            // Ctrl-C in a terminal is for us, and we end it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(copy));
        let (reply, answer) = mpsc::channel();
        STARTER
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .send((command, reply))
            .context("the thread that starts programs has gone")?;
        let child = answer
            .recv()
            .context("the thread that starts programs has gone")?
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Asks `ready` until it says `Ok`.
    ///
    /// # Errors
    /// If the program ends, or `within` has passed; with the last answer and
    /// the end of the log.
    pub(crate) fn wait_ready(
        &mut self,
        within: Duration,
        mut ready: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let Err(answer) = ready() else {
                return Ok(());
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("{} has ended ({status}):\n{}", self.name, self.tail());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {} s ({answer:#}):\n{}",
                    self.name,
                    within.as_secs(),
                    self.tail()
                );
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds what it said.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Stops it (SIGSTOP) until [`Self::resume`].
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`Self::pause`].
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.id()).context("a process number is an i32")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Ends it at once (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .with_context(|| format!("kill {}", self.name))
    }

    /// The last lines of its log, under the log's name.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(20)..];
        format!(
            "--- {} (the last lines)\n{}",
            self.log.display(),
            last.join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    fn sleeper(folder: &Path) -> Process {
        let mut command = Place::loopback().bound_command("sleep");
        command.arg("1000");
        Process::start("sleep", command, &folder.join("log")).unwrap()
    }

    fn is_there(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn it_outlives_the_thread_that_asked_for_it_and_ends_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let process = thread::spawn(move || sleeper(&path)).join().unwrap();
        let pid = process.id();
        assert!(is_there(pid));
        drop(process);
        assert!(!is_there(pid));
    }

    #[test]
    fn a_program_that_ends_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such flag >&2; exit 3"]);
        let mut process = Process::start("sh", command, &folder.path().join("log")).unwrap();
        let error = process
            .wait_ready(Duration::from_secs(60), || bail!("not yet"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("sh has ended (exit status: 3)"),
            "{error}"
        );
        assert!(error.ends_with("no such flag"), "{error}");
    }
}
