//! Why a source returned no credentials, and whether the next source is tried.

/// Why a source returned no credentials.
#[derive(Debug)]
pub(super) struct CredentialError {
    /// It is not expected to have any: the next source is tried. A source that should have
    /// credentials but fails is retried instead, so that requests are not signed under another
    /// identity.
    pub(super) absent: bool,
    /// A short reason that quotes no response.
    pub(super) why: String,
}

impl CredentialError {
    pub(super) fn absent(why: impl Into<String>) -> CredentialError {
        let why = why.into();
        CredentialError { absent: true, why }
    }

    pub(super) fn broken(why: impl Into<String>) -> CredentialError {
        let why = why.into();
        CredentialError { absent: false, why }
    }
}
