//! What is missing, decided from facts alone. Pure: it looks at no file and
//! starts no program.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::packages::{self, Package};
use crate::toolchain::RustVersion;

/// The kernel that the socket path needs: `bpf_set_retval` in every cgroup
/// hook, and the helpers that Debian 12 has.
const KERNEL_NEEDED: (u32, u32) = (6, 1);
/// tcx, the attachment of the packet path, came with 6.6.
const KERNEL_TCX: (u32, u32) = (6, 6);

/// What the machine is prepared for. Each needs all that the ones before need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Build,
    Demo,
    Vm,
    Test,
}

impl Purpose {
    /// Whether Berth's programs run in this machine's own kernel.
    fn uses_this_kernel(self) -> bool {
        match self {
            Self::Build | Self::Vm => false,
            Self::Demo | Self::Test => true,
        }
    }
}

/// What was found on the machine.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) root: bool,
    /// ID and VERSION_ID of /etc/os-release.
    pub(crate) os: (String, String),
    /// Major and minor version of the running kernel.
    pub(crate) kernel: Option<(u32, u32)>,
    /// /sys/kernel/btf/vmlinux is there.
    pub(crate) btf: bool,
    /// Where cgroup2 is mounted.
    pub(crate) cgroup2: Option<PathBuf>,
    /// bpffs is mounted on /sys/fs/bpf.
    pub(crate) bpffs: bool,
    /// The installed ones among the packages that may be needed.
    pub(crate) packages: BTreeSet<String>,
    /// The compiler that builds what runs in user space.
    pub(crate) user_rust: RustVersion,
    /// Debian's compiler, that builds the eBPF object.
    pub(crate) ebpf_rust: Option<RustVersion>,
    /// The LLVM majors for which the cache has a bpf-linker that starts.
    pub(crate) linkers: BTreeSet<u32>,
    /// BERTH_EBPF_OBJECT is set: nothing is built for eBPF.
    pub(crate) object_given: bool,
}

impl Facts {
    /// The LLVM that reads what the eBPF compiler writes. Until that is
    /// installed, the user's compiler is the best guess; it is looked at again
    /// after the installation.
    pub(crate) fn llvm_major(&self) -> u32 {
        self.ebpf_rust.unwrap_or(self.user_rust).llvm_major
    }
}

/// One thing that set-up does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Packages(Vec<Package>),
    Linker { llvm_major: u32 },
    MountBpffs,
}

/// One thing that set-up cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) mend: String,
    /// False: all works but what `what` names.
    pub(crate) fatal: bool,
}

/// What to do, in this order, and what stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) problems: Vec<Problem>,
}

impl Plan {
    pub(crate) fn is_blocked(&self) -> bool {
        self.problems.iter().any(|problem| problem.fatal)
    }
}

/// Decides what is missing for `purpose`; `msrv` is the workspace's minimum
/// Rust version, major and minor.
pub(crate) fn plan(facts: &Facts, purpose: Purpose, msrv: (u32, u32)) -> Plan {
    let steps = steps(facts, purpose, msrv);
    let mut problems = Vec::new();
    system_problems(facts, &steps, &mut problems);
    if purpose.uses_this_kernel() {
        kernel_problems(facts, &mut problems);
    }
    if !facts.root && (purpose >= Purpose::Demo || steps.iter().any(needs_root)) {
        problems.push(Problem {
            what: "not root, and this installs packages or makes network namespaces".to_owned(),
            mend: "run it as root: sudo -E env \"PATH=$PATH\" cargo xtask ...".to_owned(),
            fatal: true,
        });
    }
    Plan { steps, problems }
}

fn needs_root(step: &Step) -> bool {
    match step {
        Step::Packages(_) | Step::MountBpffs => true,
        Step::Linker { .. } => false,
    }
}

fn steps(facts: &Facts, purpose: Purpose, msrv: (u32, u32)) -> Vec<Step> {
    let ebpf = !facts.object_given;
    let llvm_major = facts.llvm_major();
    // Debian's main archive has an older rustc-web than its security updates;
    // asking apt for it again brings the newest.
    let outdated = facts
        .ebpf_rust
        .is_some_and(|rust| (rust.major, rust.minor) < msrv);
    let missing: Vec<_> = packages::needed(purpose, llvm_major, ebpf)
        .into_iter()
        .filter(|package| {
            let again = outdated && ["rustc-web", "cargo-web"].contains(&package.name.as_str());
            again || !facts.packages.contains(&package.name)
        })
        .collect();

    let mut steps = Vec::new();
    if !missing.is_empty() {
        steps.push(Step::Packages(missing));
    }
    if ebpf && !facts.linkers.contains(&llvm_major) {
        steps.push(Step::Linker { llvm_major });
    }
    if purpose.uses_this_kernel() && !facts.bpffs {
        steps.push(Step::MountBpffs);
    }
    steps
}

fn system_problems(facts: &Facts, steps: &[Step], problems: &mut Vec<Problem>) {
    let (id, version) = &facts.os;
    if (id.as_str(), version.as_str()) == ("debian", "12") {
        return;
    }
    let missing = steps.iter().find_map(|step| match step {
        Step::Packages(missing) => Some(missing),
        Step::Linker { .. } | Step::MountBpffs => None,
    });
    let what = format!("this is {id} {version}, and set-up knows the packages of Debian 12 only");
    problems.push(match missing {
        None => Problem {
            what,
            mend: "nothing is missing by name; if the build fails, use Debian 12".to_owned(),
            fatal: false,
        },
        Some(missing) => {
            let list = |ebpf: bool| {
                let names: Vec<_> = missing
                    .iter()
                    .filter(|package| package.ebpf == ebpf)
                    .map(|package| package.name.as_str())
                    .collect();
                names.join(" ")
            };
            let (others, ebpf) = (list(false), list(true));
            let mut mend = "use Debian 12 (a container or a virtual machine will do)".to_owned();
            if !others.is_empty() {
                mend += &format!(", or install what these are called here: {others}");
            }
            if !ebpf.is_empty() {
                mend += &format!(
                    "; without {ebpf}, build the eBPF object on Debian 12 \
                     and name it in BERTH_EBPF_OBJECT"
                );
            }
            Problem {
                what,
                mend,
                fatal: true,
            }
        }
    });
}

fn kernel_problems(facts: &Facts, problems: &mut Vec<Problem>) {
    let mut push = |fatal, what: String, mend: &str| {
        problems.push(Problem {
            what,
            mend: mend.to_owned(),
            fatal,
        });
    };
    let (major, minor) = facts.kernel.unwrap_or_default();
    if (major, minor) < KERNEL_NEEDED {
        push(
            true,
            format!("kernel {major}.{minor} is older than 6.1"),
            "boot Debian 12's kernel (linux-image-amd64), or a newer one from backports",
        );
    } else if (major, minor) < KERNEL_TCX {
        push(
            false,
            format!(
                "kernel {major}.{minor} has no tcx: connections of pods and nodes work; \
                 NodePort, externalIPs and LoadBalancer traffic from other machines does not"
            ),
            "boot 6.6 or newer, such as bookworm-backports' linux-image-amd64",
        );
    }
    if !facts.btf {
        push(
            true,
            "/sys/kernel/btf/vmlinux is missing: the kernel describes no types to eBPF".to_owned(),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's are",
        );
    }
    if facts.cgroup2.is_none() {
        push(
            true,
            "no cgroup2 is mounted, and the socket path attaches to cgroups".to_owned(),
            "boot with systemd.unified_cgroup_hierarchy=1, or \
             mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2",
        );
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
