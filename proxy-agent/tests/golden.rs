//! Golden cases: a folder of YAML in, the text of the maps out. The cases are
//! in `tests/golden/`; `BERTH_BLESS=1 cargo test` writes what comes out now.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use berth_agent::agent::{Controller, Stage, show};
use berth_agent::datapath::FakeDatapath;
use berth_agent::diff::Capacity;
use berth_agent::model::{Change, SourceKind};
use berth_agent::reflector::folder::FolderReflector;
use ipnetwork::IpNetwork;

const CAPACITY: Capacity = Capacity {
    frontends: 64,
    slots: 64,
    backends: 64,
};

fn maps_of(case: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(case, folder.path().join("case.yaml")).unwrap();
    let (changes, rejected) = FolderReflector::new(folder.path(), "n1").refresh().unwrap();
    let mut agent = Controller::new(FakeDatapath::new(CAPACITY), "n1").unwrap();
    let node = ["10.20.0.11", "fd00::11"].map(|text| text.parse().unwrap());
    agent.take(changes);
    agent.take([Change::NodeAddresses(node.into())]);
    agent.take([Change::NodePortNetworks(networks(case))]);
    agent.take(SourceKind::ALL.map(Change::Synced));
    agent.sync(Instant::now());
    let path = format!("{}/", folder.path().display());
    let refusals: String = rejected
        .iter()
        .map(|refusal| format!("# refused {}\n", refusal.to_string().replace(&path, "")))
        .collect();
    refusals + &show(&agent, Stage::Realized)
}

/// As a case says in a line `# --nodeport-addresses CIDR,...`.
fn networks(case: &Path) -> Vec<IpNetwork> {
    let text = fs::read_to_string(case).unwrap();
    let flag = text
        .lines()
        .find_map(|line| line.strip_prefix("# --nodeport-addresses "));
    let networks = flag.into_iter().flat_map(|list| list.split(','));
    networks.map(|network| network.parse().unwrap()).collect()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    cases.sort();
    cases
}

#[test]
fn golden_cases() {
    let cases = cases();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in cases {
        let golden = case.with_extension("maps");
        let found = maps_of(&case);
        if std::env::var_os("BERTH_BLESS").is_some() {
            fs::write(&golden, &found).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if found != expected {
            wrong.push(format!(
                "{}\nexpected:\n{expected}found:\n{found}",
                golden.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
