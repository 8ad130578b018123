//! Decides who may enter a route: by the viewer's address, its certificate, and a header with a
//! secret. The rules name the token that a route demands too; whether a request has one is decided
//! above.
//!
//! The secrets are an argument, as the time is: their files change, and a decision here is a pure
//! function.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
pub use ipnet::IpNet;
use subtle::{Choice, ConstantTimeEq};

use super::{CertificateNames, RequiredCertificate, RequiredToken};

/// The access rules of a route. By default everyone may enter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// Only these viewers may enter. `None`: all.
    pub allow: Option<AddressList>,
    /// These viewers may not enter, also if `allow` has them. `None`: nobody.
    pub deny: Option<AddressList>,
    /// Only requests with this header may enter.
    pub require_header: Option<RequiredHeader>,
    /// Only requests of these client classes may enter. `None`: of all.
    pub client_classes: Option<Vec<Arc<str>>>,
    /// Only viewers with such a certificate may enter.
    pub require_certificate: Option<RequiredCertificate>,
    /// Only requests with such a token may enter.
    pub token: Option<Arc<RequiredToken>>,
}

/// The rule that refused a request: both the metric label and what an operator looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRuleKind {
    /// `allow` or `deny`: the viewer's address.
    Address,
    /// `require_header`: the header is missing, or has another value.
    Header,
    /// `client_classes`: the client is of another class.
    ClientClass,
    /// `require_certificate`: the viewer has none, or one that names somebody else.
    Certificate,
    /// `token`: it is missing, not valid, or for something else.
    Token,
}

impl AccessRuleKind {
    /// All, in the order of [`AccessRuleKind::index`].
    pub const ALL: [AccessRuleKind; 5] = [
        AccessRuleKind::Address,
        AccessRuleKind::Header,
        AccessRuleKind::ClientClass,
        AccessRuleKind::Certificate,
        AccessRuleKind::Token,
    ];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessRuleKind::Address => "address",
            AccessRuleKind::Header => "header",
            AccessRuleKind::ClientClass => "client_class",
            AccessRuleKind::Certificate => "certificate",
            AccessRuleKind::Token => "token",
        }
    }
}

impl AccessRules {
    /// Whether everyone may enter.
    pub fn is_open(&self) -> bool {
        *self == AccessRules::default()
    }

    /// The rule that refuses a viewer's request, tokens apart. `None`: it may enter. A viewer on a
    /// Unix socket has no address.
    pub fn refused_by(
        &self,
        address: Option<IpAddr>,
        (class, certificate): (Option<&str>, Option<&CertificateNames>),
        headers: &HeaderMap,
        secrets: &FileSecrets,
    ) -> Option<AccessRuleKind> {
        if !self.admits_address(address) {
            return Some(AccessRuleKind::Address);
        }
        let required = self.require_certificate.as_ref();
        if required.is_some_and(|required| !required.admits(certificate)) {
            return Some(AccessRuleKind::Certificate);
        }
        let required = self.require_header.as_ref();
        let is_missing = required.is_some_and(|header| !header.is_in(headers, secrets));
        if is_missing {
            return Some(AccessRuleKind::Header);
        }
        let admitted = self.client_classes.as_ref();
        let is_admitted =
            |class: &str| admitted.is_some_and(|all| all.iter().any(|one| **one == *class));
        let is_other = admitted.is_some() && !class.is_some_and(is_admitted);
        is_other.then_some(AccessRuleKind::ClientClass)
    }

    pub(super) fn admits_address(&self, address: Option<IpAddr>) -> bool {
        let is_allowed = self.allow.as_ref().is_none_or(|list| list.has(address));
        let is_denied = self.deny.as_ref().is_some_and(|list| list.has(address));
        is_allowed && !is_denied
    }

    pub(super) fn has_address_lists(&self) -> bool {
        self.allow.is_some() || self.deny.is_some()
    }
}

/// One entry of an address list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressListEntry {
    /// A network, or a single address.
    Network(IpNet),
    /// Viewers on Unix sockets, which have no address.
    UnixSocket,
}

/// As the configuration has it: a network of one address is written as the address.
impl fmt::Display for AddressListEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressListEntry::Network(network)
                if network.prefix_len() == network.max_prefix_len() =>
            {
                network.addr().fmt(f)
            }
            AddressListEntry::Network(network) => network.fmt(f),
            AddressListEntry::UnixSocket => f.write_str("unix"),
        }
    }
}

/// A list of networks. An IPv4 address in IPv6 form counts as IPv4, as that of a viewer of a
/// listener for both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressList {
    /// In ascending order, none inside another one.
    networks: Vec<IpNet>,
    has_unix_sockets: bool,
}

impl AddressList {
    /// The entries in ascending order, without those inside another one.
    pub fn entries(&self) -> impl Iterator<Item = AddressListEntry> {
        let networks = self.networks.iter().copied().map(AddressListEntry::Network);
        let unix = self
            .has_unix_sockets
            .then_some(AddressListEntry::UnixSocket);
        networks.chain(unix)
    }

    /// Whether the list has an address; that of a Unix socket is `None`.
    pub fn has(&self, address: Option<IpAddr>) -> bool {
        let Some(address) = address.map(|address| address.to_canonical()) else {
            return self.has_unix_sockets;
        };
        // No networks overlap, so only the last one that begins before the address may have it.
        // Lists of CDNs have hundreds.
        let later = self
            .networks
            .partition_point(|network| network.network() <= address);
        let last = later.checked_sub(1).map(|index| &self.networks[index]);
        last.is_some_and(|network| network.contains(&address))
    }
}

impl FromIterator<AddressListEntry> for AddressList {
    fn from_iter<I: IntoIterator<Item = AddressListEntry>>(entries: I) -> AddressList {
        let mut list = AddressList::default();
        for entry in entries {
            match entry {
                AddressListEntry::Network(network) => list.networks.push(network.trunc()),
                AddressListEntry::UnixSocket => list.has_unix_sockets = true,
            }
        }
        // A network comes before those inside it.
        list.networks
            .sort_unstable_by_key(|network| (network.network(), network.prefix_len()));
        list.networks
            .dedup_by(|later, earlier| earlier.contains(&*later));
        list
    }
}

/// A header that proves who sends a request: its value is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredHeader {
    /// The name. The configuration forwards no header of this name.
    pub name: HeaderName,
    /// Each of these files contains a secret that is accepted: two while it is rotated.
    pub secret_files: Vec<PathBuf>,
}

impl RequiredHeader {
    /// Whether the request has the header once, with one of the secrets. A second value may come
    /// from someone who does not know the secret.
    pub(super) fn is_in(&self, headers: &HeaderMap, secrets: &FileSecrets) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        secrets.accept(&self.secret_files, value.as_bytes())
    }
}

/// The secrets that files contain now.
#[derive(Clone, Debug, Default)]
pub struct FileSecrets(HashMap<PathBuf, Secret, ahash::RandomState>);

impl FileSecrets {
    /// Whether this is the secret of one of the files.
    pub fn accept(&self, files: &[PathBuf], guess: &[u8]) -> bool {
        let accepted = files.iter().filter_map(|file| self.0.get(file));
        // In constant time, and without an early end: how long it takes must not say how much of
        // the secret was right, or which of them.
        let is_accepted = accepted.fold(Choice::from(0), |found, secret| found | secret.is(guess));
        is_accepted.into()
    }
}

impl FromIterator<(PathBuf, HeaderValue)> for FileSecrets {
    fn from_iter<I: IntoIterator<Item = (PathBuf, HeaderValue)>>(secrets: I) -> FileSecrets {
        let secrets = secrets.into_iter();
        FileSecrets(
            secrets
                .map(|(file, value)| (file, Secret::of(value.as_bytes())))
                .collect(),
        )
    }
}

/// What a file contains. `Debug` shows nothing of it.
#[derive(Clone)]
struct Secret {
    /// With zeros up to a multiple of [`SECRET_BLOCK_BYTES`].
    padded: Box<[u8]>,
    length: usize,
}

/// Secrets of up to so many bytes cannot be told apart by how long a comparison takes.
const SECRET_BLOCK_BYTES: usize = 256;

impl Secret {
    fn of(bytes: &[u8]) -> Secret {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(SECRET_BLOCK_BYTES), 0);
        Secret {
            padded: padded.into(),
            length: bytes.len(),
        }
    }

    /// Compares as many bytes as the guess has: its sender learns neither the bytes nor the length
    /// of the secret from the time that this takes.
    fn is(&self, guess: &[u8]) -> Choice {
        let compared = guess.len().min(self.padded.len());
        let has_same_bytes = self.padded[..compared].ct_eq(&guess[..compared]);
        has_same_bytes & (self.length as u64).ct_eq(&(guess.len() as u64))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests;
