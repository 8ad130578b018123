//! Substitutes variables in a playlist (`EXT-X-DEFINE`, rfc8216bis §4.3). Only values that the
//! playlist itself states: others come from a request's query or from another playlist.

use super::syntax::attribute;
use crate::limits::NAME_BYTES_MAX;

/// Most variables kept.
const VARIABLES_MAX: usize = 64;

/// Names and values.
#[derive(Default)]
pub(super) struct Variables<'a> {
    values: Vec<(&'a str, &'a str)>,
}

impl<'a> Variables<'a> {
    /// `EXT-X-DEFINE`.
    pub(super) fn take(&mut self, list: &'a str) {
        let named = attribute(list, "NAME").zip(attribute(list, "VALUE"));
        if self.values.len() < VARIABLES_MAX {
            self.values.extend(named);
        }
    }

    /// A URI with its variables substituted. `None` if it is empty or too long, or a variable is
    /// unknown.
    pub(super) fn fill(&self, uri: &str) -> Option<String> {
        if uri.len() > NAME_BYTES_MAX {
            return None;
        }
        // Most URIs have no variable. A search for one byte is far cheaper than for `{$`.
        if !uri.contains('{') {
            return (!uri.is_empty()).then(|| uri.to_owned());
        }
        let mut filled = String::new();
        let mut rest = uri;
        while let Some((before, after)) = rest.split_once("{$") {
            let (name, after) = after.split_once('}')?;
            let (_, value) = self.values.iter().find(|(known, _)| *known == name)?;
            filled.push_str(before);
            filled.push_str(value);
            if filled.len() > NAME_BYTES_MAX {
                return None;
            }
            rest = after;
        }
        filled.push_str(rest);
        let fits = !filled.is_empty() && filled.len() <= NAME_BYTES_MAX;
        let is_whole = fits && !filled.contains("{$");
        is_whole.then_some(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutes_variables_the_playlist_defines() {
        let mut variables = Variables::default();
        for list in [
            "NAME=\"auth\",VALUE=\"t=1&u={2}\"",
            "VALUE=\"live/hd\",NAME=\"dir\"",
            "NAME=\"nested\",VALUE=\"{$dir}\"",
            "QUERYPARAM=\"session\"",
            "IMPORT=\"other\"",
        ] {
            variables.take(list);
        }
        for (uri, filled) in [
            ("a.ts", Some("a.ts")),
            ("{$dir}/a.ts?{$auth}", Some("live/hd/a.ts?t=1&u={2}")),
            ("{$dir}{$dir}", Some("live/hdlive/hd")),
            ("a{b}$c.ts", Some("a{b}$c.ts")),
            ("a.ts?{$session}", None),
            ("{$other}/a.ts", None),
            ("{$nested}/a.ts", None),
            ("{$dir", None),
            ("", None),
        ] {
            assert_eq!(variables.fill(uri).as_deref(), filled, "{uri}");
        }
    }

    #[test]
    fn variable_substitution_is_limited_in_length() {
        let value = "x".repeat(1000);
        let list = format!("NAME=\"a\",VALUE=\"{value}\"");
        let mut variables = Variables::default();
        variables.take(&list);
        assert!(variables.fill(&"{$a}".repeat(4)).is_some());
        assert_eq!(variables.fill(&"{$a}".repeat(5)), None);
        variables.take("NAME=\"e\",VALUE=\"\"");
        assert_eq!(
            variables.fill(&format!("a{}", "{$e}".repeat(1 << 20))),
            None
        );
        assert_eq!(variables.fill(&"a".repeat(NAME_BYTES_MAX + 1)), None);
    }
}
