//! Names the class of clients that a request comes from, such as the CDN that sends it.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use super::access_rules::{AddressList, FileSecrets, RequiredHeader};
use super::rate_limit::RateLimit;
use super::{CertificateNames, RequiredCertificate};

/// A class of clients.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientClass {
    /// The name in logs, metrics and rules.
    pub name: Arc<str>,
    /// Index into the tables of counters. A class keeps it over reloads; [`OTHER_CLASS_INDEX`] is
    /// that of clients of no class.
    pub index: usize,
    /// A request with this header is of the class.
    pub header: Option<RequiredHeader>,
    /// A client with one of these addresses is of the class.
    pub addresses: Option<AddressList>,
    /// How much all its clients together may request.
    pub rate_limit: Option<RateLimit>,
    /// A client with such a certificate is of the class.
    pub certificate: Option<RequiredCertificate>,
}

/// What tells the class of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientTraits<'r> {
    /// `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// Whom its certificate names, if it has one.
    pub certificate: Option<&'r CertificateNames>,
    /// The fields of the request.
    pub headers: &'r HeaderMap,
    /// The secrets that files contain now.
    pub secrets: &'r FileSecrets,
}

/// The name of the class of all clients that are of no other.
pub const OTHER_CLASS: &str = "other";
/// Its index.
pub const OTHER_CLASS_INDEX: usize = 0;

impl ClientClass {
    /// A class without clients.
    pub fn named(name: impl Into<Arc<str>>, index: usize) -> ClientClass {
        ClientClass {
            name: name.into(),
            index,
            header: None,
            addresses: None,
            rate_limit: None,
            certificate: None,
        }
    }

    fn has(&self, client: ClientTraits<'_>) -> bool {
        let has_header = |header: &RequiredHeader| header.is_in(client.headers, client.secrets);
        let has_address = |addresses: &AddressList| addresses.has(client.address);
        let is_named = |required: &RequiredCertificate| required.admits(client.certificate);
        self.header.as_ref().is_some_and(has_header)
            || self.addresses.as_ref().is_some_and(has_address)
            || self.certificate.as_ref().is_some_and(is_named)
    }
}

/// All classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientClasses {
    /// In the order in which they are tried.
    classes: Vec<Arc<ClientClass>>,
    /// `None`: there are no classes.
    other: Option<Arc<ClientClass>>,
}

impl ClientClasses {
    /// These classes, in the order in which they are tried.
    pub fn of(classes: Vec<ClientClass>) -> ClientClasses {
        let other = || Arc::new(ClientClass::named(OTHER_CLASS, OTHER_CLASS_INDEX));
        ClientClasses {
            other: (!classes.is_empty()).then(other),
            classes: classes.into_iter().map(Arc::new).collect(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The name of the class of other clients, if there are classes.
    pub fn other_name(&self) -> Option<&str> {
        self.other.as_deref().map(|class| &*class.name)
    }

    /// All but that of other clients.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ClientClass>> {
        self.classes.iter()
    }

    /// The same, to be numbered.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut ClientClass> {
        self.classes.iter_mut().map(Arc::make_mut)
    }

    /// The class of a request: the first that has it. `None`: there are no classes.
    pub fn class_of(&self, client: ClientTraits<'_>) -> Option<&Arc<ClientClass>> {
        let mut classes = self.classes.iter();
        let class = classes.find(|class| class.has(client));
        class.or(self.other.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use http::HeaderValue;

    use super::super::access_rules::AddressListEntry;
    use super::*;

    fn by_header(name: &str, file: &str) -> ClientClass {
        ClientClass {
            header: Some(RequiredHeader {
                name: "x-cdn".parse().unwrap(),
                secret_files: vec![PathBuf::from(file)],
            }),
            ..ClientClass::named(name, 1)
        }
    }

    fn by_address(name: &str, network: &str) -> ClientClass {
        let entry = AddressListEntry::Network(network.parse().unwrap());
        ClientClass {
            addresses: Some([entry].into_iter().collect()),
            ..ClientClass::named(name, 2)
        }
    }

    fn name_of(classes: &ClientClasses, address: &str, secret: Option<&'static str>) -> String {
        let secrets = [("a", "secret-a"), ("b", "secret-b")];
        let secrets = secrets.map(|(file, text)| (file.into(), HeaderValue::from_static(text)));
        let value = secret.map(HeaderValue::from_static);
        let headers = HeaderMap::from_iter(value.map(|value| ("x-cdn".parse().unwrap(), value)));
        let class = classes.class_of(ClientTraits {
            address: Some(address.parse().unwrap()),
            certificate: None,
            headers: &headers,
            secrets: &secrets.into_iter().collect(),
        });
        class.map_or_else(String::new, |class| class.name.to_string())
    }

    #[test]
    fn first_class_that_has_the_request_is_its_class() {
        let classes = ClientClasses::of(vec![
            by_header("one", "a"),
            by_address("two", "192.0.2.0/24"),
            by_header("three", "b"),
        ]);
        assert_eq!(name_of(&classes, "192.0.2.1", Some("secret-a")), "one");
        assert_eq!(name_of(&classes, "192.0.2.1", Some("secret-b")), "two");
        assert_eq!(name_of(&classes, "192.0.3.1", Some("secret-b")), "three");
        assert_eq!(name_of(&classes, "192.0.3.1", Some("secret-c")), "other");
        assert_eq!(name_of(&classes, "192.0.3.1", None), "other");
    }

    #[test]
    fn class_has_what_its_header_or_its_addresses_have() {
        let class = ClientClass {
            addresses: by_address("", "192.0.2.0/24").addresses,
            ..by_header("cdn", "a")
        };
        let classes = ClientClasses::of(vec![class]);
        assert_eq!(name_of(&classes, "192.0.2.1", None), "cdn");
        assert_eq!(name_of(&classes, "192.0.3.1", Some("secret-a")), "cdn");
        assert_eq!(name_of(&classes, "192.0.3.1", None), "other");
    }

    #[test]
    fn class_has_what_its_certificate_names_and_nobody_without_one() {
        let class = ClientClass {
            certificate: Some(RequiredCertificate::Named(["edge".to_owned()].into())),
            ..ClientClass::named("cdn", 1)
        };
        let classes = ClientClasses::of(vec![class]);
        let name_of = |names: Option<&[&str]>| {
            let certificate = names.map(|names| names.iter().copied().collect());
            let class = classes.class_of(ClientTraits {
                address: None,
                certificate: certificate.as_ref(),
                headers: &HeaderMap::new(),
                secrets: &FileSecrets::default(),
            });
            class.map_or_else(String::new, |class| class.name.to_string())
        };
        assert_eq!(name_of(Some(&["edge"])), "cdn");
        assert_eq!(name_of(Some(&["other"])), "other");
        assert_eq!(name_of(None), "other");
    }

    #[test]
    fn request_has_no_class_where_there_are_none() {
        assert_eq!(name_of(&ClientClasses::default(), "192.0.2.1", None), "");
    }
}
