//! Which Debian packages are needed, for what, and by which command.

use super::plan::Purpose;

/// One package of Debian 12.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// What it is needed for, for people.
    pub(crate) why: &'static str,
    /// The least that needs it.
    pub(super) from: Purpose,
    /// Whether only the build of the eBPF object needs it.
    pub(super) ebpf: bool,
}

/// Every package that `purpose` needs. The LLVM packages carry the version in
/// their name.
pub(super) fn needed(purpose: Purpose, llvm_major: u32, ebpf: bool) -> Vec<Package> {
    let llvm = format!("llvm-{llvm_major}-dev");
    let all = [
        (Purpose::Build, false, "gcc", "C compiler, for SQLite"),
        (Purpose::Build, false, "libc6-dev", "C library's headers"),
        (Purpose::Build, false, "make", "builds C dependencies"),
        (Purpose::Build, false, "pkg-config", "finds C libraries"),
        (
            Purpose::Build,
            true,
            "rustc-web",
            "compiler of the eBPF object",
        ),
        (Purpose::Build, true, "cargo-web", "cargo that goes with it"),
        (
            Purpose::Build,
            true,
            "rust-web-src",
            "source of core, for eBPF",
        ),
        (Purpose::Build, true, &llvm, "LLVM, for bpf-linker"),
        (Purpose::Demo, false, "iproute2", "ip, to look into the lab"),
        (Purpose::Demo, false, "tcpdump", "packet capture in the lab"),
        (Purpose::Demo, false, "bpftool", "dumps the maps"),
        (Purpose::Demo, false, "bind9-dnsutils", "dig"),
        (
            Purpose::Vm,
            false,
            "qemu-system-x86",
            "emulates machines with other kernels",
        ),
        (Purpose::Vm, false, "kmod", "lists those kernels' modules"),
        (Purpose::Vm, false, "file", "tells virtme-ng the kernel"),
        (Purpose::Vm, false, "python3-venv", "runs virtme-ng"),
        (Purpose::Test, false, "bind9", "company DNS server in tests"),
        (Purpose::Test, false, "dnsperf", "DNS load generator"),
        (Purpose::Test, false, "haproxy", "a peer in benchmarks"),
        (Purpose::Test, false, "iptables", "kube-proxy in tests"),
        (Purpose::Test, false, "nftables", "kube-proxy in tests"),
        (
            Purpose::Test,
            false,
            "etcd-server",
            "the API server's store",
        ),
        (
            Purpose::Test,
            false,
            "containernetworking-plugins",
            "reference CNI plugins",
        ),
    ];
    all.into_iter()
        .filter(|(from, only_ebpf, ..)| *from <= purpose && (ebpf || !only_ebpf))
        .map(|(from, ebpf, name, why)| Package {
            name: name.to_owned(),
            why,
            from,
            ebpf,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(purpose: Purpose, ebpf: bool) -> Vec<String> {
        needed(purpose, 21, ebpf)
            .into_iter()
            .map(|package| package.name)
            .collect()
    }

    #[test]
    fn building_needs_the_llvm_of_the_compiler() {
        assert!(names(Purpose::Build, true).contains(&"llvm-21-dev".to_owned()));
    }

    #[test]
    fn an_object_built_elsewhere_needs_no_ebpf_toolchain() {
        let names = names(Purpose::Test, false);
        assert!(!names.iter().any(|name| name.contains("llvm")));
        assert!(!names.iter().any(|name| name.contains("rust")));
        assert!(names.contains(&"gcc".to_owned()));
    }

    #[test]
    fn each_purpose_needs_all_that_the_one_before_needs() {
        let (build, demo, test) = (
            names(Purpose::Build, true),
            names(Purpose::Demo, true),
            names(Purpose::Test, true),
        );
        assert!(build.iter().all(|name| demo.contains(name)));
        assert!(demo.iter().all(|name| test.contains(name)));
        assert!(!build.contains(&"bind9".to_owned()));
        assert!(test.contains(&"bind9".to_owned()));
    }

    #[test]
    fn only_virtual_machines_and_the_tests_need_an_emulator() {
        let qemu = "qemu-system-x86".to_owned();
        assert!(!names(Purpose::Demo, true).contains(&qemu));
        assert!(names(Purpose::Vm, true).contains(&qemu));
        assert!(!names(Purpose::Vm, true).contains(&"bind9".to_owned()));
        assert!(names(Purpose::Test, true).contains(&qemu));
    }
}
