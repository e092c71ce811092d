use super::*;

fn tally(output: &str, success: bool) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines() {
        tally.read(line);
    }
    tally.finish(success);
    tally
}

const MIXED: &str = "\
   Compiling berth-e2e v0.1.0
    Finished `test` profile target(s) in 1.00s
     Running unittests src/lib.rs (target/debug/deps/berth_abi-0123abcd)

running 2 tests
test one ... ok
test two ... ok

successes:

---- one stdout ----
a line that says nothing

successes:
    one
    two

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/lab_demo.rs (/x/target/debug/deps/lab_demo-89)

running 5 tests
test cassandra ... ok
test later ... ignored, needs a VM
test needs_go ... ok
test broken ... FAILED
test panics - should panic ... ok

successes:

---- cassandra stdout ----
SKIPPING is no word of ours

---- needs_go stdout ----
SKIP no Go toolchain
SKIP: said twice

successes:
    cassandra
    needs_go
    panics - should panic

failures:

---- broken stdout ----
SKIP is no excuse for a failure

thread 'broken' panicked at tests/lab_demo.rs:1:1:
boom

failures:
    broken

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

error: test failed, to rerun pass `-p berth-e2e --test lab_demo`
   Doc-tests berth_abi

running 1 test
test abi/src/lib.rs - (line 1) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

all doctests ran in 0.50s; merged doctests compilation took 0.30s
error: 1 target failed:
    `-p berth-e2e --test lab_demo`
";

#[test]
fn passes_failures_and_skips_of_all_binaries_are_counted() {
    let tally = tally(MIXED, false);
    assert_eq!(tally.summary(), "5 passed, 1 failed, 2 skipped");
    assert_eq!(tally.failures(), ["lab_demo broken"]);
    assert_eq!(
        tally.skips(),
        [
            ("lab_demo later".to_owned(), "needs a VM".to_owned()),
            ("lab_demo needs_go".to_owned(), "no Go toolchain".to_owned()),
        ]
    );
    assert!(!tally.is_success(false));
}

#[test]
fn what_a_failed_test_said_is_shown_and_what_others_said_is_not() {
    let mut tally = Tally::default();
    let shown: Vec<_> = MIXED
        .lines()
        .flat_map(|line| tally.read(line))
        .filter_map(|note| match note {
            Note::Show(text) => Some(text),
            Note::Done(_) => None,
        })
        .collect();
    for line in [
        "berth_abi: 2 passed, 0 failed, 0 skipped",
        "FAILED lab_demo broken",
        "boom",
        "lab_demo: 2 passed, 1 failed, 2 skipped",
        "berth_abi (doc): 1 passed, 0 failed, 0 skipped",
    ] {
        assert!(shown.iter().any(|text| text == line), "{line}: {shown:#?}");
    }
    let hidden = |text: &String| text.contains("says nothing") || text.contains("Compiling");
    assert!(!shown.iter().any(hidden), "{shown:#?}");
}

#[test]
fn a_skip_fails_only_where_all_is_required() {
    let output = "running 1 test\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\nSKIP: no root\n\n\
                  test result: ok. 1 passed; 0 failed; 0 ignored\n";
    let tally = tally(output, true);
    assert_eq!(tally.summary(), "0 passed, 0 failed, 1 skipped");
    assert!(tally.is_success(false));
    assert!(!tally.is_success(true));
}

#[test]
fn tests_of_a_binary_that_died_are_failures() {
    let died = "     Running tests/a.rs (deps/a-1)\nrunning 3 tests\ntest one ... ok\n\
                error: test failed, to rerun pass `--test a`\n\
                Caused by: process didn't exit successfully (signal: 11, SIGSEGV)\n\
                     Running tests/b.rs (deps/b-1)\nrunning 1 test\ntest two ... ok\n\
                test result: ok. 1 passed; 0 failed\n";
    let tally = tally(died, false);
    assert_eq!(tally.summary(), "2 passed, 2 failed, 0 skipped");
    assert!(tally.failures()[0].starts_with("a (died"), "{tally:?}");
}

#[test]
fn a_compile_error_is_a_failure_although_no_test_ran() {
    let tally = tally("error[E0425]: cannot find value `x`\n", false);
    assert_eq!(tally.summary(), "0 passed, 1 failed, 0 skipped");
}

#[test]
fn nothing_ran_is_noticed() {
    let none = "     Running tests/a.rs (deps/a-1)\nrunning 0 tests\n\n\
                test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out\n";
    assert!(tally(none, true).is_empty());
}

#[test]
fn a_skip_that_slips_past_the_capture_counts_too() {
    let output = "running 2 tests\nSKIP no bridge\ntest a ... ok\ntest b ... ok\n\n\
                  test result: ok. 2 passed; 0 failed; 0 ignored\n";
    assert_eq!(
        tally(output, true).summary(),
        "1 passed, 0 failed, 1 skipped"
    );
}

#[test]
fn virtual_machines_count_like_other_tests() {
    let mut tally = tally("", true);
    let mut run = Run::default();
    run.tests = vec![
        ("cni: one".to_owned(), Verdict::Passed),
        ("cni: two".to_owned(), Verdict::Failed("no".to_owned())),
    ];
    tally.add_run("6.1", &run);
    tally.skip("vm 6.12", "no such kernel");
    assert_eq!(tally.summary(), "1 passed, 1 failed, 1 skipped");
    assert_eq!(tally.failures(), ["vm 6.1 cni: two"]);
}
