//! Taking samples so that a drift of the machine hits all sides alike.

use anyhow::{Result, ensure};

/// What one side measured, one figure a round, in the order of the rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// The middle one; of an even number, the mean of the two in the middle.
    /// NaN if there is none.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// What `percent` of the rounds reach at most. NaN if there is none.
    #[must_use]
    pub fn quantile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or(f64::NAN)
    }

    /// Each figure changed by `change`, such as a time to a rate.
    #[must_use]
    pub fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|&figure| change(figure)).collect())
    }

    /// How far the middle half of the rounds lies apart, as a part of the
    /// median: 0.1 means within a tenth of it. A few rounds that the machine
    /// disturbed do not count, as they do not for the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else {
            return f64::NAN;
        };
        let quarter = sorted.len() / 4;
        (sorted[last - quarter] - sorted[quarter]) / self.median()
    }
}

impl From<Vec<f64>> for Samples {
    fn from(samples: Vec<f64>) -> Self {
        Self(samples)
    }
}

/// Measures `N` sides in turn, `rounds` times: A B A B and so on, after a round
/// that warms up and does not count. `measure` is given the side's number, from
/// 0, and returns its figure.
///
/// # Errors
/// The first that `measure` returns, and a figure that is no positive number.
pub fn in_turn<const N: usize>(
    rounds: usize,
    measure: impl FnMut(usize) -> Result<f64>,
) -> Result<[Samples; N]> {
    let samples = all_in_turn(N, rounds, measure)?;
    Ok(samples.try_into().expect("as many came as were asked for"))
}

/// As [`in_turn`], for a number of sides that is known only now.
///
/// # Errors
/// As [`in_turn`].
pub fn all_in_turn(
    sides: usize,
    rounds: usize,
    mut measure: impl FnMut(usize) -> Result<f64>,
) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); sides];
    for round in 0..=rounds {
        for (side, samples) in samples.iter_mut().enumerate() {
            let figure = measure(side)?;
            ensure!(
                figure.is_finite() && figure > 0.0,
                "side {side} measured {figure}, which is no figure to compare"
            );
            if round > 0 {
                samples.0.push(figure);
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_not_moved_by_an_outlier() {
        assert!((Samples(vec![3.0, 1000.0, 1.0]).median() - 3.0).abs() < f64::EPSILON);
        assert!((Samples(vec![4.0, 2.0]).median() - 3.0).abs() < f64::EPSILON);
        assert!(Samples(vec![]).median().is_nan());
    }

    #[test]
    fn quantiles_are_figures_that_were_measured() {
        let samples = Samples::from((1..=200).map(f64::from).collect::<Vec<_>>());
        assert!((samples.quantile(99) - 198.0).abs() < f64::EPSILON);
        assert!((samples.map(|x| x * 2.0).quantile(50) - 200.0).abs() < f64::EPSILON);
        assert!(Samples::default().quantile(50).is_nan());
    }

    #[test]
    fn the_spread_is_relative_and_not_moved_by_an_outlier() {
        let samples = Samples(vec![110.0, 9.0, 100.0, 90.0, 1000.0]);
        assert!((samples.spread() - 0.2).abs() < 1e-9);
        assert!(Samples(vec![]).spread().is_nan());
    }

    #[test]
    fn sides_take_turns_and_the_first_round_does_not_count() {
        let mut order = Vec::new();
        let [a, b] = in_turn(2, |side| {
            order.push(side);
            Ok(order.len() as f64)
        })
        .unwrap();
        assert_eq!(order, [0, 1, 0, 1, 0, 1]);
        assert_eq!(a, Samples(vec![3.0, 5.0]));
        assert_eq!(b, Samples(vec![4.0, 6.0]));
    }

    #[test]
    fn what_is_no_figure_is_an_error() {
        assert!(in_turn::<1>(1, |_| Ok(0.0)).is_err());
        assert!(in_turn::<1>(1, |_| Ok(f64::NAN)).is_err());
        assert!(in_turn::<1>(1, |_| anyhow::bail!("no route")).is_err());
    }
}
