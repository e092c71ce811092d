//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The folder named here is looked in first, and alone.
pub const BIN_DIR: &str = "BERTH_BIN_DIR";

/// The program called `name`: in `$BERTH_BIN_DIR`, or else beside the running
/// program (`target/debug`; tests run from `target/debug/deps`).
///
/// # Errors
/// Says where it was looked for and how to build it.
pub fn find(name: &str) -> Result<PathBuf> {
    let folders = match std::env::var_os(BIN_DIR) {
        Some(folder) => vec![PathBuf::from(folder)],
        None => {
            let own = std::env::current_exe().context("find the running program")?;
            own.ancestors()
                .skip(1)
                .take(2)
                .map(Path::to_owned)
                .collect()
        }
    };
    for folder in &folders {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let looked: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
    bail!(
        "{name} is not in {}: build it with `cargo build -p {name}`, or name its folder in {BIN_DIR}",
        looked.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_mend() {
        let error = find("berth-no-such").unwrap_err().to_string();
        assert!(error.starts_with("berth-no-such is not in "), "{error}");
        assert!(error.contains("cargo build -p berth-no-such"), "{error}");
    }
}
