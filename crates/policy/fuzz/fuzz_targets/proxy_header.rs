//! No byte behind the header is asked for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_policy::proxy_header::{ProxyHeader, read_proxy_header};

/// The longest header, of version 2.
const BYTES_MAX: usize = 16 + 2048;

fuzz_target!(|bytes: &[u8]| {
    let mut read = 0;
    while let Some(received) = bytes.get(..read) {
        match read_proxy_header(received) {
            Ok(ProxyHeader::Incomplete(more)) => {
                assert!(more > 0 && read + more <= BYTES_MAX);
                read += more;
            }
            Ok(ProxyHeader::Complete(_)) => {
                assert!(received.ends_with(b"\r\n") || received.starts_with(b"\r\n"));
                break;
            }
            Err(_) => break,
        }
    }
});
