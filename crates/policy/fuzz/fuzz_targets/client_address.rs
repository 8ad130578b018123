//! Whatever a viewer sends, what a trusted proxy has appended names the viewer.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use seawall_policy::access_rules::AddressListEntry;
use seawall_policy::{ClientField, TrustedProxies, ViewerAddress};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const VIEWER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fuzz_target!(|invented: &[u8]| {
    let connection = ViewerAddress {
        viewer: Some(PROXY),
        proxy: None,
    };
    for (field, appended) in [
        (ClientField::XForwardedFor, "192.0.2.1"),
        (ClientField::Forwarded, "for=192.0.2.1;proto=https"),
    ] {
        let proxies = TrustedProxies {
            addresses: Some([AddressListEntry::Network(PROXY.into())].into_iter().collect()),
            field,
        };
        let viewer_of = |line: &[u8]| proxies.viewer_of(connection, |_| std::iter::once(line));
        viewer_of(invented);
        let line = [invented, b", ", appended.as_bytes()].concat();
        assert_eq!(viewer_of(&line).viewer, Some(VIEWER));
    }
});
