//! Which kernels, and which of Debian's packages has them. Pure.

use std::fmt;

/// A long-term series that Berth promises to run on, and that Debian 12 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// Debian 12's own: the oldest that Berth runs on.
    V6_1,
    /// From Debian 12's security updates.
    V6_12,
}

impl Series {
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    fn numbers(self) -> [u64; 2] {
        match self {
            Self::V6_1 => [6, 1],
            Self::V6_12 => [6, 12],
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = self.numbers();
        write!(f, "{major}.{minor}")
    }
}

/// The newest package of `series` among `names`: the plain kernel, not those
/// for clouds or real time, and not the ones without a signature (their names
/// end otherwise).
pub(super) fn choose<'a>(names: impl Iterator<Item = &'a str>, series: Series) -> Option<&'a str> {
    names
        .filter_map(|name| Some((version(name)?, name)))
        .filter(|(version, _)| version.starts_with(&series.numbers()))
        .max()
        .map(|(_, name)| name)
}

/// The numbers in `linux-image-6.12.9+bpo-amd64` or `linux-image-6.1.0-28-amd64`.
fn version(name: &str) -> Option<Vec<u64>> {
    let release = name.strip_prefix("linux-image-")?.strip_suffix("-amd64")?;
    let (numbers, origin) = release.split_once('+').unwrap_or((release, ""));
    let numbers: Option<Vec<_>> = numbers
        .split(['.', '-'])
        .map(|number| number.parse().ok())
        .collect();
    // A flavour would follow the origin: `+deb12-cloud`.
    numbers.filter(|numbers| numbers.len() > 2 && !origin.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 10] = [
        "linux-image-6.1.0-9-amd64",
        "linux-image-6.1.0-47-amd64",
        "linux-image-6.1.0-50-cloud-amd64",
        "linux-image-6.1.0-50-rt-amd64",
        "linux-image-6.12-amd64",
        "linux-image-6.12.9+bpo-amd64",
        "linux-image-6.12.117+deb12-amd64",
        "linux-image-6.12.118+deb12-cloud-amd64",
        "linux-image-6.12.119+deb12-amd64-unsigned",
        "linux-image-amd64",
    ];

    #[test]
    fn the_newest_plain_kernel_of_a_series_is_chosen() {
        let chosen = |series| choose(NAMES.into_iter(), series);
        assert_eq!(chosen(Series::V6_1), Some("linux-image-6.1.0-47-amd64"));
        assert_eq!(
            chosen(Series::V6_12),
            Some("linux-image-6.12.117+deb12-amd64")
        );
    }

    #[test]
    fn a_series_that_is_not_there_is_not_replaced_by_another() {
        let names = ["linux-image-6.12.1-amd64", "linux-image-5.10.0-1-amd64"];
        assert_eq!(choose(names.into_iter(), Series::V6_1), None);
    }

    #[test]
    fn series_are_written_as_people_do() {
        assert_eq!(Series::ALL.map(|s| s.to_string()), ["6.1", "6.12"]);
    }
}
