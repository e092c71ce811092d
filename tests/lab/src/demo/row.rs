//! One check's row.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use super::table;

/// What a check came to.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It is as it should be; a word on what was seen, and how long it took.
    Good(String, Option<Duration>),
    /// It is not, and why.
    Failed(String),
    /// It was not tried, and why.
    Skipped(String),
}

/// One check.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The group that it belongs to, which is its headline.
    pub(super) group: &'static str,
    /// Who asked.
    pub(super) from: String,
    /// Whom.
    pub(super) to: String,
    /// How it went.
    pub(super) outcome: Outcome,
}

impl Row {
    pub(super) fn new(
        group: &'static str,
        from: impl Into<String>,
        to: impl Into<String>,
        outcome: Outcome,
    ) -> Self {
        Self {
            group,
            from: from.into(),
            to: to.into(),
            outcome,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    pub(super) fn is_skipped(&self) -> bool {
        matches!(self.outcome, Outcome::Skipped(_))
    }

    fn cells(&self) -> [String; 5] {
        let (mark, told, time) = match &self.outcome {
            Outcome::Good(told, time) => ("ok", told, time.map(readable).unwrap_or_default()),
            Outcome::Failed(why) => ("FAILED", why, String::new()),
            Outcome::Skipped(why) => ("-", why, String::new()),
        };
        let cells = [mark, &self.from, &self.to].map(str::to_owned);
        let [mark, from, to] = cells;
        [mark, from, to, format!("{time:>8}"), told.clone()]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match &self.outcome {
            Outcome::Good(told, _) => told,
            Outcome::Failed(why) | Outcome::Skipped(why) => why,
        };
        write!(f, "{}: {} -> {}: {why}", self.group, self.from, self.to)
    }
}

/// Writes all rows, each group under its headline.
pub(super) fn show(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    for group in rows.chunk_by(|a, b| a.group == b.group) {
        writeln!(out, "\n{}", group[0].group)?;
        let cells: Vec<_> = group.iter().map(Row::cells).collect();
        table::write(out, ["", "FROM", "TO", "    TIME", "SEEN"], &cells)?;
    }
    Ok(())
}

pub(super) fn readable(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
