//! The files that the connections of a group are made with: trusted authorities and a client
//! certificate. Checked before pingora reads them, and compared by content, not by name.

use std::path::Path;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::{Settings, SetupError};

/// CA file for groups without TLS: trusts no CA and avoids reading the system's certificates.
const NO_AUTHORITIES: &str = "/dev/null";

/// The TLS files of a group. Equal ones had the same content when they were read.
#[derive(PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// `None`: those of the system.
    authorities: Option<StampedFile>,
    /// The certificate chain and its key.
    certificate: Option<(StampedFile, StampedFile)>,
}

/// A file and its content, as a hash.
#[derive(PartialEq, Eq)]
struct StampedFile {
    path: String,
    hash: [u8; SHA256_OUTPUT_LEN],
}

impl StampedFile {
    fn new(path: String, content: &[u8]) -> StampedFile {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, content).as_ref());
        StampedFile { path, hash }
    }
}

impl TlsFiles {
    /// Reads and checks the files.
    pub(crate) fn read(settings: &Settings) -> Result<TlsFiles, SetupError> {
        let authorities = if settings.endpoints.iter().any(|endpoint| endpoint.tls) {
            settings.ca_file.as_deref().map(authorities).transpose()?
        } else {
            Some(StampedFile::new(NO_AUTHORITIES.to_owned(), &[]))
        };
        let certificate = match &settings.client_certificate {
            None => None,
            Some(certificate) => {
                let [chain, key] = certificate.files()?;
                Some((
                    StampedFile::new(chain.path, &chain.content),
                    StampedFile::new(key.path, &key.content),
                ))
            }
        };
        Ok(TlsFiles {
            authorities,
            certificate,
        })
    }

    /// As pingora expects it.
    pub(crate) fn authorities_path(&self) -> Option<String> {
        self.authorities.as_ref().map(|file| file.path.clone())
    }

    /// The same for the client certificate and its key.
    pub(crate) fn certificate_paths(&self) -> Option<(String, String)> {
        let certificate = self.certificate.as_ref();
        certificate.map(|(chain, key)| (chain.path.clone(), key.path.clone()))
    }
}

/// Checks that a file contains certificates.
fn authorities(path: &Path) -> Result<StampedFile, SetupError> {
    let check = || {
        let text = std::fs::read(path)?;
        let invalid = |why: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        let mut certificates = CertificateDer::pem_slice_iter(&text);
        match certificates.next() {
            None => return Err(invalid("no certificate in it")),
            Some(Err(_)) => return Err(invalid("not in PEM form")),
            Some(Ok(_)) => {}
        }
        let path = path.to_str().ok_or_else(|| invalid("not a UTF-8 path"))?;
        Ok(StampedFile::new(path.to_owned(), &text))
    };
    check().map_err(|source| SetupError::CaFile {
        path: path.to_owned(),
        source,
    })
}
