//! Tests that what a proxy appends names the viewer, and nothing else does.

use super::super::access_rules::AddressListEntry;
use super::*;

fn proxies(field: ClientField) -> TrustedProxies {
    let network = |text: &str| AddressListEntry::Network(text.parse().unwrap());
    let entries = [network("10.0.0.0/8"), network("2001:db8:1::/48")];
    TrustedProxies {
        addresses: Some(entries.into_iter().collect()),
        field,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The viewer of a request over a connection from 10.0.0.1.
fn viewer(field: ClientField, lines: &[&str]) -> String {
    let connection = ViewerAddress {
        viewer: Some(address("10.0.0.1")),
        proxy: None,
    };
    let found = proxies(field).viewer_of(connection, |asked| {
        assert_eq!(asked, field);
        lines.iter().rev().map(|line| line.as_bytes())
    });
    assert_eq!(found.proxy, Some(address("10.0.0.1")));
    found.viewer.unwrap().to_string()
}

fn by_list(lines: &[&str]) -> String {
    viewer(ClientField::XForwardedFor, lines)
}

fn by_forwarded(lines: &[&str]) -> String {
    viewer(ClientField::Forwarded, lines)
}

#[test]
fn last_address_that_is_no_proxy_is_the_viewer() {
    assert_eq!(by_list(&["192.0.2.1"]), "192.0.2.1");
    assert_eq!(by_list(&["203.0.113.9, 192.0.2.1"]), "192.0.2.1");
    assert_eq!(by_list(&["203.0.113.9 ,192.0.2.1 , 10.0.0.2"]), "192.0.2.1");
    assert_eq!(
        by_list(&["203.0.113.9", "192.0.2.1", "10.0.0.2"]),
        "192.0.2.1"
    );
    assert_eq!(by_list(&["2001:db8::7, 2001:db8:1::9"]), "2001:db8::7");
    assert_eq!(by_list(&["192.0.2.1,, ", ""]), "192.0.2.1");
}

#[test]
fn address_may_have_a_port_and_brackets() {
    for (node, expected) in [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(by_list(&[node]), expected);
        assert_eq!(by_forwarded(&[&format!("for=\"{node}\"")]), expected);
    }
}

#[test]
fn proxy_stands_for_whoever_it_does_not_name() {
    assert_eq!(by_list(&[]), "10.0.0.1");
    assert_eq!(
        by_list(&["10.0.0.2"]),
        "10.0.0.2",
        "a proxy asks for itself"
    );
    for hidden in [
        "unknown",
        "_hidden",
        "192.0.2.300",
        "a\tb",
        "\"",
        "192.0.2.1 x",
    ] {
        let list = format!("203.0.113.9, {hidden}, 10.0.0.2");
        assert_eq!(by_list(&[&list]), "10.0.0.2", "{hidden}");
        let forwarded = format!("for=203.0.113.9, for={hidden}, for=10.0.0.2");
        assert_eq!(by_forwarded(&[&forwarded]), "10.0.0.2", "{hidden}");
    }
    let several = [
        "proto=https",
        "for=192.0.2.1;for=192.0.2.2",
        "for",
        ";",
        "for=\"192.0.2.1",
    ];
    for element in several {
        let forwarded = format!("for=203.0.113.9, {element}");
        assert_eq!(by_forwarded(&[&forwarded]), "10.0.0.1", "{element}");
    }
}

#[test]
fn forwarded_is_read_as_rfc_7239_writes_it() {
    let lines = ["For=\"[2001:db8:cafe::17]:4711\""];
    assert_eq!(by_forwarded(&lines), "2001:db8:cafe::17");
    let lines = ["for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com"];
    assert_eq!(by_forwarded(&lines), "198.51.100.17");
    let lines = ["host=\"a;for=6.6.6.6,for=\\\"6.6.6.6\";for=192.0.2.43"];
    assert_eq!(by_forwarded(&lines), "192.0.2.43");
}

#[test]
fn quote_that_the_viewer_leaves_open_hides_no_later_element() {
    for invented in ["for=\"", "for=\"\\", "a=\"b\\\"", "\"\"\""] {
        let forwarded = format!("{invented}, for=192.0.2.1");
        assert_eq!(by_forwarded(&[&forwarded]), "192.0.2.1", "{invented}");
        assert_eq!(by_forwarded(&[invented, "for=192.0.2.1"]), "192.0.2.1");
    }
}

#[test]
fn field_of_an_untrusted_peer_is_not_read() {
    let connection = ViewerAddress {
        viewer: Some(address("192.0.2.1")),
        proxy: None,
    };
    let lines = |_| -> std::iter::Empty<&[u8]> { panic!("the field is read") };
    let proxies = proxies(ClientField::XForwardedFor);
    assert_eq!(proxies.viewer_of(connection, lines), connection);
    assert_eq!(
        TrustedProxies::default().viewer_of(connection, lines),
        connection
    );
    let local = ViewerAddress::default();
    assert_eq!(
        proxies.viewer_of(local, lines),
        local,
        "a Unix socket is not on the list"
    );
}
