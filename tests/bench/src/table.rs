//! Rows as people read them.

use std::fmt::Write;

use crate::Row;

/// A table, one line a row, aligned, with a heading.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let heading = [
        "what", "Berth", "peer", "unit", "peer is", "ratio", "target", "spread", "met",
    ];
    let mut lines = vec![heading.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        [
            row.name.clone(),
            figure(row.ours),
            figure(row.peer),
            row.unit.clone(),
            row.peer_name.clone(),
            format!("{:.3}", row.ratio),
            row.target.to_string(),
            format!("{:.0} %", row.spread * 100.0),
            if row.met { "yes" } else { "NO" }.to_owned(),
        ]
    }));

    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, (column, &width)) in line.iter().zip(widths.iter().enumerate()) {
            // Numbers are read from the right.
            let written = if [1, 2, 5, 7].contains(&column) {
                write!(row, "{cell:>width$}  ")
            } else {
                write!(row, "{cell:<width$}  ")
            };
            written.expect("writing to a string cannot fail");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// Three or four digits that matter, whatever the size.
fn figure(value: f64) -> String {
    match value.abs() {
        x if x >= 100.0 => format!("{value:.0}"),
        x if x >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Samples, Target};

    #[test]
    fn the_table_is_aligned_and_says_what_was_missed() {
        let row = |name: &str, ours: f64| {
            Row::new(
                name,
                "connections/s",
                &Samples::from(vec![ours]),
                ("direct to the pod", &Samples::from(vec![20_000.0])),
                Target::AtLeast(0.97),
            )
        };
        let text = table(&[row("ClusterIP, TCP", 19_900.0), row("x", 1.5)]);
        assert_eq!(
            text,
            "what            Berth   peer  unit           peer is            ratio  target   spread  met\n\
             ClusterIP, TCP  19900  20000  connections/s  direct to the pod  0.995  >= 0.97     0 %  yes\n\
             x                1.50  20000  connections/s  direct to the pod  0.000  >= 0.97     0 %  NO\n"
        );
    }

    #[test]
    fn figures_keep_their_digits() {
        assert_eq!(figure(19_900.4), "19900");
        assert_eq!(figure(12.345), "12.35");
        assert_eq!(figure(0.01234), "0.0123");
    }
}
