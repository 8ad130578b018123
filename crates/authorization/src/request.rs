//! What tokens are compared with: the request as its client sent it, without the token. A path is
//! compared as sent: nothing is decoded, joined or changed in case.

use std::net::IpAddr;

use ipnet::IpNet;

use super::TokenRejection;
use super::separated::split_once;

/// The parts of a request that a token can be bound to.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// `http` or `https`, as the client used it.
    pub scheme: &'a str,
    /// The host in lower case, without a port.
    pub host: &'a str,
    /// The port. `None`: the default one of the scheme.
    pub port: Option<u16>,
    /// Path and query as sent, without the token: [`FoundToken::target`](super::FoundToken).
    pub target: &'a str,
    /// The client's address. A client on a Unix socket has none.
    pub client: Option<IpAddr>,
    /// The protocol that TLS negotiated (ALPN). `None`: none, or no TLS.
    pub protocol: Option<&'a str>,
}

impl<'a> TokenRequest<'a> {
    /// The target up to the query.
    pub fn path(&self) -> &'a str {
        split_once(self.target, b'?').map_or(self.target, |(path, _)| path)
    }

    /// What follows the path, without the question mark.
    pub fn query(&self) -> &'a str {
        split_once(self.target, b'?').map_or("", |(_, query)| query)
    }

    pub(crate) fn is_from(&self, networks: &[IpNet]) -> bool {
        // A listener for both families sees IPv4 clients in IPv6 form.
        let client = self.client.map(|address| address.to_canonical());
        client.is_some_and(|client| networks.iter().any(|network| network.contains(&client)))
    }

    /// Refuses paths that an origin may resolve to another path than the compared one.
    pub(crate) fn check_path(&self) -> Result<(), TokenRejection> {
        if has_dot_segments(self.path()) {
            return Err(TokenRejection::Url);
        }
        Ok(())
    }
}

/// Whether `path` is `prefix`, or below it: a prefix ends at the end of a segment.
pub(crate) fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

/// Whether one of the segments is `.` or `..`, also in encoded form. An encoded slash counts as
/// one, and so does a backslash: some origins take them for it. Some leave out what follows a
/// semicolon.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    let mut previous = b'/';
    let is_plain = path.bytes().all(|byte| {
        let starts_with_dot = previous == b'/' && byte == b'.';
        previous = byte;
        !starts_with_dot && !matches!(byte, b'%' | b'\\')
    });
    if is_plain {
        return false;
    }
    let mut is_dots_only = true;
    let mut dots = 0;
    let mut bytes = path.as_bytes();
    while let [first, rest @ ..] = bytes {
        let (byte, rest) = match bytes {
            [b'%', b'2', b'e' | b'E', rest @ ..] => (b'.', rest),
            [b'%', b'2', b'f' | b'F', rest @ ..] | [b'%', b'5', b'c' | b'C', rest @ ..] => {
                (b'/', rest)
            }
            [b'%', b'3', b'b' | b'B', rest @ ..] => (b';', rest),
            _ if *first == b'\\' => (b'/', rest),
            _ => (*first, rest),
        };
        bytes = rest;
        match byte {
            b'/' => {
                if is_dots_only && (1..=2).contains(&dots) {
                    return true;
                }
                (is_dots_only, dots) = (true, 0);
            }
            b'.' => dots += 1,
            b';' if is_dots_only && (1..=2).contains(&dots) => return true,
            _ => is_dots_only = false,
        }
    }
    is_dots_only && (1..=2).contains(&dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment() {
        for (path, prefix, expected) in [
            ("/live", "/live", true),
            ("/live/a", "/live", true),
            ("/live/a", "/live/", true),
            ("/lively", "/live", false),
            ("/live", "/live/", false),
            ("/liv", "/live", false),
            ("/a", "/", true),
            ("/live%2Fa", "/live", false),
            ("/LIVE/a", "/live", false),
        ] {
            assert_eq!(is_below(path, prefix), expected, "{path} below {prefix}");
        }
    }

    #[test]
    fn finds_dot_segments_in_every_form() {
        for path in [
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/.",
            "/%2e%2E/b",
            "/.%2e/b",
            "/a%2f..%2Fb",
            "/a\\..\\b",
            "/a%5c..",
            "..",
            "/a/..;b/c",
            "/.;",
            "/..%3B",
        ] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in [
            "/",
            "",
            "/...",
            "/a..b",
            "/a./b",
            "/.a",
            "/a.m3u8",
            "/%2e%2e%2e",
            "//a",
        ] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }
}
