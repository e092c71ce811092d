//! `berth-cni`: wires one pod to the company's network, and unwires it.
//!
//! A runtime starts this program for every sandbox, says what it wants in the
//! environment and on stdin, and reads one JSON document from stdout. It owns
//! the pod's macvlan, the node's shim, their routes and neighbour entries, and
//! the on-disk record of each attachment. Which address a pod gets is decided
//! in `berth_ipam`; what the kernel is told goes through `berth_netlink`.
#![forbid(unsafe_code)]

mod config;
mod delegate;
mod env;
mod error;
mod network;
mod objects;
mod plan;
mod result;
mod state;
mod step;
mod verbs;

use std::io::{self, Read, Write};
use std::process::ExitCode;

pub use error::{CniError, Code};
pub use step::{Observer, Step};

/// The most that is read from stdin. A network configuration with every
/// annotation of a pod (at most 256 KiB in Kubernetes) stays far below.
const MAX_STDIN: u64 = 1 << 20;

/// Serves one call of a runtime: environment and stdin in, JSON on stdout out.
/// `observer` hears of every step that leaves something behind.
pub fn run(observer: Observer<'_>) -> ExitCode {
    let mut asked = config::SPOKEN_FIRST.to_owned();
    let outcome = serve(observer, &mut asked);
    let (text, code) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (error.to_json(&asked), ExitCode::FAILURE),
    };
    let mut stdout = io::stdout().lock();
    // Nobody is left to tell if stdout is closed; the exit code still speaks.
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(observer: Observer<'_>, asked: &mut String) -> Result<String, CniError> {
    let mut stdin = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_STDIN + 1)
        .read_to_end(&mut stdin)
        .map_err(|e| CniError::new(Code::Io, format!("cannot read stdin: {e}")))?;
    if stdin.len() as u64 > MAX_STDIN {
        return Err(CniError::new(
            Code::Decode,
            format!("the network configuration is longer than {MAX_STDIN} bytes"),
        ));
    }
    verbs::serve(&env::Environment::from_process(), &stdin, observer, asked)
}
