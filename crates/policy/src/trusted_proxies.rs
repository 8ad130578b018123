//! Finds the viewer of a request that came through proxies: the last address in a header field that
//! no trusted proxy has.
//!
//! Each proxy appends the address that it sees. So the field is read from its end, and only as far
//! as trusted proxies wrote it: what is before that, the viewer may have invented.

use std::net::{IpAddr, SocketAddr};

use super::access_rules::AddressList;

/// The field in which proxies say where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientField {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ClientField {
    /// The name of the field, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            ClientField::XForwardedFor => "x-forwarded-for",
            ClientField::Forwarded => "forwarded",
        }
    }
}

/// The proxies in front of this server that say where a request comes from. By default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Their addresses. `None`: there are no proxies.
    pub addresses: Option<AddressList>,
    /// The one field that all of them write. Another one would be the viewer's own.
    pub field: ClientField,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewerAddress {
    /// The viewer. `None`: on a Unix socket.
    pub viewer: Option<IpAddr>,
    /// The other end of the connection, if that is a proxy that has an address.
    pub proxy: Option<IpAddr>,
}

impl TrustedProxies {
    /// Whether this is the address of a proxy. A Unix socket has none.
    pub fn has(&self, address: Option<IpAddr>) -> bool {
        let proxies = self.addresses.as_ref();
        proxies.is_some_and(|proxies| proxies.has(address))
    }

    /// Where a request comes from. `lines` are the lines of the field, the last one first.
    #[inline]
    pub fn viewer_of<'l, L>(
        &self,
        connection: ViewerAddress,
        lines: impl FnOnce(ClientField) -> L,
    ) -> ViewerAddress
    where
        L: Iterator<Item = &'l [u8]>,
    {
        if self.addresses.is_none() || !self.has(connection.viewer) {
            return connection;
        }
        ViewerAddress {
            viewer: self.last_untrusted(connection.viewer, lines(self.field)),
            proxy: connection.proxy.or(connection.viewer),
        }
    }

    /// The last address that is not of a proxy. What is no address hides whoever is before it: the
    /// proxy that wrote it stands for them.
    fn last_untrusted<'l>(
        &self,
        connection: Option<IpAddr>,
        lines: impl Iterator<Item = &'l [u8]>,
    ) -> Option<IpAddr> {
        let mut last_proxy = connection;
        for mut line in lines {
            while !line.is_empty() {
                let (before, element) = split_last_element(line, self.field);
                line = before;
                if element.is_empty() {
                    continue;
                }
                let node = match self.field {
                    ClientField::XForwardedFor => Some(element),
                    ClientField::Forwarded => forwarded_for(element),
                };
                let Some(address) = node.and_then(address_of_node) else {
                    return last_proxy;
                };
                if !self.has(Some(address)) {
                    return Some(address);
                }
                last_proxy = Some(address);
            }
        }
        last_proxy
    }
}

/// The last element of a list, and what is before it. Read from its end: a quote that a viewer left
/// open cannot hide what a proxy has appended.
fn split_last_element(line: &[u8], field: ClientField) -> (&[u8], &[u8]) {
    let is_comma = |at: usize| line[at] == b',';
    let comma = match field {
        ClientField::XForwardedFor => (0..line.len()).rev().find(|&at| is_comma(at)),
        ClientField::Forwarded => {
            let mut is_quoted = false;
            (0..line.len()).rev().find(|&at| {
                is_quoted ^= line[at] == b'"' && !is_escaped(line, at);
                !is_quoted && is_comma(at)
            })
        }
    };
    let (before, element) = match comma {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (&line[..0], line),
    };
    (before, element.trim_ascii())
}

fn is_escaped(line: &[u8], at: usize) -> bool {
    let backslashes = line[..at].iter().rev().take_while(|&&byte| byte == b'\\');
    backslashes.count() % 2 == 1
}

/// The value of the parameter `for`, without quotes. `None`: there is none, or several.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let parameters = element.split(|&byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'"' if !was_escaped => is_quoted = !is_quoted,
            b'\\' => is_escaped = is_quoted && !was_escaped,
            _ => {}
        }
        byte == b';' && !is_quoted
    });
    let mut values = parameters.filter_map(|parameter| {
        let (name, value) = parameter.trim_ascii().split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
    });
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    match value {
        [b'"', inside @ .., b'"'] => Some(inside),
        value => Some(value),
    }
}

/// An address with or without port, an IPv6 address also in brackets. Nothing else is taken for an
/// address: not `unknown`, not the invented names of RFC 7239.
fn address_of_node(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let in_brackets = || {
        let inside = text.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse().ok().map(IpAddr::V6)
    };
    let address = text.parse().ok().or_else(in_brackets);
    let address = address.or_else(|| text.parse().ok().as_ref().map(SocketAddr::ip));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests;
