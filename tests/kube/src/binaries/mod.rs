//! The programs of Kubernetes: which there are, where they are kept, and
//! building those that are not there yet.
//!
//! They are kept outside of `target/`, in a folder named by everything that
//! decides what they are, so that another version is another folder and none
//! is built twice.

mod go;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

/// A program that can be built from the Go modules in `tests/kube/go`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The API server.
    KubeApiserver,
    /// The controllers of Deployments, EndpointSlices and so on.
    KubeControllerManager,
    /// What gives pods to nodes.
    KubeScheduler,
    /// What runs pods on a node.
    Kubelet,
    /// Kubernetes' own service proxy.
    KubeProxy,
    /// The command line.
    Kubectl,
    /// Calls CNI plugins as a runtime would.
    Cnitool,
    /// What the end-to-end tests run in their pods.
    Agnhost,
    /// The end-to-end tests.
    E2eTest,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::KubeApiserver,
        Self::Kubectl,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::KubeProxy,
        Self::Kubelet,
        Self::Cnitool,
        Self::Agnhost,
        Self::E2eTest,
    ];

    /// Its file's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Kubectl => "kubectl",
            Self::Cnitool => "cnitool",
            Self::Agnhost => "agnhost",
            Self::E2eTest => "e2e.test",
        }
    }

    /// Its Go package.
    fn package(self) -> &'static str {
        match self {
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::KubeScheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Self::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Self::KubeProxy => "k8s.io/kubernetes/cmd/kube-proxy",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Cnitool => "github.com/containernetworking/cni/cnitool",
            Self::Agnhost => "k8s.io/kubernetes/test/images/agnhost",
            Self::E2eTest => "k8s.io/kubernetes/test/e2e",
        }
    }

    /// The program of that file name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }
}

/// One program that was built just now.
#[derive(Clone, Debug)]
pub struct Built {
    /// Which.
    pub program: Program,
    /// How long it took.
    pub took: Duration,
    /// The file's size in bytes.
    pub size: u64,
}

/// The version of Kubernetes, such as `v1.34.4`.
#[must_use]
pub fn kubernetes_version() -> &'static str {
    go::kubernetes_version()
}

/// The file of a program that has been built.
///
/// # Errors
/// If it has not: says how to build it.
pub fn find(program: Program) -> Result<PathBuf> {
    let path = folder()?.join(program.name());
    anyhow::ensure!(
        path.is_file(),
        "{} is not there: build it with `cargo run -p berth-kube -- build {}`",
        path.display(),
        program.name()
    );
    Ok(path)
}

/// Builds those of `programs` that have not been built yet; says what it
/// builds on stderr, because each takes minutes the first time.
///
/// # Errors
/// If there is no Go, or its modules cannot be had.
pub fn ensure(programs: &[Program]) -> Result<Vec<Built>> {
    let folder = folder()?;
    let missing = |folder: &Path| -> Vec<Program> {
        let all = programs.iter().copied();
        all.filter(|program| !folder.join(program.name()).is_file())
            .collect()
    };
    if missing(&folder).is_empty() {
        return Ok(Vec::new());
    }
    go::check()?;
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    // One builder at a time; the others find it done.
    let lock = folder.join("lock");
    let file = File::create(&lock).with_context(|| format!("open {}", lock.display()))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {}", lock.display()))?;
    missing(&folder)
        .into_iter()
        .map(|program| build(program, &folder))
        .collect()
}

fn build(program: Program, folder: &Path) -> Result<Built> {
    let name = program.name();
    eprintln!("building {name} {} ...", kubernetes_version());
    let begin = Instant::now();
    // On the same file system, so that it appears whole or not at all.
    let unfinished = folder.join(format!("{name}.unfinished"));
    go::build(program, &unfinished)?;
    let size = fs::metadata(&unfinished)
        .with_context(|| format!("look at {}", unfinished.display()))?
        .len();
    fs::rename(&unfinished, folder.join(name))
        .with_context(|| format!("put {name} into {}", folder.display()))?;
    let built = Built {
        program,
        took: begin.elapsed(),
        size,
    };
    eprintln!(
        "built {name}: {} s, {} MB",
        built.took.as_secs(),
        size / 1_000_000
    );
    Ok(built)
}

/// Where the programs of this version are kept.
///
/// # Errors
/// If there is no home folder and `BERTH_CACHE_DIR` does not name one.
pub fn folder() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("BERTH_CACHE_DIR")
        .map(PathBuf::from)
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| Path::new(&folder).join("berth")))
        .or_else(|| set("HOME").map(|folder| Path::new(&folder).join(".cache/berth")))
        .context("no place to keep Kubernetes' programs: set HOME or BERTH_CACHE_DIR")?;
    Ok(cache.join("kube").join(go::fingerprint()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for program in Program::ALL {
            assert_eq!(Program::from_name(program.name()), Some(program));
        }
        assert_eq!(Program::from_name("kubeadm"), None);
    }

    #[test]
    fn every_program_is_kept_in_go_mod() {
        for program in Program::ALL {
            let kept = go::MOD.contains(&format!("\t{}\n", program.package()))
                || go::TOOLS.contains(&format!("\"{}\"", program.package()));
            assert!(kept, "{}", program.name());
        }
    }
}
