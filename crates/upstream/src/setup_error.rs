//! Why an origin group could not be created.

use std::path::PathBuf;

/// Why a group could not be created.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The CA file is unreadable.
    #[error("cannot read {path}: {source}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system's CA certificates, or some of the file's, cannot be used.
    #[error("cannot load the certificate authorities to trust")]
    Authorities,
    /// A header file contains no valid value.
    #[error("cannot use {path} for a header: {why}")]
    HeaderFile {
        /// The file.
        path: PathBuf,
        /// The reason, without quoting the file.
        why: String,
    },
    /// The client certificate or its key cannot be used.
    #[error("cannot use the client certificate {path}: {why}")]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No AWS region is known for an endpoint.
    #[error("no AWS region is known to sign requests to {host}")]
    Region {
        /// The endpoint.
        host: String,
    },
    /// Not a valid `Host` value.
    #[error("{host:?} cannot be sent as Host")]
    Host {
        /// The rejected value.
        host: String,
    },
}
