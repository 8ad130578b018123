//! Loads certificates from files, selects one by SNI, and reloads changed files.

use std::collections::HashMap;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate_error::CertificateError;
use super::client_certificates::ViewerVerifier;
use super::{CertificateFiles, ClientAuthority, Tls};

/// The certificates of one listener.
pub struct Certificates {
    files: Vec<CertificateFiles>,
    tls12: bool,
    client: Option<(ClientAuthority, Arc<ViewerVerifier>)>,
    store: ArcSwap<CertificateStore>,
    stamps: Mutex<Vec<FileStamp>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Loads all certificates; the first is the default.
    pub fn load(tls: &Tls) -> Result<Arc<Certificates>, CertificateError> {
        // Before reading: a file that changes meanwhile is then read again.
        let stamps = stamps(&tls.certificates, tls.client.as_ref());
        let store = CertificateStore::read(&tls.certificates)?;
        let client = tls.client.clone().map(|authority| {
            let verifier = ViewerVerifier::read(&authority)?;
            Ok::<_, CertificateError>((authority, verifier))
        });
        Ok(Arc::new(Certificates {
            files: tls.certificates.clone(),
            tls12: tls.tls12,
            client: client.transpose()?,
            store: ArcSwap::from_pointee(store),
            stamps: Mutex::new(stamps),
        }))
    }

    /// Reads the files again if one has changed. `Ok(true)`: what they contain is in use. An
    /// invalid file is reported once, and what it contained before stays in use. Blocks on file
    /// I/O.
    pub fn refresh(&self) -> Result<bool, CertificateError> {
        let client = self.client.as_ref();
        let now = stamps(&self.files, client.map(|(authority, _)| authority));
        if *self.stamps.lock() == now {
            return Ok(false);
        }
        *self.stamps.lock() = now;
        // Both: neither may keep the other from being renewed.
        let authorities = client.map_or(Ok(()), |(authority, verifier)| verifier.reread(authority));
        let store = CertificateStore::read(&self.files);
        let store = store.map(|store| self.store.store(Arc::new(store)));
        authorities.and(store).map(|()| true)
    }

    /// Whether TLS 1.2 is allowed.
    pub(super) fn tls12(&self) -> bool {
        self.tls12
    }

    /// What verifies viewers. `None`: they are not asked for a certificate.
    pub(super) fn viewer_verifier(&self) -> Option<&Arc<ViewerVerifier>> {
        self.client.as_ref().map(|(_, verifier)| verifier)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.store.load().choose(hello.server_name()))
    }
}

/// Certificates by name.
struct CertificateStore {
    default: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// The key is the name without `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl CertificateStore {
    fn read(files: &[CertificateFiles]) -> Result<CertificateStore, CertificateError> {
        let mut keys = Vec::with_capacity(files.len());
        for pair in files {
            keys.push(Arc::new(read_pair(pair)?));
        }
        let default = keys.first().ok_or(CertificateError::None)?.clone();
        let mut store = CertificateStore {
            default,
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        };
        for key in keys {
            for name in names(&key) {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut store.wildcard, parent.to_owned()),
                    None => (&mut store.exact, name),
                };
                // The first certificate with a name wins.
                names.entry(name).or_insert_with(|| key.clone());
            }
        }
        Ok(store)
    }

    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let key = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = name.split_once('.').map_or("", |(_, parent)| parent);
            self.exact
                .get(&name)
                .or_else(|| self.wildcard.get(parent))
                .cloned()
        });
        key.unwrap_or_else(|| self.default.clone())
    }
}

fn read_pair(pair: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    let chain = CertificateDer::pem_file_iter(&pair.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| CertificateError::file(&pair.certificate, &error))?;
    if chain.is_empty() {
        return Err(CertificateError::file(
            &pair.certificate,
            &pem::Error::NoItemsFound,
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&pair.key)
        .map_err(|error| CertificateError::file(&pair.key, &error))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|source| {
        CertificateError::Pair {
            certificate: pair.certificate.clone(),
            key: pair.key.clone(),
            source,
        }
    })
}

/// The DNS names of a certificate, in lower case.
fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = key.cert.first() else {
        return Vec::new();
    };
    match webpki::EndEntityCert::try_from(leaf) {
        Ok(certificate) => certificate
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect(),
        // A certificate without readable names can still be the default.
        Err(_) => Vec::new(),
    }
}

/// Inode, size and modification time of a file; `None` if it does not exist.
type FileStamp = Option<(u64, u64, i64, i64)>;

fn stamps(files: &[CertificateFiles], client: Option<&ClientAuthority>) -> Vec<FileStamp> {
    let paths = files.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let paths = paths.chain(client.map(|authority| &authority.ca));
    paths.map(|path| stamp(std::fs::metadata(path))).collect()
}

fn stamp(metadata: io::Result<Metadata>) -> FileStamp {
    let metadata = metadata.ok()?;
    Some((
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::test_support::CertificateDirectory;

    fn chosen(certificates: &Certificates, name: Option<&str>) -> CertificateDer<'static> {
        certificates.store.load().choose(name).cert[0].clone()
    }

    #[test]
    fn prefers_exact_names_then_wildcards_then_the_first_certificate() {
        let directory = CertificateDirectory::new();
        let default = directory.make("default", &["default.example"]);
        let wildcard = directory.make("wild", &["*.live.example"]);
        let exact = directory.make("exact", &["one.live.example"]);
        let tls = Tls {
            certificates: vec![default, wildcard, exact],
            tls12: true,
            client: None,
        };
        let certificates = Certificates::load(&tls).unwrap();
        let [default, wildcard, exact] =
            ["default", "wild", "exact"].map(|name| directory.certificate(name));
        assert_eq!(chosen(&certificates, Some("ONE.live.example")), exact);
        assert_eq!(chosen(&certificates, Some("two.live.example")), wildcard);
        assert_eq!(chosen(&certificates, Some("a.two.live.example")), default);
        assert_eq!(chosen(&certificates, Some("live.example")), default);
        assert_eq!(chosen(&certificates, None), default);
    }

    #[test]
    fn loads_a_changed_file_and_ignores_a_broken_one() {
        let directory = CertificateDirectory::new();
        let files = directory.make("a", &["a.example"]);
        let tls = Tls {
            certificates: vec![files.clone()],
            tls12: false,
            client: None,
        };
        let certificates = Certificates::load(&tls).unwrap();
        assert!(!certificates.refresh().unwrap(), "nothing has changed");

        directory.make("a", &["renewed.example"]);
        assert!(certificates.refresh().unwrap());
        let renewed = directory.certificate("a");
        assert_eq!(chosen(&certificates, None), renewed);

        std::fs::write(&files.certificate, "half a certifi").unwrap();
        let error = certificates.refresh().unwrap_err().to_string();
        assert!(
            error.contains(&files.certificate.display().to_string()),
            "{error}"
        );
        assert_eq!(chosen(&certificates, None), renewed, "the old one stays");
        assert!(!certificates.refresh().unwrap(), "reported once");
    }

    #[test]
    fn broken_authorities_keep_no_certificate_from_being_renewed() {
        let directory = CertificateDirectory::new();
        let files = directory.make("a", &["a.example"]);
        let ca = directory.make("authority", &["authority"]).certificate;
        let certificates = Certificates::load(&Tls {
            certificates: vec![files],
            tls12: false,
            client: Some(ClientAuthority {
                ca: ca.clone(),
                is_required: true,
            }),
        });
        let certificates = certificates.unwrap();
        let verifier = certificates.viewer_verifier().unwrap();
        let authorities = verifier.authorities();
        std::fs::write(&ca, "half a certifi").unwrap();
        directory.make("a", &["renewed.example"]);
        let error = certificates.refresh().unwrap_err().to_string();
        assert!(error.contains(&ca.display().to_string()), "{error}");
        assert_eq!(chosen(&certificates, None), directory.certificate("a"));
        assert!(Arc::ptr_eq(&verifier.authorities(), &authorities));
    }

    #[test]
    fn authorities_are_new_only_if_the_file_has_others() {
        let directory = CertificateDirectory::new();
        let ca = directory.make("authority", &["authority"]).certificate;
        let authority = ClientAuthority {
            ca: ca.clone(),
            is_required: true,
        };
        let verifier = ViewerVerifier::read(&authority).unwrap();
        let before = verifier.authorities();
        std::fs::write(&ca, std::fs::read(&ca).unwrap()).unwrap();
        verifier.reread(&authority).unwrap();
        assert!(Arc::ptr_eq(&verifier.authorities(), &before));
        directory.make("authority", &["other"]);
        verifier.reread(&authority).unwrap();
        assert!(!Arc::ptr_eq(&verifier.authorities(), &before));
    }

    #[test]
    fn rejects_the_key_of_another_certificate() {
        let directory = CertificateDirectory::new();
        let mut files = directory.make("a", &["a.example"]);
        files.key = directory.make("b", &["b.example"]).key;
        let error = Certificates::load(&Tls {
            certificates: vec![files],
            tls12: false,
            client: None,
        });
        assert!(
            matches!(error, Err(CertificateError::Pair { .. })),
            "{error:?}"
        );
    }
}
