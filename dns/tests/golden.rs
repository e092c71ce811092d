//! YAML in, a table of questions and answers out.
//!
//! Each `golden/NAME.yaml` goes with a `golden/NAME.txt`: the warnings, then
//! lines of `VIEW NAME TYPE -> ANSWER`. With BERTH_BLESS=1 the right-hand sides
//! are written anew, to be read before they are committed.

mod common;

use std::fs;
use std::path::Path;

use common::{INSIDE, OUTSIDE, ask, query, render, table};

#[test]
fn every_answer_is_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = std::env::var_os("BERTH_BLESS").is_some();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        seen += 1;
        let yaml = fs::read_to_string(&path).unwrap();
        let golden = path.with_extension("txt");
        let expected = fs::read_to_string(&golden).unwrap();
        let actual = answers(&yaml, &expected);
        if bless {
            fs::write(&golden, actual).unwrap();
        } else {
            assert!(
                actual == expected,
                "{} differs; this came out:\n{actual}",
                golden.display()
            );
        }
    }
    assert!(seen > 0, "no golden files in {}", folder.display());
}

/// The expected text with the right-hand sides that come out.
fn answers(yaml: &str, expected: &str) -> String {
    let (table, warnings) = table(
        yaml,
        &[
            "apps.corp.example={service}-{namespace}",
            "short.example={service}",
        ],
    );
    let mut text: String = warnings.iter().map(|w| format!("! {w}\n")).collect();
    for line in expected.lines().filter(|line| !line.starts_with('!')) {
        let left = line.split(" -> ").next().unwrap();
        let words: Vec<_> = left.split_whitespace().collect();
        let &[view, name, rtype] = words.as_slice() else {
            text.push_str(&format!("{line}\n"));
            continue;
        };
        let client = match view {
            "inside" => INSIDE,
            "outside" => OUTSIDE,
            other => panic!("{line}: {other} is no view"),
        };
        let answer = ask(&table, client, &query(name, rtype.parse().unwrap()));
        text.push_str(&format!("{left} -> {}\n", render(&answer)));
    }
    text
}
