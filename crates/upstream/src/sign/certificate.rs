//! The client certificate and key for mutual TLS. They are checked here, because pingora sends none
//! if it finds none, and panics on invalid ones.

use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::SetupError;

/// The files of a client certificate with its chain, and of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate chain.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// A file that was checked.
pub(crate) struct PemFile {
    /// As pingora expects it.
    pub(crate) path: String,
    pub(crate) content: Zeroizing<Vec<u8>>,
}

impl ClientCertificate {
    /// Checks both files, and returns the certificate chain and the key.
    pub(crate) fn files(&self) -> Result<[PemFile; 2], SetupError> {
        let (certificate, key) = (&self.certificate, &self.key);
        let read = |path: &Path| {
            let content = std::fs::read(path).map_err(|why| refused(path, &why));
            content.map(Zeroizing::new)
        };
        let (chain_text, key_text) = (read(certificate)?, read(key)?);
        let chain = CertificateDer::pem_slice_iter(&chain_text).collect::<Result<_, _>>();
        let chain: Vec<_> = chain.map_err(|why| refused(certificate, &why))?;
        if chain.is_empty() {
            return Err(refused(certificate, &"no certificate in it"));
        }
        // PEM errors may quote the key.
        let private = PrivateKeyDer::from_pem_slice(&key_text)
            .map_err(|_| refused(key, &"no private key in it"))?;
        CertifiedKey::from_der(chain, private, &ring::default_provider())
            .map_err(|why| refused(key, &why))?;
        let file = |path, content| {
            let path = named(path)?;
            Ok(PemFile { path, content })
        };
        Ok([file(certificate, chain_text)?, file(key, key_text)?])
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
