//! The Go command: asked to build one program, as Kubernetes' own release does.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use super::Program;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go");
pub(super) const MOD: &str = include_str!("../../go/go.mod");
#[cfg(test)]
pub(super) const TOOLS: &str = include_str!("../../go/tools.go");
const SUM: &str = include_str!("../../go/go.sum");

/// Where Kubernetes' programs look up which version they are.
const VERSIONS: [&str; 2] = [
    "k8s.io/component-base/version",
    "k8s.io/client-go/pkg/version",
];

/// The version of `k8s.io/kubernetes` in go.mod.
pub(super) fn kubernetes_version() -> &'static str {
    MOD.lines()
        .find_map(|line| {
            let (_, version) = line.split_once("k8s.io/kubernetes v")?;
            Some(&line[line.len() - version.len() - 1..])
        })
        .expect("go.mod, which is compiled in, requires k8s.io/kubernetes")
}

/// Names everything that decides what is built.
pub(super) fn fingerprint() -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [MOD, SUM, &flags(), std::env::consts::ARCH] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let digest = context.finish();
    let hex = digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"));
    hex.collect()
}

/// The linker's flags: no debug information, and what `--version` says.
fn flags() -> String {
    let version = kubernetes_version();
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next(), numbers.next());
    let mut flags = "-s -w".to_owned();
    for package in VERSIONS {
        for (name, value) in [
            ("gitVersion", version),
            ("gitMajor", major.unwrap_or_default()),
            ("gitMinor", minor.unwrap_or_default()),
            ("gitTreeState", "archive"),
        ] {
            flags += &format!(" -X {package}.{name}={value}");
        }
    }
    flags
}

/// Whether there is a Go that can build our modules.
pub(super) fn check() -> Result<()> {
    let mut command = Command::new("go");
    command.current_dir(FOLDER).args(["env", "GOVERSION"]);
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "go is not in PATH: Kubernetes' programs are built with it, install Go 1.24 or later"
            )
        }
        outcome => succeeded(outcome, "ask Go for its version"),
    }
}

/// Builds `program` into the file `into`.
pub(super) fn build(program: Program, into: &Path) -> Result<()> {
    let mut command = Command::new("go");
    match program {
        Program::E2eTest => command.args(["test", "-c"]),
        _ => command.arg("build"),
    };
    command
        .current_dir(FOLDER)
        .env("CGO_ENABLED", "0")
        .args(["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags"])
        .arg(flags())
        .arg("-o")
        .arg(into)
        .arg(program.package());
    succeeded(command.output(), &format!("build {}", program.name())).context(
        "if a module could not be fetched: Kubernetes' programs need Go's module proxy the first time",
    )
}

fn succeeded(outcome: std::io::Result<Output>, what: &str) -> Result<()> {
    let output = outcome.with_context(|| what.to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    let last = &lines[lines.len().saturating_sub(10)..];
    bail!("{what}: go says:\n{}", last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_in_go_mod() {
        let version = kubernetes_version();
        assert!(version.starts_with("v1.34."), "{version}");
        assert!(flags().contains(&format!("version.gitVersion={version} ")));
        assert!(flags().contains("client-go/pkg/version.gitMinor=34"));
    }

    #[test]
    fn staging_modules_are_of_the_same_version() {
        let version = format!("v0{}", &kubernetes_version()[2..]);
        let replaced: Vec<_> = MOD.lines().filter(|line| line.contains(" => ")).collect();
        assert!(replaced.len() > 20);
        for line in replaced {
            assert!(line.ends_with(&version), "{line}");
        }
    }

    #[test]
    fn a_failure_is_told_by_its_last_lines() {
        let output = Command::new("sh")
            .args(["-c", "seq 30 >&2; echo no module >&2; exit 1"])
            .output();
        let error = succeeded(output, "build x").unwrap_err().to_string();
        assert!(error.starts_with("build x: go says:\n22\n"), "{error}");
        assert!(error.ends_with("\nno module"), "{error}");
    }
}
