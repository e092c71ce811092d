//! One comparison.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::Samples;

/// What the ratio, ours divided by the peer's, must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// More is better, as of connections a second.
    AtLeast(f64),
    /// Less is better, as of time and memory.
    AtMost(f64),
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound:.2}"),
            Self::AtMost(bound) => write!(f, "<= {bound:.2}"),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One comparison of Berth with one peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Berth's median, in `unit`.
    pub ours: f64,
    /// The peer's median, in `unit`.
    pub peer: f64,
    /// Who the peer is.
    pub peer_name: String,
    /// Of `ours` and `peer`, such as `connections/s`.
    pub unit: String,
    /// `ours` divided by `peer`.
    pub ratio: f64,
    /// The wider spread of the two sides' rounds: a difference between the
    /// sides that is smaller says little.
    pub spread: f64,
    /// What `ratio` must reach; in JSON as text, `">= 0.97"`.
    pub target: Target,
    /// Whether it does.
    pub met: bool,
}

impl Row {
    /// Compares two sides' samples.
    #[must_use]
    pub fn new(
        name: &str,
        unit: &str,
        ours: &Samples,
        (peer_name, peer): (&str, &Samples),
        target: Target,
    ) -> Self {
        let ratio = ours.median() / peer.median();
        Self {
            name: name.to_owned(),
            ours: ours.median(),
            peer: peer.median(),
            peer_name: peer_name.to_owned(),
            unit: unit.to_owned(),
            ratio,
            spread: ours.spread().max(peer.spread()),
            target,
            met: target.is_met(ratio),
        }
    }

    /// Compares with a figure that Berth set itself: at most that.
    #[must_use]
    pub fn limit(name: &str, unit: &str, ours: &Samples, limit: f64) -> Self {
        let limit = Samples::from(vec![limit]);
        Self::new(name, unit, ours, ("the limit", &limit), Target::AtMost(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, peer: f64, target: Target) -> Row {
        Row::new(
            "connect",
            "connections/s",
            &Samples::from(vec![ours]),
            ("direct", &Samples::from(vec![peer])),
            target,
        )
    }

    #[test]
    fn more_or_less_is_better_as_the_target_says() {
        assert!(row(97.0, 100.0, Target::AtLeast(0.97)).met);
        assert!(!row(96.0, 100.0, Target::AtLeast(0.97)).met);
        assert!(row(0.4, 1.0, Target::AtMost(0.4)).met);
        assert!(!row(0.5, 1.0, Target::AtMost(0.4)).met);
    }

    #[test]
    fn a_ratio_that_is_no_number_meets_nothing() {
        let none = Row::new(
            "x",
            "s",
            &Samples::default(),
            ("y", &Samples::default()),
            Target::AtMost(1.0),
        );
        assert!(!none.met);
    }

    #[test]
    fn the_names_in_json_are_the_agreed_ones() {
        let json = serde_json::to_value(row(50.0, 100.0, Target::AtLeast(0.97))).unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        names.sort();
        assert_eq!(
            names,
            [
                "met",
                "name",
                "ours",
                "peer",
                "peer_name",
                "ratio",
                "spread",
                "target",
                "unit"
            ]
        );
        assert_eq!(json["target"], ">= 0.97");
        assert_eq!(json["ratio"], 0.5);
        assert_eq!(json["met"], false);
    }
}
