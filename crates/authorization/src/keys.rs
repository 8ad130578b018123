//! What the file of a key contains, and why a key is no key.

/// A key in PEM begins so.
const PEM: &[u8] = b"-----BEGIN";

/// Whether the file of a key has it in PEM. That is a public key: no secret.
pub fn is_pem(content: &[u8]) -> bool {
    content.starts_with(PEM)
}

/// Takes the line end off that an editor leaves after a key. Each other byte of a secret counts.
pub fn strip_line_end(content: &mut Vec<u8>) {
    for end in [b'\n', b'\r'] {
        content.pop_if(|last| *last == end);
    }
}

/// Why keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key id has no bytes, too many of them, or others than allowed.
    #[error("a key id is 1 to 64 letters, digits, `-` and `_`")]
    Id,
    /// Two keys have the same id.
    #[error("two keys have the same id")]
    RepeatedId,
    /// The secret is too short to be one.
    #[error("the secret has less than 32 bytes")]
    ShortSecret,
    /// The public key is not one for ES256.
    #[error("the public key is not in PEM (`BEGIN PUBLIC KEY`), or not of the curve P-256")]
    PublicKey,
}
