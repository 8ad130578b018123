//! Finds the known name that a misspelt one probably means.

/// The known name nearest to `written`, if the distance is small enough.
pub(super) fn nearest<'n>(
    written: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    let folded = fold(written);
    known
        .into_iter()
        .map(|name| (distance(&folded, &fold(name)), name))
        .filter(|(steps, name)| *steps * 3 <= name.chars().count().max(3))
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, name)| name)
}

/// Ignores case and the difference between `-` and `_`.
fn fold(name: &str) -> Vec<char> {
    name.chars()
        .map(|c| {
            if c == '-' {
                '_'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// The edit distance: insertions, deletions, replacements and swaps of neighbours.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(a != b);
            let mut steps = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                steps = steps.min(rows[i - 1][j - 1] + 1);
            }
            row.push(steps);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_typing_errors_only() {
        let known = ["connections_max", "idle_timeout", "listen", "tls"];
        assert_eq!(nearest("conections_max", known), Some("connections_max"));
        assert_eq!(nearest("idle-timeout", known), Some("idle_timeout"));
        assert_eq!(nearest("lsiten", known), Some("listen"));
        assert_eq!(nearest("TLS", known), Some("tls"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn counts_single_edits() {
        let steps = |a: &str, b: &str| distance(&fold(a), &fold(b));
        assert_eq!(steps("abc", "abc"), 0);
        assert_eq!(steps("abc", "acb"), 1);
        assert_eq!(steps("abc", "ab"), 1);
        assert_eq!(steps("", "abc"), 3);
    }
}
