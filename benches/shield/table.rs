//! Text tables with columns of the smallest width.

/// A table under construction.
pub struct Table {
    rows: Vec<Vec<String>>,
}

/// Text columns; the others are figures, right-aligned.
const WORDS: usize = 2;

impl Table {
    /// With these headings.
    pub fn new(headings: &[&str]) -> Table {
        Table {
            rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// As text, with a line below the headings.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut lines: Vec<_> = self.rows.iter().map(|row| line(row, &widths)).collect();
        let rule: Vec<_> = widths.iter().map(|&width| "─".repeat(width)).collect();
        lines.insert(1, rule.join("  "));
        lines.join("\n")
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).enumerate();
    let set = cells.map(|(column, (cell, &width))| match column {
        ..WORDS => format!("{cell:width$}"),
        _ => format!("{cell:>width$}"),
    });
    set.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// A count with separated thousands.
pub fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
