//! Checks certificates and keys: reads PEM files as listeners and origins will read them later.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Why a certificate and its key cannot be used together, by file.
#[derive(Debug)]
pub(super) enum PemError {
    /// The certificate's file.
    Certificate(String),
    /// The key's file.
    Key(String),
    /// Both are valid, but they do not belong together.
    Mismatch,
}

/// Checks a certificate chain and its key.
pub(super) fn check_pair(certificate: &Path, key: &Path) -> Vec<PemError> {
    let mut faults = Vec::new();
    let chain = certificates(certificate).map_err(|why| faults.push(PemError::Certificate(why)));
    let key = private_key(key).map_err(|why| faults.push(PemError::Key(why)));
    if let (Ok(chain), Ok(key)) = (chain, key) {
        match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => faults.push(PemError::Mismatch),
            Err(rustls::Error::InvalidCertificate(why)) => {
                faults.push(PemError::Certificate(format!(
                    "not a usable certificate: {why:?}"
                )));
            }
            Err(why) => faults.push(PemError::Key(format!("not a usable key: {why}"))),
        }
    }
    faults
}

/// A certificate that expires sooner causes a warning.
const EXPIRY_WARNING: Duration = Duration::from_hours(30 * 24);

/// Why a certificate will not be valid for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateExpiry {
    #[error("this certificate has expired, {0} days ago")]
    Expired(u64),
    #[error("this certificate expires in {0} days")]
    Soon(u64),
    #[error("this certificate is not valid before {0} days from now")]
    NotYet(u64),
}

/// Checks the dates of a file's first certificate. Unreadable files are [`check_pair`]'s problem.
pub(super) fn expiry(path: &Path, now: SystemTime) -> Option<CertificateExpiry> {
    const DAY: u64 = 24 * 3600;
    let chain = certificates(path).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let validity = certificate.validity();
    let at = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let (from, until) = (at(validity.not_before), at(validity.not_after));
    if until < now {
        Some(CertificateExpiry::Expired((now - until) / DAY))
    } else if until - now < EXPIRY_WARNING.as_secs() {
        Some(CertificateExpiry::Soon((until - now) / DAY))
    } else if now < from {
        Some(CertificateExpiry::NotYet((from - now).div_ceil(DAY)))
    } else {
        None
    }
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

/// Reads a file of at most 1 MiB: no file that a configuration names is larger.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_of_certificates_that_expire_soon() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2030, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2030, 12, 31);
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(&file, certificate.pem()).unwrap();
        let start: SystemTime = rcgen::date_time_ymd(2030, 1, 1).into();
        let days = |days: i64| {
            let shift = Duration::from_hours(24) * u32::try_from(days.abs()).unwrap();
            if days < 0 {
                start - shift
            } else {
                start + shift
            }
        };
        let expiry_after_days = |at: i64| expiry(&file, days(at));
        assert_eq!(expiry_after_days(-2), Some(CertificateExpiry::NotYet(2)));
        assert_eq!(expiry_after_days(100), None);
        assert_eq!(expiry_after_days(350), Some(CertificateExpiry::Soon(14)));
        assert_eq!(expiry_after_days(370), Some(CertificateExpiry::Expired(6)));
        assert_eq!(expiry(Path::new("/nowhere"), start), None);
    }
}
