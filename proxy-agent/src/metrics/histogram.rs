//! How often something took how long.

/// Observations counted by upper bound.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    /// Ascending; what lies above the last is counted apart.
    bounds: Vec<f64>,
    /// One for each bound, and one for what lies above all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: Vec<f64>) -> Self {
        let counts = vec![0; bounds.len() + 1];
        Self {
            bounds,
            counts,
            sum: 0.0,
        }
    }

    /// A bound belongs to its bucket: `le` means less or equal.
    pub(super) fn observe(&mut self, value: f64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.counts[index] += 1;
        self.sum += value;
    }

    /// Each bound with how many observations were no larger.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut total = 0;
        self.bounds
            .iter()
            .zip(&self.counts)
            .map(move |(bound, count)| {
                total += count;
                (*bound, total)
            })
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }
}

/// The bounds of kube-proxy's `sync_proxy_rules_duration_seconds`: 15, from
/// 1 ms, each twice the last.
pub(super) fn sync_bounds() -> Vec<f64> {
    std::iter::successors(Some(0.001), |bound| Some(bound * 2.0))
        .take(15)
        .collect()
}

/// The bounds of kube-proxy's `network_programming_duration_seconds`: 0.25 and
/// 0.5 s, every second to 59 s, every 5 s to 115 s, every 30 s to 300 s.
pub(super) fn programming_bounds() -> Vec<f64> {
    let seconds = (1..60)
        .chain((60..120).step_by(5))
        .chain((120..=300).step_by(30));
    [0.25, 0.5]
        .into_iter()
        .chain(seconds.map(f64::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_kube_proxy() {
        let told = |bounds: &[f64]| bounds.iter().map(ToString::to_string).collect::<Vec<_>>();
        let sync = sync_bounds();
        assert_eq!(told(&sync[..3]), ["0.001", "0.002", "0.004"]);
        assert_eq!(
            (sync.len(), told(&sync[14..])),
            (15, vec!["16.384".to_owned()])
        );
        let programming = programming_bounds();
        // 2 + 59 + 12 + 7.
        assert_eq!(programming.len(), 80);
        assert_eq!(told(&programming[..4]), ["0.25", "0.5", "1", "2"]);
        assert_eq!(told(&programming[60..63]), ["59", "60", "65"]);
        assert_eq!(told(&programming[72..75]), ["115", "120", "150"]);
        assert_eq!(programming[79], 300.0);
    }
}
