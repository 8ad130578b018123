//! Parses the header of the PROXY protocol, versions 1 and 2: what a proxy writes before the first
//! byte of a connection to say whose it is.
//!
//! The bytes after the header belong to the connection. So the parser says how many bytes are
//! certainly part of the header, and nobody reads more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first bytes of both versions tell them apart.
const FIRST_BYTES: usize = 8;
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const START_V1: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN\r\n`.
const LINE_BYTES_MIN: usize = 15;
const LINE_BYTES_MAX: usize = 107;
/// Signature, command, family, length.
const FIXED_BYTES: usize = 16;
/// More than proxies send: addresses have at most 216 bytes, the rest are extensions.
const REST_BYTES_MAX: usize = 2048;
const CRC32C: u8 = 0x03;

/// What the bytes received are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The beginning of a header that has at least so many bytes more.
    Incomplete(usize),
    /// A header. `None`: the proxy speaks for itself, or does not say for whom.
    Complete(Option<IpAddr>),
}

/// The bytes are no header of the PROXY protocol, or one that must not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidProxyHeader;

/// Reads the bytes received: never more than earlier calls asked for.
pub fn read_proxy_header(received: &[u8]) -> Result<ProxyHeader, InvalidProxyHeader> {
    if received.len() < FIRST_BYTES {
        return Ok(ProxyHeader::Incomplete(FIRST_BYTES - received.len()));
    }
    if received.starts_with(&SIGNATURE_V2[..FIRST_BYTES]) {
        read_version_2(received)
    } else if received.starts_with(START_V1) {
        read_version_1(received)
    } else {
        Err(InvalidProxyHeader)
    }
}

fn read_version_1(received: &[u8]) -> Result<ProxyHeader, InvalidProxyHeader> {
    let Some(line) = received.strip_suffix(b"\r\n") else {
        let has_line_break = received.contains(&b'\n');
        return match LINE_BYTES_MIN.saturating_sub(received.len()).max(1) {
            _ if has_line_break || received.len() >= LINE_BYTES_MAX => Err(InvalidProxyHeader),
            more => Ok(ProxyHeader::Incomplete(more)),
        };
    };
    let line = std::str::from_utf8(&line[START_V1.len()..]).map_err(|_| InvalidProxyHeader)?;
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(ProxyHeader::Complete(None));
    }
    let words: [Option<&str>; 5] = std::array::from_fn(|_| words.next());
    let [
        Some(source),
        Some(destination),
        Some(source_port),
        Some(port),
        None,
    ] = words
    else {
        return Err(InvalidProxyHeader);
    };
    let is_port =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let address = |text: &str| match family {
        Some("TCP4") => text.parse().map(IpAddr::V4).ok(),
        Some("TCP6") => text.parse().map(IpAddr::V6).ok(),
        _ => None,
    };
    match (address(source), address(destination)) {
        (Some(source), Some(_)) if is_port(source_port) && is_port(port) => {
            Ok(ProxyHeader::Complete(Some(source.to_canonical())))
        }
        _ => Err(InvalidProxyHeader),
    }
}

fn read_version_2(received: &[u8]) -> Result<ProxyHeader, InvalidProxyHeader> {
    let Some((fixed, rest)) = received.split_at_checked(FIXED_BYTES) else {
        return Ok(ProxyHeader::Incomplete(FIXED_BYTES - received.len()));
    };
    let Some(&[command, family, high, low]) = fixed.strip_prefix(SIGNATURE_V2) else {
        return Err(InvalidProxyHeader);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // Version 2; LOCAL is 0, PROXY is 1.
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(InvalidProxyHeader),
    };
    // The family is in the upper half, the transport in the lower one: any, stream or datagram.
    let address_bytes = match family {
        0x00 => 0,
        0x10..=0x12 => 12,
        0x20..=0x22 => 36,
        0x30..=0x32 => 216,
        _ if is_local => 0,
        _ => return Err(InvalidProxyHeader),
    };
    if length > REST_BYTES_MAX {
        return Err(InvalidProxyHeader);
    }
    match length.checked_sub(rest.len()) {
        Some(0) => {}
        Some(more) => return Ok(ProxyHeader::Incomplete(more)),
        None => return Err(InvalidProxyHeader),
    }
    // The proxy's own connection, or one of unknown origin: the rest has no meaning.
    if is_local || address_bytes == 0 {
        return Ok(ProxyHeader::Complete(None));
    }
    let Some((addresses, extensions)) = rest.split_at_checked(address_bytes) else {
        return Err(InvalidProxyHeader);
    };
    check_extensions(received, extensions)?;
    let v4 = || addresses.first_chunk().copied().map(Ipv4Addr::from_octets);
    let v6 = || addresses.first_chunk().copied().map(Ipv6Addr::from_octets);
    let source = match address_bytes {
        12 => v4().map(IpAddr::V4),
        36 => v6().map(|address| IpAddr::V6(address).to_canonical()),
        // A viewer on a Unix socket of the proxy's machine has no address.
        _ => None,
    };
    Ok(ProxyHeader::Complete(source))
}

/// Extensions have a type, a length of two bytes, and so many bytes. A checksum must be right.
fn check_extensions(header: &[u8], mut extensions: &[u8]) -> Result<(), InvalidProxyHeader> {
    while let [kind, high, low, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, later)) = rest.split_at_checked(length) else {
            return Err(InvalidProxyHeader);
        };
        if *kind == CRC32C {
            let start = header.len() - rest.len();
            let mut unsigned = header.to_vec();
            unsigned[start..start + length].fill(0);
            if value != crc32c(&unsigned).to_be_bytes() {
                return Err(InvalidProxyHeader);
            }
        }
        extensions = later;
    }
    if extensions.is_empty() {
        Ok(())
    } else {
        Err(InvalidProxyHeader)
    }
}

/// CRC-32C (RFC 9260 appendix A), bit by bit: a header has few bytes, and most have no checksum.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
    let of_byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, of_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as a connection does: no byte more than asked for. Returns the bytes that are left.
    fn read(mut bytes: &[u8]) -> Result<(Option<IpAddr>, &[u8]), InvalidProxyHeader> {
        let mut received = Vec::new();
        loop {
            match read_proxy_header(&received)? {
                ProxyHeader::Complete(source) => return Ok((source, bytes)),
                ProxyHeader::Incomplete(more) => {
                    let (read, rest) = bytes.split_at_checked(more).ok_or(InvalidProxyHeader)?;
                    assert!(more > 0);
                    received.extend_from_slice(read);
                    bytes = rest;
                }
            }
        }
    }

    fn source_of(header: &[u8]) -> Result<Option<IpAddr>, InvalidProxyHeader> {
        let with_request = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
        let (source, rest) = read(&with_request)?;
        assert_eq!(
            rest, b"GET / HTTP/1.1\r\n\r\n",
            "the request is not touched"
        );
        Ok(source)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE_V2[..], &[command, family], &length, rest].concat()
    }

    fn tcp4(extensions: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 1, 192, 0, 2, 9, 0x12, 0x67, 0, 80];
        version_2(0x21, 0x11, &[&addresses, extensions].concat())
    }

    #[test]
    fn version_1_names_the_source() {
        for (line, source) in [
            (
                "TCP4 192.0.2.1 192.0.2.9 4711 80",
                Some(address("192.0.2.1")),
            ),
            (
                "TCP6 2001:db8::1 2001:db8::9 65535 0",
                Some(address("2001:db8::1")),
            ),
            ("TCP6 ::ffff:192.0.2.1 ::1 1 2", Some(address("192.0.2.1"))),
            ("UNKNOWN", None),
            ("UNKNOWN ffff:f...f:ffff 65535", None),
        ] {
            let line = format!("PROXY {line}\r\n");
            assert_eq!(source_of(line.as_bytes()), Ok(source), "{line}");
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 16));
        assert_eq!(source_of(longest.as_bytes()), Ok(None));
    }

    #[test]
    fn version_1_is_read_strictly() {
        let too_long = format!("UNKNOWN {}", "x".repeat(LINE_BYTES_MAX - 15));
        for line in [
            "TCP4 192.0.2.1 192.0.2.9 4711",
            "TCP4 192.0.2.1 192.0.2.9 4711 80 x",
            "TCP4  192.0.2.1 192.0.2.9 4711 80",
            "TCP4 192.0.2.1 192.0.2.9 4711 65536",
            "TCP4 192.0.2.1 192.0.2.9 +1 80",
            "TCP4 192.0.2.1 192.0.2.9 -1 ",
            "TCP4 192.0.2.256 192.0.2.9 4711 80",
            "TCP4 192.0.2.1 2001:db8::9 4711 80",
            "TCP6 192.0.2.1 192.0.2.9 4711 80",
            "UDP4 192.0.2.1 192.0.2.9 4711 80",
            "tcp4 192.0.2.1 192.0.2.9 4711 80",
            "TCP4 192.0.2.1 192.0.2.9 4711 80\n",
            &too_long,
            "",
        ] {
            let line = format!("PROXY {line}\r\n");
            assert_eq!(
                source_of(line.as_bytes()),
                Err(InvalidProxyHeader),
                "{line}"
            );
        }
    }

    #[test]
    fn version_2_names_the_source() {
        assert_eq!(source_of(&tcp4(&[])), Ok(Some(address("192.0.2.1"))));
        assert_eq!(
            source_of(&tcp4(&[0x04, 0, 2, 1, 2])),
            Ok(Some(address("192.0.2.1")))
        );
        let v6: [u8; 16] = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        let addresses = [&v6[..], &[0; 20]].concat();
        let tcp6 = version_2(0x21, 0x21, &addresses);
        assert_eq!(source_of(&tcp6), Ok(Some(address("2001:db8::1"))));
        // QUIC at the proxy: the viewer's address is the same.
        let udp6 = version_2(0x21, 0x22, &addresses);
        assert_eq!(source_of(&udp6), Ok(Some(address("2001:db8::1"))));
    }

    #[test]
    fn proxy_that_names_nobody_speaks_for_itself() {
        for header in [
            version_2(0x20, 0x00, &[]),
            version_2(0x20, 0x11, &[1; 12]),
            version_2(0x20, 0xff, b"whatever"),
            version_2(0x21, 0x00, b"whatever"),
            version_2(0x21, 0x31, &[b'/'; 216]),
        ] {
            assert_eq!(source_of(&header), Ok(None), "{header:?}");
        }
    }

    #[test]
    fn version_2_is_read_strictly() {
        let mut large = vec![0x04, 0x08, 0x00];
        large.resize(REST_BYTES_MAX, 0);
        for header in [
            version_2(0x11, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            version_2(0x21, 0x41, &[0; 12]),
            version_2(0x21, 0x13, &[0; 12]),
            version_2(0x21, 0x11, &[0; 11]),
            version_2(0x21, 0x21, &[0; 35]),
            tcp4(&[0x04, 0, 3, 1, 2]),
            tcp4(&[0x04, 0]),
            tcp4(&large),
        ] {
            assert_eq!(source_of(&header), Err(InvalidProxyHeader), "{header:?}");
        }
        let mut misspelt = tcp4(&[]);
        misspelt[11] = b'\r';
        assert_eq!(source_of(&misspelt), Err(InvalidProxyHeader));
    }

    #[test]
    fn checksum_must_be_right() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut header = tcp4(&[0x03, 0, 4, 0, 0, 0, 0, 0x04, 0, 1, 7]);
        let checksum = crc32c(&header).to_be_bytes();
        let start = FIXED_BYTES + 12 + 3;
        header[start..start + 4].copy_from_slice(&checksum);
        assert_eq!(source_of(&header), Ok(Some(address("192.0.2.1"))));
        header[FIXED_BYTES + 3] ^= 1;
        assert_eq!(source_of(&header), Err(InvalidProxyHeader));
        assert_eq!(source_of(&tcp4(&[0x03, 0, 0])), Err(InvalidProxyHeader));
    }

    #[test]
    fn other_bytes_are_no_header() {
        for bytes in [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXYTCP4 ",
            "\x16\x03\x01\x02\x00\x01\x00\x01",
        ] {
            assert_eq!(source_of(bytes.as_bytes()), Err(InvalidProxyHeader));
        }
        assert_eq!(read_proxy_header(b""), Ok(ProxyHeader::Incomplete(8)));
        assert_eq!(read_proxy_header(b"PROXY"), Ok(ProxyHeader::Incomplete(3)));
    }
}
