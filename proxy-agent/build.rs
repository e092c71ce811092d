//! Finds the eBPF object that `cargo xtask build` made. Without it, an empty
//! one stands in, so that stable Rust alone can check and test everything
//! else; an agent built so says what is missing when it starts.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=BERTH_EBPF_OBJECT");
    let root = env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    let object = env::var_os("BERTH_EBPF_OBJECT")
        .map_or_else(|| root.join("../target/berth-proxy-ebpf.o"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded = if object.is_file() {
        object
    } else {
        let stub = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("no-object");
        fs::write(&stub, []).expect("the build's own folder can be written");
        stub
    };
    let embedded = embedded.canonicalize().expect("it was found a moment ago");
    println!(
        "cargo::rustc-env=BERTH_EBPF_OBJECT_EMBEDDED={}",
        embedded.display()
    );
}
