//! Whom a viewer's certificate must name.

use std::sync::Arc;

/// Whom a verified certificate names, and nothing that is unverified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames(Vec<String>);

impl<'n> FromIterator<&'n str> for CertificateNames {
    fn from_iter<I: IntoIterator<Item = &'n str>>(names: I) -> CertificateNames {
        CertificateNames(names.into_iter().map(str::to_owned).collect())
    }
}

/// Which certificates let viewers in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequiredCertificate {
    /// All that an authority of the listener has issued.
    Any,
    /// Those that name one of these.
    Named(Arc<[String]>),
}

impl RequiredCertificate {
    /// Whether a viewer with this certificate may enter. Without TLS there is none.
    pub fn admits(&self, certificate: Option<&CertificateNames>) -> bool {
        let Some(CertificateNames(names)) = certificate else {
            return false;
        };
        match self {
            RequiredCertificate::Any => true,
            RequiredCertificate::Named(required) => {
                let is_required = |name: &String| {
                    let mut required = required.iter();
                    required.any(|required| is_same_name(required, name))
                };
                names.iter().any(is_required)
            }
        }
    }
}

/// DNS names have no case; the paths of URIs have.
fn is_same_name(one: &str, other: &str) -> bool {
    if one.contains(':') {
        one == other
    } else {
        one.eq_ignore_ascii_case(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_who_is_named_and_nobody_without_a_certificate() {
        let named = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned());
            RequiredCertificate::Named(names.collect())
        };
        let certificate: CertificateNames = ["edge.cdn.example", "spiffe://cdn/edge"]
            .into_iter()
            .collect();
        for (required, is_admitted) in [
            (RequiredCertificate::Any, true),
            (named(&["Edge.CDN.example"]), true),
            (named(&["other", "spiffe://cdn/edge"]), true),
            (named(&["spiffe://cdn/Edge"]), false),
            (named(&["cdn.example"]), false),
            (named(&["*.cdn.example"]), false),
            (named(&[""]), false),
        ] {
            assert_eq!(
                required.admits(Some(&certificate)),
                is_admitted,
                "{required:?}"
            );
            assert!(!required.admits(None));
        }
        let nameless = CertificateNames::default();
        assert!(RequiredCertificate::Any.admits(Some(&nameless)));
        assert!(!named(&[""]).admits(Some(&nameless)));
    }
}
