use super::*;

const MSRV: (u32, u32) = (1, 95);

fn rust(minor: u32, llvm_major: u32) -> RustVersion {
    RustVersion {
        major: 1,
        minor,
        llvm_major,
    }
}

/// A machine on which nothing is missing.
fn ready() -> Facts {
    Facts {
        root: true,
        os: ("debian".to_owned(), "12".to_owned()),
        kernel: Some((6, 18)),
        btf: true,
        cgroup2: Some(PathBuf::from("/sys/fs/cgroup")),
        bpffs: true,
        packages: packages::needed(Purpose::Test, 22, true)
            .into_iter()
            .map(|package| package.name)
            .collect(),
        user_rust: rust(95, 22),
        ebpf_rust: Some(rust(96, 22)),
        linkers: BTreeSet::from([22]),
        object_given: false,
    }
}

/// A fresh Debian 12 with root and Rust, and nothing else.
fn fresh() -> Facts {
    Facts {
        bpffs: false,
        packages: BTreeSet::new(),
        ebpf_rust: None,
        linkers: BTreeSet::new(),
        ..ready()
    }
}

fn only_problem(facts: &Facts, purpose: Purpose) -> Problem {
    let plan = plan(facts, purpose, MSRV);
    assert_eq!(plan.problems.len(), 1, "{plan:?}");
    plan.problems[0].clone()
}

fn package_names(plan: &Plan) -> Vec<&str> {
    plan.steps
        .iter()
        .filter_map(|step| match step {
            Step::Packages(packages) => Some(packages.iter().map(|package| &*package.name)),
            _ => None,
        })
        .flatten()
        .collect()
}

#[test]
fn nothing_is_done_twice() {
    assert_eq!(plan(&ready(), Purpose::Test, MSRV), Plan::default());
}

#[test]
fn a_fresh_machine_gets_everything_and_in_order() {
    let plan = plan(&fresh(), Purpose::Test, MSRV);
    assert!(!plan.is_blocked());
    let [
        Step::Packages(_),
        Step::Linker { llvm_major: 22 },
        Step::MountBpffs,
    ] = plan.steps.as_slice()
    else {
        panic!("{plan:?}");
    };
    assert!(package_names(&plan).contains(&"llvm-22-dev"));
    assert!(package_names(&plan).contains(&"bind9"));
}

#[test]
fn building_alone_needs_neither_root_nor_a_mount() {
    let facts = Facts {
        root: false,
        bpffs: false,
        cgroup2: None,
        btf: false,
        kernel: Some((5, 10)),
        ..ready()
    };
    assert_eq!(plan(&facts, Purpose::Build, MSRV), Plan::default());
    assert!(plan(&facts, Purpose::Demo, MSRV).is_blocked());
}

#[test]
fn installing_needs_root() {
    let facts = Facts {
        root: false,
        ..fresh()
    };
    let problem = only_problem(&facts, Purpose::Build);
    assert!(
        problem.fatal && problem.mend.contains("sudo"),
        "{problem:?}"
    );
}

#[test]
fn bpf_linker_alone_is_installed_without_root() {
    let facts = Facts {
        root: false,
        linkers: BTreeSet::from([21]),
        ..ready()
    };
    let plan = plan(&facts, Purpose::Build, MSRV);
    assert_eq!(plan.steps, [Step::Linker { llvm_major: 22 }]);
    assert!(!plan.is_blocked());
}

#[test]
fn llvm_follows_debians_compiler_once_that_is_there() {
    let facts = Facts {
        ebpf_rust: Some(rust(97, 23)),
        ..ready()
    };
    let plan = plan(&facts, Purpose::Build, MSRV);
    assert_eq!(package_names(&plan), ["llvm-23-dev"]);
    assert!(plan.steps.contains(&Step::Linker { llvm_major: 23 }));
}

#[test]
fn a_compiler_older_than_the_workspace_is_renewed() {
    let facts = Facts {
        ebpf_rust: Some(rust(85, 22)),
        ..ready()
    };
    let plan = plan(&facts, Purpose::Build, MSRV);
    assert_eq!(package_names(&plan), ["rustc-web", "cargo-web"]);
}

#[test]
fn an_object_built_elsewhere_needs_no_toolchain() {
    let facts = Facts {
        object_given: true,
        packages: packages::needed(Purpose::Test, 22, false)
            .into_iter()
            .map(|package| package.name)
            .collect(),
        ebpf_rust: None,
        linkers: BTreeSet::new(),
        ..ready()
    };
    assert_eq!(plan(&facts, Purpose::Test, MSRV), Plan::default());
}

#[test]
fn an_old_kernel_says_what_is_lost() {
    let with = |kernel| Facts { kernel, ..ready() };
    let too_old = only_problem(&with(Some((5, 15))), Purpose::Demo);
    assert!(
        too_old.fatal && too_old.what.contains("5.15"),
        "{too_old:?}"
    );

    let no_tcx = only_problem(&with(Some((6, 1))), Purpose::Demo);
    assert!(!no_tcx.fatal, "{no_tcx:?}");
    assert!(no_tcx.what.contains("NodePort"), "{no_tcx:?}");

    assert!(
        plan(&with(Some((6, 6))), Purpose::Demo, MSRV)
            .problems
            .is_empty()
    );
    assert!(only_problem(&with(None), Purpose::Demo).fatal);
}

#[test]
fn a_kernel_without_btf_or_cgroup2_blocks_with_a_mend() {
    let no_btf = Facts {
        btf: false,
        ..ready()
    };
    assert!(only_problem(&no_btf, Purpose::Demo).mend.contains("BTF"));
    let no_cgroup2 = Facts {
        cgroup2: None,
        ..ready()
    };
    let problem = only_problem(&no_cgroup2, Purpose::Demo);
    assert!(problem.fatal && problem.mend.contains("mount -t cgroup2"));
}

#[test]
fn another_system_is_refused_only_if_something_is_missing() {
    let trixie = ("debian".to_owned(), "13".to_owned());
    let complete = Facts {
        os: trixie.clone(),
        ..ready()
    };
    assert!(!only_problem(&complete, Purpose::Test).fatal);

    let bare = Facts {
        os: trixie,
        ..fresh()
    };
    let problem = only_problem(&bare, Purpose::Test);
    assert!(problem.fatal && problem.what.contains("debian 13"));
    assert!(problem.mend.contains("BERTH_EBPF_OBJECT"), "{problem:?}");
    assert!(problem.mend.contains("gcc"), "{problem:?}");
}

#[test]
fn a_virtual_machine_asks_nothing_of_this_kernel() {
    let facts = Facts {
        kernel: Some((5, 10)),
        btf: false,
        cgroup2: None,
        bpffs: false,
        ..ready()
    };
    assert_eq!(plan(&facts, Purpose::Vm, MSRV), Plan::default());
    assert!(plan(&facts, Purpose::Demo, MSRV).is_blocked());
}
