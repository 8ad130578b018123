//! Why certificates cannot be used, in words for operators.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or is not PEM.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A certificate and its key do not match.
    #[error("cannot use {} with {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
    /// rustls cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// No certificate is configured.
    #[error("no certificate is configured")]
    None,
}

impl CertificateError {
    /// Of a file that cannot be read.
    pub(super) fn file(path: &Path, error: &pem::Error) -> CertificateError {
        let reason = match error {
            pem::Error::Io(error) => error.to_string(),
            pem::Error::NoItemsFound => "it contains no PEM item of the expected kind".to_owned(),
            // Other errors quote the file, which may be a private key.
            _ => "it is not in PEM form".to_owned(),
        };
        CertificateError::file_for(path, reason)
    }

    /// Of a file that cannot be used for this reason.
    pub(super) fn file_for(path: &Path, reason: String) -> CertificateError {
        CertificateError::File {
            path: path.to_owned(),
            reason,
        }
    }
}
