//! AWS credentials: overwritten in memory when the last copy goes, and never printed.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

/// An access key, with a session token and an expiry where they are temporary. Copies share memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    expiry: Option<SystemTime>,
}

impl Credentials {
    /// `expiry`: from then on the credentials are not used.
    pub fn new(
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
        session_token: Option<String>,
        expiry: Option<SystemTime>,
    ) -> Credentials {
        Credentials(Arc::new(Parts {
            access_key_id: access_key_id.into(),
            secret_access_key: Zeroizing::new(secret_access_key.into()),
            session_token: session_token.map(Zeroizing::new),
            expiry,
        }))
    }

    pub(super) fn access_key_id(&self) -> &str {
        &self.0.access_key_id
    }

    pub(super) fn secret_access_key(&self) -> &str {
        &self.0.secret_access_key
    }

    pub(super) fn session_token(&self) -> Option<&str> {
        self.0.session_token.as_ref().map(|token| token.as_str())
    }

    pub(super) fn expiry(&self) -> Option<SystemTime> {
        self.0.expiry
    }
}

impl Debug for Credentials {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.0.access_key_id)
            .field("expiry", &self.0.expiry)
            .finish_non_exhaustive()
    }
}
