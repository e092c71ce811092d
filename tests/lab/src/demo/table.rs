//! Columns of text.

use std::io::{self, Write};

/// Writes rows under a header, each column as wide as its widest cell.
///
/// # Errors
/// If the terminal has gone.
pub(super) fn write<const N: usize>(
    out: &mut impl Write,
    header: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(out, &header.map(str::to_owned), &widths)?;
    rows.iter().try_for_each(|row| line(out, row, &widths))
}

fn line(out: &mut impl Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
    let mut text = String::from(" ");
    for (cell, width) in cells.iter().zip(widths) {
        text += &format!(" {cell:<width$} ");
    }
    writeln!(out, "{}", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [["web", "1"], ["card-gateway", "2"]].map(|row| row.map(str::to_owned));
        write(&mut out, ["POD", "N"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "  POD           N\n  web           1\n  card-gateway  2\n"
        );
    }
}
