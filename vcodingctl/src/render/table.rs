//! Listings: a header, then rows in columns, each as wide as its widest cell.

use super::ink::{Ink, Style};
use super::text::{one_line, shortened, width};

/// A cell: cleaned text, and its style if it has one.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: one_line(text.as_ref()), style: None }
    }

    pub fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { style: Some(style), ..Self::new(text) }
    }
}

/// The lines. The last column is not padded, and cut where the terminal ends (`columns`).
pub fn table(header: &[&str], rows: &[Vec<Cell>], ink: Ink, columns: Option<usize>) -> Vec<String> {
    let mut widths: Vec<usize> = header.iter().map(|h| width(h)).collect();
    for row in rows {
        for (wide, cell) in widths.iter_mut().zip(row) {
            *wide = (*wide).max(width(&cell.text));
        }
    }
    let header: Vec<Cell> = header.iter().map(|h| Cell::styled(h, Style::Dim)).collect();
    std::iter::once(&header).chain(rows).map(|row| line(row, &widths, ink, columns)).collect()
}

fn line(cells: &[Cell], widths: &[usize], ink: Ink, columns: Option<usize>) -> String {
    let mut out = String::new();
    let mut used = 0;
    let last = cells.iter().rposition(|c| !c.text.is_empty()).unwrap_or(0);
    for (n, cell) in cells.iter().take(last + 1).enumerate() {
        // A terminal too narrow for anything is left to wrap.
        let room = columns.filter(|c| *c > used + 8).map_or(usize::MAX, |c| c - used);
        let text = if n + 1 == cells.len() { shortened(&cell.text, room) } else { cell.text.clone() };
        match cell.style {
            Some(style) => out.push_str(&ink.paint(style, &text)),
            None => out.push_str(&text),
        }
        if n < last {
            let pad = widths[n].saturating_sub(width(&text)) + 2;
            out.extend(std::iter::repeat_n(' ', pad));
            used += width(&text) + pad;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(rows: &[Vec<Cell>], columns: Option<usize>) -> Vec<String> {
        table(&["N", "M", "O"], rows, Ink(false), columns)
    }

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows = [
            vec![Cell::new("日本"), Cell::new("long"), Cell::new("")],
            vec![Cell::new("bcd"), Cell::new("x"), Cell::new("y")],
        ];
        assert_eq!(plain(&rows, None), ["N     M     O", "日本  long", "bcd   x     y"]);
    }

    #[test]
    fn colour_does_not_shift_columns_and_the_last_one_is_cut_at_the_terminals_edge() {
        let rows = [vec![Cell::styled("a", Style::Red), Cell::new("b\nc"), Cell::new("0123456789abcdef")]];
        assert_eq!(plain(&rows, Some(18))[1], "a  b c  012345678…");
        let coloured = &table(&["N", "M", "O"], &rows, Ink(true), None)[1];
        assert_eq!(coloured, "\x1b[31ma\x1b[0m  b c  0123456789abcdef");
    }
}
