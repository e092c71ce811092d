//! The command line, and the help that teaches it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::vm::Series;

/// Set-up, demo, tests and benchmarks of Berth.
///
/// Every command does its own set-up first: it says what it will install,
/// installs it, and is quick when there is nothing to do.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install what building and testing need, and build the eBPF object
    Setup(SetupArgs),
    /// Set up, then build every binary of the workspace
    Build(BuildArgs),
    /// Run two nodes, real pods and a legacy VM on this machine, and check them
    Demo(DemoArgs),
    /// Run every test, those that need root included, and count them
    Test(TestArgs),
    /// Test on Debian's kernels 6.1 and 6.12, in virtual machines
    Vm(VmArgs),
    /// Compare Berth's speed with its peers', both measured in the same run
    Bench(BenchArgs),
    /// Format the code (`--check` only looks)
    Fmt(FmtArgs),
    /// Run clippy over all that stable Rust can compile, warnings denied
    Lint,
}

/// Install what building and testing need, and build the eBPF object.
///
/// Debian 12's packages with apt-get, bpf-linker with `cargo install` in a
/// cache folder (`~/.cache/berth`, or BERTH_CACHE_DIR), the eBPF object in
/// target/berth-proxy-ebpf.o. No service is started. What is there already is
/// left alone, so a second run takes about a second.
///
/// With BERTH_EBPF_OBJECT=FILE an object built elsewhere is used, and neither
/// Debian's Rust packages nor bpf-linker are needed.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Only say what is missing; exit code 1 if anything is
    #[arg(long)]
    pub(crate) check: bool,
    /// Do not ask before installing (nor is anything asked without a terminal)
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Optimised binaries, in target/release
    #[arg(long, short)]
    pub(crate) release: bool,
}

/// Run two nodes, real pods and a legacy VM on this machine, and check them.
///
/// The nodes, the VM and the pods are network namespaces on one L2 wire. Pods
/// get their addresses from the real berth-cni, Services work through the real
/// berth-agent, names through the real berth-dns. Any ordinary Kubernetes YAML
/// will do; without one, an example of the project's own is used.
///
/// Nothing outside of the namespaces is touched, and all is removed at the end.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Kubernetes manifests: Deployments, StatefulSets, DaemonSets, Pods, Services
    #[arg(value_name = "MANIFEST.yaml")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Leave everything running, and print commands worth trying
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Run every test, those that need root included, and count them.
///
/// The last line is `N passed, N failed, N skipped`. A test that cannot run
/// here prints a line that starts with SKIP and counts as skipped; with
/// BERTH_REQUIRE_ALL=1 a skip is a failure. At the end the tests of
/// `cargo xtask vm` run on every kernel; with a filter only if that is `vm`.
///
/// `cargo test` alone runs what needs neither root nor kernel.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Only tests whose name contains this
    pub(crate) filter: Option<String>,
    /// A line per test, not only per test binary
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Test on Debian's kernels 6.1 and 6.12, in virtual machines.
///
/// Every eBPF program is loaded, attached and used; pods are wired over 802.1Q
/// and ipvlan. The kernels are taken from Debian's packages and installed
/// nowhere: they, virtme-ng and a busybox are unpacked in ~/.cache/berth/vm (or
/// BERTH_CACHE_DIR), about 560 MB. Delete a folder there to get a newer one.
///
/// The machines are emulated: no KVM is needed. They see this machine's file
/// system, and what they write to it is gone when they end. The last line is
/// `N passed, N failed, N skipped`.
#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    /// The kernel to boot
    #[arg(long, value_enum, default_value_t = Kernel::All)]
    pub(crate) kernel: Kernel,
    /// Run this there instead of the tests, as root
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12's own
    #[value(name = "6.1")]
    V6_1,
    /// The one from its security updates
    #[value(name = "6.12")]
    V6_12,
    /// One after the other
    All,
}

impl Kernel {
    pub(crate) fn series(self) -> &'static [Series] {
        match self {
            Self::V6_1 => &Series::ALL[..1],
            Self::V6_12 => &Series::ALL[1..],
            Self::All => &Series::ALL,
        }
    }
}

/// Compare Berth's speed with its peers', both measured in the same run.
///
/// Each side runs several times in turn, the medians are compared. A figure
/// that misses its target is reported and does not change the exit code.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Only this benchmark or group, such as `proxy`; all without it
    pub(crate) name: Option<String>,
    /// Write the rows to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct FmtArgs {
    /// Change nothing; exit code 1 if anything would change
    #[arg(long)]
    pub(crate) check: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_demo_takes_several_manifests_and_keep() {
        let cli = Cli::try_parse_from(["xtask", "demo", "a.yaml", "b.yaml", "--keep"]).unwrap();
        let Command::Demo(args) = cli.command else {
            panic!("not the demo: {:?}", cli.command);
        };
        assert_eq!(args.manifests.len(), 2);
        assert!(args.keep);
    }

    #[test]
    fn a_kernel_is_chosen_by_its_number() {
        let vm = |args: &[&str]| {
            let all = [&["xtask", "vm"], args].concat();
            match Cli::try_parse_from(all).unwrap().command {
                Command::Vm(args) => (args.kernel.series(), args.command),
                other => panic!("not the VM: {other:?}"),
            }
        };
        assert_eq!(vm(&[]).0, [Series::V6_1, Series::V6_12]);
        assert_eq!(vm(&["--kernel", "6.12"]).0, [Series::V6_12]);
        assert_eq!(vm(&["--kernel", "6.1"]).0, [Series::V6_1]);
        assert_eq!(vm(&["--", "uname", "-r"]).1, ["uname", "-r"]);
    }
}
