//! The agent's golden cases (`proxy-agent/tests/golden/`) over the kernel's own
//! maps: the real agent in a namespace with the addresses of the cases' node.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::agent::{Agent, Home};
use berth_e2e::proxy::until;
use berth_lab::{Lab, require_binaries, require_root};

const WITHIN: Duration = Duration::from_secs(10);

fn cases() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proxy-agent/tests/golden");
    let mut cases = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            cases.push(path);
        }
    }
    cases.sort();
    Ok(cases)
}

/// The flags that a case is about, as it says in a comment `# --flag value`.
fn flags(yaml: &str) -> Vec<String> {
    let said = yaml.lines().filter_map(|line| line.strip_prefix("# --"));
    said.flat_map(|flag| {
        format!("--{flag}")
            .split(' ')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .collect()
}

/// The frontends of a dump, without what differs from run to run: how full the
/// maps are, the numbers that were free, the lab's own Service and the canary.
fn frontends(dump: &str) -> Vec<String> {
    let is_kept = |line: &&str| {
        !line.starts_with('#') && !line.contains(" berth/canary:") && !line.contains(" berth-lab/")
    };
    let no_number = |word: &&str| !word.starts_with("service=") && !word.starts_with("slots=");
    dump.lines()
        .filter(is_kept)
        .map(|line| {
            line.split(' ')
                .filter(no_number)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

#[test]
fn the_kernels_maps_hold_what_the_golden_cases_say() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent");
    let cases = cases()?;
    assert!(cases.len() >= 5, "{cases:?}");
    for case in cases {
        // The node of the cases is called n1 and has 10.20.0.11 and fd00::11.
        let lab = Lab::builder().nodes(1).vms(0).without_dns().start()?;
        let node = lab.node(1);
        let name = case.file_name().context("a case has a name")?;
        let here = format!("nodeName: {}", node.name());
        let yaml = fs::read_to_string(&case)?.replace("nodeName: n1", &here);
        let netns = berth_netlink::Netns::open(berth_lab::ground::netns::path(node.netns()))?;
        let handle = berth_netlink::Handle::in_netns(&netns)?;
        let link = handle.link_by_name("eth0")?;
        let nodad = berth_netlink::AddressFlags { nodad: true };
        handle.add_address(link.index, "fd00::11/64".parse()?, nodad)?;
        let hidden = lab.store().folder().join(".case");
        fs::write(&hidden, yaml)?;
        fs::rename(&hidden, lab.store().folder().join(name))?;
        let expected = frontends(&fs::read_to_string(case.with_extension("maps"))?);
        // In the place of the lab's own agent, with the case's flags.
        node.kill_agent()?;
        let home = Home::of(node)?;
        let mut arguments = flags(&fs::read_to_string(&case)?);
        arguments.extend([
            "--folder".to_owned(),
            lab.store().folder().display().to_string(),
        ]);
        let agent = Agent::start(&home, &arguments)?;
        let held = |agent: &Agent| -> Result<Vec<String>> {
            Ok(frontends(&agent.get("/v1/dump/realized")?.1))
        };
        let same = until("the case's maps", WITHIN, || Ok(held(&agent)? == expected));
        if same.is_err() {
            assert_eq!(held(&agent)?, expected, "{}", case.display());
        }
        // What was written is what a new agent reads back.
        agent.kill()?;
        let agent = Agent::start(&home, &arguments)?;
        assert_eq!(held(&agent)?, expected, "{}", case.display());
        agent.kill()?;
    }
    Ok(())
}
