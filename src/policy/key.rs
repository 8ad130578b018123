//! Under which name is an answer held? Exactly what is sent to the origin, length-framed; the few
//! fields that are sent and not in it are listed in [`super::headers::upstream`].

use std::fmt;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Route;
use super::vary::Vary;

/// A cache key. Cheap to clone; the same bytes are the same object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// Frames parts so that no two different lists of parts make the same bytes.
    pub fn of(parts: &[&[u8]]) -> Key {
        let mut bytes = Vec::with_capacity(
            parts
                .iter()
                .map(|part| part.len() + size_of::<usize>())
                .sum(),
        );
        for part in parts {
            bytes.extend_from_slice(&part.len().to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Key(bytes.into())
    }

    /// Of what is asked of an origin: the group, the host where it is sent, the target, and the
    /// viewer's fields that the route forwards, if the request has any of them.
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

    /// The framed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A short name for logs: the same in every process, unlike the tables' seeded hashes.
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

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
