//! Entity tags and their comparison (RFC 9110 §8.8.3).

/// `[ "W/" ] DQUOTE *etagc DQUOTE`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntityTag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Parses a value that is exactly one tag.
    pub(crate) fn of(value: &'a [u8]) -> Option<EntityTag<'a>> {
        let (tag, rest) = EntityTag::leading(value.trim_ascii())?;
        rest.is_empty().then_some(tag)
    }

    /// The tags of a list. Malformed parts are skipped up to the next comma and match nothing.
    pub(super) fn list(value: &'a [u8]) -> impl Iterator<Item = EntityTag<'a>> {
        let mut rest = value;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                rest = rest.trim_ascii_start();
                let tag = EntityTag::leading(rest);
                let after = tag.map_or(rest, |(_, after)| after);
                let (between, next) = match after.iter().position(|&byte| byte == b',') {
                    Some(comma) => (&after[..comma], &after[comma + 1..]),
                    None => (after, &[][..]),
                };
                rest = next;
                if let Some((tag, _)) = tag
                    && between.trim_ascii().is_empty()
                {
                    return Some(tag);
                }
            }
            None
        })
    }

    /// The tag at the start, and the rest. A tag has no escapes.
    fn leading(value: &'a [u8]) -> Option<(EntityTag<'a>, &'a [u8])> {
        let (weak, quoted) = match value.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, value),
        };
        let text = quoted.strip_prefix(b"\"")?;
        let end = text.iter().position(|&byte| byte == b'"')?;
        let opaque = &text[..end];
        let sound = opaque
            .iter()
            .all(|byte| matches!(byte, 0x21..=0x7e | 0x80..));
        sound.then_some((EntityTag { weak, opaque }, &text[end + 1..]))
    }

    /// Both are strong and equal (RFC 9110 §8.8.3.2).
    pub(crate) fn matches_strongly(self, other: EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Equal, ignoring weakness.
    pub(super) fn matches_weakly(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(one: &str, other: &str) -> Option<(bool, bool)> {
        let one = EntityTag::of(one.as_bytes())?;
        let other = EntityTag::of(other.as_bytes())?;
        Some((one.matches_strongly(other), one.matches_weakly(other)))
    }

    // The table of RFC 9110 §8.8.3.2.
    #[test]
    fn etag_comparison_is_weak_or_strong() {
        assert_eq!(compared("W/\"1\"", "W/\"1\""), Some((false, true)));
        assert_eq!(compared("W/\"1\"", "W/\"2\""), Some((false, false)));
        assert_eq!(compared("W/\"1\"", "\"1\""), Some((false, true)));
        assert_eq!(compared("\"1\"", "\"1\""), Some((true, true)));
    }

    // RFC 9110 §8.8.3: `W/` is case-sensitive, and blanks are no tag characters.
    #[test]
    fn malformed_etag_parses_to_none() {
        for value in ["", "1", "\"1", "w/\"1\"", "W/1", "\"a b\"", "\"1\" x", "*"] {
            assert_eq!(EntityTag::of(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn etag_list_allows_commas_inside_tags() {
        let list = |value: &'static str| EntityTag::list(value.as_bytes()).count();
        assert_eq!(list("\"a,b\" , W/\"c\",, \"\""), 3);
        assert_eq!(list("a, \"b\", \"c\" d, \"e"), 1);
        assert_eq!(list(" , "), 0);
    }
}
