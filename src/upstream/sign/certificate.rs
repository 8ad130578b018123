//! What is shown to an origin that asks who is there? A certificate and its key, checked before
//! pingora is given their files: it would show nothing where it finds none, and panic at others.

use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::upstream::SetupError;

/// The files of a certificate, with those it needs to be believed, and of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate chain.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

impl ClientCertificate {
    /// Checks both files, and names them as pingora wants them.
    pub(in crate::upstream) fn files(&self) -> Result<(String, String), SetupError> {
        let (certificate, key) = (&self.certificate, &self.key);
        let read = |path: &Path| std::fs::read(path).map_err(|why| refused(path, &why));
        let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<Result<_, _>>();
        let chain: Vec<_> = chain.map_err(|why| refused(certificate, &why))?;
        if chain.is_empty() {
            return Err(refused(certificate, &"no certificate in it"));
        }
        // What PEM's errors would quote may be of the key.
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
