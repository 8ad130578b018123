//! Identifies requests that get the same response: their target, all fields that can change it, and
//! the class of the viewer's address.

use seawall_policy::IgnoredFields;

/// A body up to this size is copied for all requests that get the same response: it takes longer to
/// send a larger one than to look it up.
pub(super) const COPIED_BODY_MAX: usize = 64 << 10;

/// Appends a field to the key of a request, unless it cannot change the response. No target, name
/// or value has the bytes that separate them.
pub(super) fn write_field(key: &mut Vec<u8>, ignored: &IgnoredFields, name: &str, value: &[u8]) {
    if !ignored.contains(name) {
        key.push(b'\n');
        key.extend_from_slice(name.as_bytes());
        key.push(b'\r');
        key.extend_from_slice(value);
    }
}

/// All of a request that can change its response.
#[derive(PartialEq, Eq)]
pub(super) struct RequestKey {
    /// The generation of settings whose ignored fields were left out.
    generation: u64,
    hash: u64,
    bytes: Box<[u8]>,
}

impl RequestKey {
    pub(super) fn of(generation: u64, hash: u64, bytes: &[u8]) -> RequestKey {
        RequestKey {
            generation,
            hash,
            bytes: bytes.into(),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of memory besides its own size.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn is_of(&self, hash: u64, bytes: &[u8]) -> bool {
        self.hash == hash && *self.bytes == *bytes
    }
}
