//! The cache key: what is sent to the origin, length-framed. [`super::headers::upstream`] lists the
//! few fields that are sent and not in the key.

use std::fmt;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Route;
use super::vary::Vary;

/// A cache key. Cheap to clone. Equal bytes mean the same object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// Frames the parts, so that different lists of parts never have equal bytes.
    pub fn of(parts: &[&[u8]]) -> Key {
        /// Nearly all keys are shorter: these are framed without an allocation besides the key.
        const ON_STACK_BYTES: usize = 256;
        let bytes = parts
            .iter()
            .map(|part| part.len() + size_of::<PartLength>());
        let bytes = bytes.sum();
        if bytes > ON_STACK_BYTES {
            let mut framed = vec![0; bytes];
            frame(parts, &mut framed);
            return Key(framed.into());
        }
        let mut framed = [0; ON_STACK_BYTES];
        frame(parts, &mut framed);
        Key(Arc::from(&framed[..bytes]))
    }

    /// The key of a request: origin group, host if it is sent, target, and the viewer's forwarded
    /// fields, if there are any.
    pub(super) fn of_target(
        route: &Route,
        host: Option<&HeaderValue>,
        target: &PathAndQuery,
        forwarded: Option<&HeaderMap>,
    ) -> Key {
        let origin = route.origin.as_bytes();
        let host = host.map_or(&[][..], HeaderValue::as_bytes);
        let target = target.as_str().as_bytes();
        let Some(forwarded) = forwarded else {
            return Key::of(&[origin, host, target]);
        };
        let mut names: Vec<_> = forwarded.keys().cloned().collect();
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        let listed = names.iter().map(HeaderName::as_str).collect::<Vec<_>>();
        let values = Vary::values(&names, forwarded);
        Key::of(&[origin, host, target, listed.join(",").as_bytes(), &values])
    }

    /// The parts of the request that this key, or the key it is derived from (variant, slice,
    /// version), was built from.
    pub fn request_parts(&self) -> Option<KeyParts<'_>> {
        request_parts(&self.0)
    }

    /// The directory of the request; see
    /// [`CacheRequest::directory`](super::access::CacheRequest::directory).
    pub fn directory(&self) -> Option<Key> {
        let parts = self.request_parts()?;
        let path = parts.target.split(|byte| *byte == b'?').next()?;
        let end = path.iter().rposition(|byte| *byte == b'/');
        let directory = end.map_or(&path[..0], |end| &path[..=end]);
        Some(Key::of(&[parts.origin, parts.host, directory]))
    }

    /// A key that another process has built: these are its framed bytes.
    pub fn from_bytes(bytes: &[u8]) -> Key {
        Key(bytes.into())
    }

    /// The framed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A short name for logs. It is the same in every process, unlike the hash tables' seeded
    /// hashes.
    pub fn fingerprint(&self) -> u64 {
        const SEEDS: [u64; 4] = [
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
        ];
        ahash::RandomState::with_seeds(SEEDS[0], SEEDS[1], SEEDS[2], SEEDS[3]).hash_one(&self.0)
    }
}

/// The parts of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParts<'k> {
    /// The origin group.
    pub origin: &'k [u8],
    /// The host if it is sent; otherwise empty.
    pub host: &'k [u8],
    /// Path and query; for a directory its path.
    pub target: &'k [u8],
}

/// The length of a part, before the part.
type PartLength = u32;

/// Writes each part after its length; `framed` has room for that.
fn frame(parts: &[&[u8]], framed: &mut [u8]) {
    let mut at = 0;
    let mut write = |bytes: &[u8]| {
        framed[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    for part in parts {
        // All parts have limits far below the maximum.
        let length = PartLength::try_from(part.len()).unwrap_or(PartLength::MAX);
        write(&length.to_be_bytes());
        write(part);
    }
}

fn request_parts(bytes: &[u8]) -> Option<KeyParts<'_>> {
    let (first, rest) = part(bytes)?;
    let (second, rest) = part(rest)?;
    // A derived key has as its second part the key that it is derived from, where other keys have
    // the host. A key begins with a length, whose first byte is zero; a host never does.
    if second.first() == Some(&0) {
        return request_parts(second);
    }
    let (target, _) = part(rest)?;
    Some(KeyParts {
        origin: first,
        host: second,
        target,
    })
}

/// Splits off the first part of framed bytes.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(PartLength::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn derived_keys_have_the_parts_of_the_request() {
        let target = b"/live/a.m3u8?x=1";
        let parts = KeyParts {
            origin: b"main",
            host: b"",
            target,
        };
        let key = Key::of(&[b"main", b"", target]);
        let forwarded = Key::of(&[b"main", b"", target, b"x-token", b"1"]);
        let variant = Key::of(&[b"variant", key.bytes(), &[0; 8], b"gzip"]);
        let slice = Key::of(&[b"slice", variant.bytes(), b"\"1\"", &[0; 8]]);
        for key in [key, forwarded, variant, slice] {
            assert_eq!(key.request_parts(), Some(parts));
            assert_eq!(key.directory(), Some(Key::of(&[b"main", b"", b"/live/"])));
        }
        let named_so = Key::of(&[b"variant", b"h", b"/a", b"", b""]);
        assert_eq!(
            named_so.request_parts().map(|parts| parts.origin),
            Some(&b"variant"[..])
        );
        assert_eq!(Key::of(&[b"a"]).request_parts(), None);
    }

    #[test]
    fn keys_of_any_length_keep_their_parts() {
        for length in [0, 1, 200, 240, 250, 300, 70_000] {
            let target = vec![b'x'; length];
            let key = Key::of(&[b"main", b"host", &target]);
            let parts = key.request_parts().unwrap();
            assert_eq!((parts.origin, parts.host), (&b"main"[..], &b"host"[..]));
            assert_eq!(parts.target, target);
        }
    }

    proptest! {
        #[test]
        fn different_parts_make_different_keys(
            one in proptest::collection::vec("[a-c:/]{0,3}", 0..4),
            other in proptest::collection::vec("[a-c:/]{0,3}", 0..4),
        ) {
            let key = |parts: &[String]| {
                Key::of(&parts.iter().map(String::as_bytes).collect::<Vec<_>>())
            };
            prop_assert_eq!(one == other, key(&one) == key(&other));
        }
    }
}
