//! Are the certificates usable? Reads PEM files as the listeners and origins will read them later.

use std::path::Path;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Why a certificate and its key cannot be used together, and which file is to blame.
#[derive(Debug)]
pub(super) enum PemFault {
    /// The certificate's file.
    Certificate(String),
    /// The key's file.
    Key(String),
    /// Both can be read, but they do not belong together.
    Mismatch,
}

/// Checks a certificate chain and its key.
pub(super) fn check_pair(certificate: &Path, key: &Path) -> Vec<PemFault> {
    let mut faults = Vec::new();
    let chain = certificates(certificate).map_err(|why| faults.push(PemFault::Certificate(why)));
    let key = private_key(key).map_err(|why| faults.push(PemFault::Key(why)));
    if let (Ok(chain), Ok(key)) = (chain, key) {
        match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => faults.push(PemFault::Mismatch),
            Err(rustls::Error::InvalidCertificate(why)) => {
                faults.push(PemFault::Certificate(format!(
                    "not a usable certificate: {why:?}"
                )));
            }
            Err(why) => faults.push(PemFault::Key(format!("not a usable key: {why}"))),
        }
    }
    faults
}

/// Reads the certificates of a PEM file: at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(chain) if chain.is_empty() => Err("no certificate in this file".to_owned()),
        Ok(chain) => Ok(chain),
        Err(why) => Err(format!("not a PEM file of certificates: {why}")),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|why| match why {
        rustls::pki_types::pem::Error::NoItemsFound => "no private key in this file".to_owned(),
        _ => "not a PEM file of a private key".to_owned(),
    })
}

/// Reads a file; at most a megabyte, because nothing a configuration names is larger.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    const BYTES_MAX: u64 = 1 << 20;
    let metadata = std::fs::metadata(path).map_err(|why| why.to_string())?;
    if !metadata.is_file() {
        return Err("this is not a plain file".to_owned());
    }
    if metadata.len() > BYTES_MAX {
        return Err("this file is larger than 1 MiB".to_owned());
    }
    std::fs::read(path).map_err(|why| why.to_string())
}
