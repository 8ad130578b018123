//! The tags that an origin gives to a response: `Surrogate-Key`, `Cache-Tag`, and `Cache-Groups`
//! (RFC 9875). A purge of a tag drops all responses that have it.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, ListEntry, Parser};

use super::fields;
use super::key::Key;

static SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
static CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
static CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Maximum tags of a response. RFC 9875 §2.1 asks for 32 groups at least.
const TAGS_MAX: usize = 64;
/// Maximum length of a tag, in bytes. RFC 9875 §2.1 asks for 32 at least.
const TAG_BYTES_MAX: usize = 128;
/// Maximum length of all fields with tags, in bytes.
const FIELD_BYTES_MAX: usize = 8 << 10;

/// Where a response comes from: a tag belongs to an origin group, a cache group also to the host
/// that was sent.
#[derive(Clone, Copy, Debug)]
pub struct TagScope<'a> {
    /// The origin group.
    pub origin: &'a str,
    /// The host, if it is sent.
    pub host: &'a [u8],
}

impl TagScope<'_> {
    /// The key of a tag.
    pub fn tag(&self, tag: &[u8]) -> Key {
        Key::of(&[b"tag", self.origin.as_bytes(), tag])
    }

    /// The key of a cache group (RFC 9875).
    pub fn group(&self, group: &[u8]) -> Key {
        Key::of(&[b"group", self.origin.as_bytes(), self.host, group])
    }

    /// The key that stands for all tags of a response which has too many.
    pub fn overflow(&self) -> Key {
        Key::of(&[b"tags", self.origin.as_bytes()])
    }
}

/// The keys of a response's tags. A cache group is a tag too. `None`: it has no tags. Empty: it has
/// too many, or one that is too long.
pub fn tag_keys(headers: &HeaderMap, scope: TagScope<'_>) -> Option<Vec<Key>> {
    let fields = [&SURROGATE_KEY, &CACHE_TAG, &CACHE_GROUPS];
    let lines = fields.into_iter().flat_map(|field| headers.get_all(field));
    let bytes: usize = lines.map(HeaderValue::len).sum();
    if bytes == 0 {
        return None;
    }
    if bytes > FIELD_BYTES_MAX {
        return Some(Vec::new());
    }
    let groups = groups_in(headers, &CACHE_GROUPS);
    let words = headers.get_all(&SURROGATE_KEY).into_iter();
    let words = words.flat_map(|line| line.as_bytes().split(u8::is_ascii_whitespace));
    let words = words.filter(|word| !word.is_empty());
    let listed = headers.get_all(&CACHE_TAG).into_iter();
    let listed = listed.flat_map(|line| fields::split(line.as_bytes(), b','));
    let of_groups = groups.iter().map(String::as_bytes);
    let names: BTreeSet<&[u8]> = words.chain(listed).chain(of_groups).collect();
    if names.len() > TAGS_MAX || names.iter().any(|name| name.len() > TAG_BYTES_MAX) {
        return Some(Vec::new());
    }
    let tags = names.iter().map(|name| scope.tag(name));
    let of_groups = groups.iter().map(|group| scope.group(group.as_bytes()));
    let keys: Vec<Key> = tags.chain(of_groups).collect();
    (!keys.is_empty()).then_some(keys)
}

/// The keys of the cache groups that the response to an unsafe request invalidates: at most as many
/// as a response can have.
pub fn invalidated_groups(headers: &HeaderMap, scope: TagScope<'_>) -> Vec<Key> {
    let groups = groups_in(headers, &CACHE_GROUP_INVALIDATION);
    let groups = groups.iter().take(TAGS_MAX);
    groups.map(|group| scope.group(group.as_bytes())).collect()
}

/// Removes the fields with tags, which are for caches of the origin's operator.
pub fn remove_tags(headers: &mut HeaderMap) {
    for field in [
        &SURROGATE_KEY,
        &CACHE_TAG,
        &CACHE_GROUPS,
        &CACHE_GROUP_INVALIDATION,
    ] {
        headers.remove(field);
    }
}

/// The strings of a structured list; their parameters are ignored, and so is a malformed field.
fn groups_in(headers: &HeaderMap, field: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(field).into_iter();
    let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
    let parsed = Parser::parse_list(&lines.join(&b", "[..]));
    let members = parsed.unwrap_or_default().into_iter();
    let strings = members.filter_map(|member| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(text) => Some(text),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    });
    strings.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: TagScope<'static> = TagScope {
        origin: "o",
        host: b"h",
    };

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn keys(fields: &[(&'static str, &str)]) -> Option<Vec<Key>> {
        tag_keys(&headers(fields), SCOPE)
    }

    fn tags(names: &[&str]) -> Vec<Key> {
        names
            .iter()
            .map(|name| SCOPE.tag(name.as_bytes()))
            .collect()
    }

    #[test]
    fn reads_words_lists_and_groups() {
        assert_eq!(keys(&[]), None);
        assert_eq!(keys(&[("surrogate-key", "  ")]), None);
        assert_eq!(
            keys(&[("surrogate-key", "b  a a")]),
            Some(tags(&["a", "b"]))
        );
        assert_eq!(
            keys(&[("cache-tag", "a b, c,,"), ("cache-tag", "d")]),
            Some(tags(&["a b", "c", "d"]))
        );
        let mut of_group = tags(&["a;1"]);
        of_group.push(SCOPE.group(b"a;1"));
        assert_eq!(
            keys(&[("cache-groups", "\"a;1\";x=2, token, (\"z\")")]),
            Some(of_group)
        );
        assert_eq!(keys(&[("cache-groups", "\"open")]), None);
    }

    #[test]
    fn too_many_or_too_long_tags_overflow() {
        let many = |count: usize| {
            let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            names.join(" ")
        };
        let count = |value: &str| keys(&[("surrogate-key", value)]).map(|keys| keys.len());
        assert_eq!(count(&many(64)), Some(64));
        assert_eq!(count(&many(65)), Some(0));
        assert_eq!(count(&"x".repeat(128)), Some(1));
        assert_eq!(count(&"x".repeat(129)), Some(0));
        assert_eq!(count(&"x ".repeat(5000)), Some(0));
    }

    #[test]
    fn parameters_of_members_are_ignored() {
        let headers = headers(&[("cache-group-invalidation", "\"a\";b=\"c\", \"d\"")]);
        let expected = [SCOPE.group(b"a"), SCOPE.group(b"d")];
        assert_eq!(invalidated_groups(&headers, SCOPE), expected);
    }
}
