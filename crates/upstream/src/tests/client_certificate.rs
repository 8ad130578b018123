//! An origin that requests a client certificate gets it; an invalid one is refused at startup.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tempfile::TempDir;

use super::tls::{answered, authority, secured_for, trusting};
use super::{no_lookup, origin, settings};
use crate::sign::ClientCertificate;
use crate::{Origin, Protocol, SetupError};

/// A CA for clients: issues their certificates, and verifies them.
fn clients() -> (Issuer<'static, KeyPair>, Arc<dyn ClientCertVerifier>) {
    let (issuer, file) = authority();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(file.path()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let passes = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    (issuer, passes.build().unwrap())
}

/// A client's certificate and key, as files.
fn shown(issuer: &Issuer<'static, KeyPair>) -> (TempDir, ClientCertificate) {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["shield.example".to_owned()]).unwrap();
    let pem = params.signed_by(&key, issuer).unwrap().pem();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let shown = ClientCertificate {
        certificate: file("shield.pem", &pem),
        key: file("shield.key", &key.serialize_pem()),
    };
    (folder, shown)
}

#[tokio::test]
async fn sends_client_certificate_to_origin_that_requests_it() {
    let (issuer, passes) = clients();
    let (_folder, shown) = shown(&issuer);
    let secured = secured_for(passes, &["h2", "http/1.1"]).await;
    let mut settings = trusting(&secured);
    settings.client_certificate = Some(shown);
    assert_eq!(answered(&origin(settings.clone())).await.unwrap(), "two");
    settings.protocol = Protocol::H1;
    assert_eq!(answered(&origin(settings.clone())).await.unwrap(), "one");
    // The client certificate is sent even if the origin's is not verified.
    settings.verify = false;
    assert_eq!(answered(&origin(settings)).await.unwrap(), "one");
}

#[tokio::test]
async fn fetch_fails_without_or_with_unknown_client_certificate() {
    let (_, passes) = clients();
    let (stranger, _) = clients();
    let (_folder, strange) = shown(&stranger);
    let secured = secured_for(passes, &[]).await;
    let mut settings = trusting(&secured);
    assert!(answered(&origin(settings.clone())).await.is_err());
    settings.client_certificate = Some(strange);
    assert!(answered(&origin(settings)).await.is_err());
}

#[test]
fn rejects_unusable_client_certificate_files_at_startup() {
    let (issuer, _) = clients();
    let (_folder, good) = shown(&issuer);
    let (_other_folder, other) = shown(&issuer);
    let refused = |certificate: &Path, key: &Path| {
        let mut settings = settings("192.0.2.1:443".parse().unwrap());
        settings.client_certificate = Some(ClientCertificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        });
        match Origin::new(settings, no_lookup()) {
            Err(SetupError::ClientCertificate { path, why }) => (path, why),
            other => panic!("{other:?}"),
        }
    };
    let (path, why) = refused(&good.key, &good.key);
    assert_eq!((path, &*why), (good.key.clone(), "no certificate in it"));
    let (path, why) = refused(&good.certificate, &good.certificate);
    assert_eq!(
        (path, &*why),
        (good.certificate.clone(), "no private key in it")
    );
    assert_eq!(refused(&good.certificate, &other.key).0, other.key);
    let gone = good.key.with_extension("gone");
    assert_eq!(refused(&gone, &good.key).0, gone);
}
