//! An authority that issues certificates to viewers.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use rcgen::{CertifiedIssuer, SanType};

use super::viewer::ClientIdentity;

/// An authority that issues certificates to viewers.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Its own certificate is written into the file, in one step.
    pub fn new(file: &Path) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        let authority = Authority(authority.unwrap());
        let new = file.with_extension("new");
        std::fs::write(&new, authority.0.as_ref().pem()).unwrap();
        std::fs::rename(&new, file).unwrap();
        authority
    }

    /// A certificate that names who `change` says.
    pub fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> ClientIdentity {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        ClientIdentity::new(certificate.der().clone(), &key.serialize_der())
    }

    /// A certificate for a DNS name.
    pub fn issue_to(&self, name: &str) -> ClientIdentity {
        let name = SanType::DnsName(name.try_into().unwrap());
        self.issue(|params| params.subject_alt_names = vec![name])
    }
}
