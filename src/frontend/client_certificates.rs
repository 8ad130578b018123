//! Verifies the certificates of viewers, by authorities in a file that is read again when it
//! changes, and says whom they name.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::ClientAuthority;
use super::certificate_error::CertificateError;
use seawall_policy::CertificateNames;

/// Verifies viewers' certificates by the authorities that the file contains now.
pub(super) struct ViewerVerifier {
    is_required: bool,
    current: ArcSwap<Authorities>,
}

/// Whose certificates are valid.
pub(super) struct Authorities {
    roots: Arc<RootCertStore>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for ViewerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewerVerifier")
            .field("is_required", &self.is_required)
            .finish_non_exhaustive()
    }
}

impl ViewerVerifier {
    pub(super) fn read(
        authority: &ClientAuthority,
    ) -> Result<Arc<ViewerVerifier>, CertificateError> {
        Ok(Arc::new(ViewerVerifier {
            is_required: authority.is_required,
            current: ArcSwap::from_pointee(Authorities::read(authority)?),
        }))
    }

    /// Reads the file again.
    pub(super) fn reread(&self, authority: &ClientAuthority) -> Result<(), CertificateError> {
        let authorities = Authorities::read(authority)?;
        if authorities.roots.roots != self.current.load().roots.roots {
            self.current.store(Arc::new(authorities));
        }
        Ok(())
    }

    /// Others as soon as the file has others.
    pub(super) fn authorities(&self) -> Arc<Authorities> {
        self.current.load_full()
    }
}

impl Authorities {
    fn read(authority: &ClientAuthority) -> Result<Authorities, CertificateError> {
        let roots = Arc::new(read_authorities(&authority.ca)?);
        let provider = Arc::new(ring::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider);
        let builder = if authority.is_required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        // It fails only without roots.
        let verifier = builder.build();
        let verifier = verifier
            .map_err(|_| CertificateError::file(&authority.ca, &pem::Error::NoItemsFound))?;
        Ok(Authorities { roots, verifier })
    }
}

/// The authorities in a file. Blocks.
pub(crate) fn read_authorities(path: &Path) -> Result<RootCertStore, CertificateError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| CertificateError::file(path, &error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(certificate);
        added.map_err(|error| {
            let reason = format!("a certificate in it is none of an authority: {error}");
            CertificateError::file_for(path, reason)
        })?;
    }
    if roots.is_empty() {
        let reason = "it contains no certificate: put those of the authorities there, in PEM form";
        return Err(CertificateError::file_for(path, reason.to_owned()));
    }
    Ok(roots)
}

impl ClientCertVerifier for ViewerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    /// None: a viewer sends the certificate that it has. Hints could be those of another time.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.current.load();
        current
            .verifier
            .verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let current = self.current.load();
        current
            .verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let current = self.current.load();
        current
            .verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().verifier.supported_verify_schemes()
    }
}

/// Whom a verified certificate names: its DNS names and URIs. Its common name is only a text:
/// nobody checks it against what an authority may name (RFC 9525 §2, RFC 5280 §4.2.1.10).
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> CertificateNames {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return CertificateNames::default();
    };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives
        .into_iter()
        .flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some(*name),
            _ => None,
        })
        .collect()
}
