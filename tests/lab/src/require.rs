//! What a test needs from the machine, and what it does if that is missing:
//! it says `SKIP` and why, or fails if `BERTH_REQUIRE_ALL=1`.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Whether a skipped test counts as a failed one.
#[must_use]
pub fn everything_is_required() -> bool {
    std::env::var_os("BERTH_REQUIRE_ALL").is_some_and(|value| value == "1")
}

/// Says that a test cannot run here. See [`crate::skip!`].
///
/// # Panics
/// If `BERTH_REQUIRE_ALL=1`.
pub fn skip(why: impl Display) {
    assert!(
        !everything_is_required(),
        "BERTH_REQUIRE_ALL=1, but this test cannot run here: {why}"
    );
    println!("SKIP: {why}");
}

/// Whether this process may make namespaces and load programs.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What a test returns: nothing, or a result.
pub trait Skipped {
    /// The value of a test that did not run.
    fn skipped() -> Self;
}

impl Skipped for () {
    fn skipped() -> Self {}
}

impl<E> Skipped for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

/// Leaves the test, with a word why.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::require::skip(format_args!($($why)*));
        return $crate::require::Skipped::skipped();
    }};
}

/// Leaves the test unless it runs as root.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::require::is_root() {
            $crate::skip!("needs root: run it with sudo, or through cargo xtask test");
        }
    };
}

/// Leaves the test unless the named programs have been built: those beside
/// the test's own, or in `$BERTH_BIN_DIR`.
#[macro_export]
macro_rules! require_binaries {
    ($($name:expr),+ $(,)?) => {
        $(
            if let Err(error) = $crate::binaries::find($name) {
                $crate::skip!("{error:#}");
            }
        )+
    };
}

/// A manifest that another project wrote: in the folder `$BERTH_REALWORLD`, or
/// in `../shared/realworld` beside the repository. They are not part of it.
///
/// # Errors
/// Says where it was looked for.
pub fn realworld(name: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("BERTH_REALWORLD").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/realworld"),
        PathBuf::from,
    );
    let path = folder.join(name);
    anyhow::ensure!(
        path.is_file(),
        "{} is not there: name the folder that holds it in BERTH_REALWORLD",
        path.display()
    );
    Ok(path)
}
