//! Divides viewers into classes by their addresses and certificates, so that a response to one
//! viewer is repeated only to viewers that may have it.

use std::net::IpAddr;

use super::{AccessRules, CertificateNames, RequiredCertificate, Rules};

/// Divides viewers by what all address lists and required certificates say of them. Two viewers of
/// one class may get the same response to the same request; two of different classes may not.
#[derive(Debug, Default)]
pub struct AddressClasses {
    rules: Vec<AccessRules>,
    certificates: Vec<RequiredCertificate>,
}

impl AddressClasses {
    /// The classes that the access rules of all routes and all classes of clients make.
    pub fn of(rules: &Rules) -> AddressClasses {
        let mut classes = AddressClasses::default();
        let of_routes = rules.routes.iter().map(|route| AccessRules {
            allow: route.access.allow.clone(),
            deny: route.access.deny.clone(),
            ..AccessRules::default()
        });
        let of_clients = rules.client_classes.iter().map(|class| AccessRules {
            allow: class.addresses.clone(),
            ..AccessRules::default()
        });
        for addresses in of_routes.chain(of_clients) {
            if addresses.has_address_lists() && !classes.rules.contains(&addresses) {
                classes.rules.push(addresses);
            }
        }
        let of_routes = rules.routes.iter();
        let of_routes = of_routes.filter_map(|route| route.access.require_certificate.as_ref());
        let of_clients = rules.client_classes.iter();
        let of_clients = of_clients.filter_map(|class| class.certificate.as_ref());
        for required in of_routes.chain(of_clients) {
            if !classes.certificates.contains(required) {
                classes.certificates.push(required.clone());
            }
        }
        classes
    }

    /// Appends the class of a viewer. All classes have the same number of bytes.
    pub fn write_class<'v>(
        &self,
        address: impl FnOnce() -> Option<IpAddr>,
        certificate: impl FnOnce() -> Option<&'v CertificateNames>,
        bytes: &mut Vec<u8>,
    ) {
        if !self.certificates.is_empty() {
            let certificate = certificate();
            let verdicts = self.certificates.iter();
            bytes.extend(verdicts.map(|required| u8::from(required.admits(certificate))));
        }
        if self.rules.is_empty() {
            return;
        }
        let address = address();
        let verdicts = self.rules.iter().map(|rules| rules.admits_address(address));
        bytes.extend(verdicts.map(u8::from));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Route;
    use super::super::access_rules::{AddressList, AddressListEntry};
    use super::*;

    fn list(network: &str) -> AddressList {
        let entry = AddressListEntry::Network(network.parse().unwrap());
        [entry].into_iter().collect()
    }

    fn classes(lists: &[(Option<AddressList>, Option<AddressList>)]) -> AddressClasses {
        let route = |(allow, deny): &(Option<AddressList>, Option<AddressList>)| {
            let mut route = Route::everything("origin");
            route.access.allow.clone_from(allow);
            route.access.deny.clone_from(deny);
            Arc::new(route)
        };
        AddressClasses::of(&Rules {
            routes: lists.iter().map(route).collect(),
            name: "shield".into(),
            trusted_proxies: crate::TrustedProxies::default(),
            client_classes: crate::ClientClasses::default(),
        })
    }

    fn class(classes: &AddressClasses, viewer: Option<&str>) -> Vec<u8> {
        let mut bytes = b"key".to_vec();
        let address = || viewer.map(|text| text.parse().unwrap());
        classes.write_class(address, || None, &mut bytes);
        bytes
    }

    #[test]
    fn viewers_of_one_class_have_the_same_verdict_on_every_route() {
        let classes = classes(&[
            (None, None),
            (Some(list("192.0.2.0/24")), None),
            (Some(list("192.0.2.0/24")), None),
            (None, Some(list("192.0.2.7/32"))),
        ]);
        let class = |viewer| class(&classes, viewer);
        assert_eq!(class(Some("192.0.2.1")), b"key\x01\x01");
        assert_eq!(class(Some("::ffff:192.0.2.1")), b"key\x01\x01");
        assert_eq!(class(Some("192.0.2.7")), b"key\x01\x00");
        assert_eq!(class(Some("192.0.3.1")), b"key\x00\x01");
        assert_eq!(class(None), b"key\x00\x01");
    }

    #[test]
    fn viewers_with_other_certificates_are_of_other_classes() {
        let mut classes = classes(&[(None, None)]);
        let named = RequiredCertificate::Named(["edge".to_owned()].into());
        classes.certificates = vec![RequiredCertificate::Any, named];
        let class = |names: Option<&[&str]>| {
            let names = names.map(|names| names.iter().copied().collect());
            let mut bytes = b"key".to_vec();
            classes.write_class(|| None, || names.as_ref(), &mut bytes);
            bytes
        };
        assert_eq!(class(Some(&["edge"])), b"key\x01\x01");
        assert_eq!(class(Some(&["other"])), b"key\x01\x00");
        assert_eq!(class(None), b"key\x00\x00");
    }

    #[test]
    fn all_viewers_are_of_one_class_without_lists() {
        let classes = classes(&[(None, None)]);
        assert_eq!(class(&classes, Some("192.0.2.1")), b"key");
        assert_eq!(class(&classes, None), b"key");
    }
}
