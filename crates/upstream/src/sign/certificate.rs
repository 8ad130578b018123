//! The client certificate and key for mutual TLS. They are checked here, because pingora sends none
//! if it finds none, and panics on invalid ones.

use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::SetupError;

/// The files of a client certificate with its chain, and of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate chain.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

impl ClientCertificate {
    /// Checks both files, and returns their paths as pingora expects them.
    pub(crate) fn files(&self) -> Result<(String, String), SetupError> {
        let (certificate, key) = (&self.certificate, &self.key);
        let read = |path: &Path| std::fs::read(path).map_err(|why| refused(path, &why));
        let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<Result<_, _>>();
        let chain: Vec<_> = chain.map_err(|why| refused(certificate, &why))?;
        if chain.is_empty() {
            return Err(refused(certificate, &"no certificate in it"));
        }
        // PEM errors may quote the key.
        let private = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|_| refused(key, &"no private key in it"))?;
        CertifiedKey::from_der(chain, private, &ring::default_provider())
            .map_err(|why| refused(key, &why))?;
        Ok((named(certificate)?, named(key)?))
    }
}

fn named(path: &Path) -> Result<String, SetupError> {
    let name = path.to_str().map(str::to_owned);
    name.ok_or_else(|| refused(path, &"not a UTF-8 path"))
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> SetupError {
    SetupError::ClientCertificate {
        path: path.to_owned(),
        why: why.to_string(),
    }
}
