//! Columns of text.

/// Lays out `rows` under `head`, each column as wide as its widest cell. The
/// last column is not padded, and no line ends in a space.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    line(&mut text, &widths, head.iter().copied());
    for row in rows {
        line(&mut text, &widths, row.iter().map(String::as_str));
    }
    text
}

fn line<'a>(text: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let mut whole = String::new();
    for (cell, width) in cells.zip(widths) {
        whole.push_str(cell);
        let gap = width - cell.chars().count() + 3;
        whole.extend(std::iter::repeat_n(' ', gap));
    }
    text.push_str(whole.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let row = |cells: [&str; 3]| cells.map(ToOwned::to_owned);
        let text = table(
            ["A", "LONG", "C"],
            &[row(["aaaa", "b", ""]), row(["", "", "c"])],
        );
        assert_eq!(text, "A      LONG   C\naaaa   b\n              c\n");
    }
}
