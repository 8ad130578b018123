//! Why a key is no key.

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
