//! Tests of the address parser: examples, right and wrong.

use super::*;

fn suggestion<T: std::fmt::Debug>(result: Result<T, ValueError>) -> Option<String> {
    result.expect_err("should be refused").suggestion
}

#[test]
fn reads_listeners() {
    assert_eq!(
        parse_listen_address("0.0.0.0:8080"),
        Ok(ListenAddress::Tcp(([0, 0, 0, 0], 8080).into()))
    );
    assert_eq!(
        parse_listen_address("[::1]:0"),
        Ok(ListenAddress::Tcp("[::1]:0".parse().expect("an address")))
    );
    assert_eq!(
        parse_listen_address("unix:/run/s.sock"),
        Ok(ListenAddress::Unix("/run/s.sock".into()))
    );
}

#[test]
fn suggests_corrections_of_wrong_listeners() {
    assert_eq!(
        suggestion(parse_listen_address(":8080")).as_deref(),
        Some("0.0.0.0:8080")
    );
    assert_eq!(
        suggestion(parse_listen_address("8080")).as_deref(),
        Some("0.0.0.0:8080")
    );
    assert_eq!(
        suggestion(parse_listen_address("localhost:80")).as_deref(),
        Some("127.0.0.1:80")
    );
    assert_eq!(
        suggestion(parse_listen_address("10.0.0.1")).as_deref(),
        Some("10.0.0.1:8080")
    );
    assert_eq!(
        suggestion(parse_listen_address("::")).as_deref(),
        Some("[::]:8080")
    );
    assert_eq!(
        suggestion(parse_listen_address("/run/s.sock")).as_deref(),
        Some("unix:/run/s.sock")
    );
    assert_eq!(suggestion(parse_listen_address("unix:run")), None);
    assert_eq!(suggestion(parse_listen_address("0.0.0.0:99999")), None);
}

#[test]
fn reads_endpoints() {
    let read = |text| parse_endpoint(text).map(|at| (at.tls, at.host, at.port));
    let host = |name: &str| name.to_owned();
    assert_eq!(
        read("https://Origin.Example"),
        Ok((true, host("origin.example"), 443))
    );
    assert_eq!(
        read("http://origin.example./"),
        Ok((false, host("origin.example"), 80))
    );
    assert_eq!(
        read("http://10.0.0.5:8080"),
        Ok((false, host("10.0.0.5"), 8080))
    );
    assert_eq!(
        read("https://[2001:DB8::1]:8443"),
        Ok((true, host("2001:db8::1"), 8443))
    );
}

#[test]
fn suggests_corrections_of_wrong_endpoints() {
    let plain = Some("https://origin.example");
    assert_eq!(
        suggestion(parse_endpoint("origin.example")).as_deref(),
        plain
    );
    assert_eq!(
        suggestion(parse_endpoint("https://origin.example/live?x=1")).as_deref(),
        plain
    );
    for text in [
        "ftp://a",
        "https://",
        "https://a b",
        "https://u:p@a",
        "http://a:0",
        "http://a:",
        "",
    ] {
        assert!(parse_endpoint(text).is_err(), "{text}");
    }
    let error = parse_endpoint("https://user:pass@origin.example/x").expect_err("userinfo");
    assert!(!error.to_string().contains("pass@"), "{error}");
}

#[test]
fn canonicalizes_hosts() {
    assert_eq!(host("Live.Example.COM."), Ok("live.example.com".to_owned()));
    assert_eq!(host("*.Example.com"), Ok("*.example.com".to_owned()));
    assert_eq!(host("[2001:DB8:0::1]"), Ok("[2001:db8::1]".to_owned()));
    assert_eq!(
        suggestion(host("https://a.example/")).as_deref(),
        Some("a.example")
    );
    assert_eq!(
        suggestion(host("a.example:8080")).as_deref(),
        Some("a.example")
    );
    for text in ["*", "a.*.example", "", "a..b", "bücher.example", "a b"] {
        assert!(host(text).is_err(), "{text}");
    }
}

#[test]
fn canonicalizes_paths() {
    assert_eq!(path_prefix("/"), Ok("/".to_owned()));
    assert_eq!(path_prefix("/live/"), Ok("/live".to_owned()));
    assert_eq!(suggestion(path_prefix("live")).as_deref(), Some("/live"));
    assert_eq!(suggestion(path_prefix("/live/*")).as_deref(), Some("/live"));
    for text in ["", "/a?b", "/a/../b", "/a//b", "/a b", "/ü"] {
        assert!(path_prefix(text).is_err(), "{text}");
    }
}

#[test]
fn rejects_web_origins_with_a_path() {
    assert_eq!(
        web_origin("https://Player.example"),
        Ok("https://player.example".to_owned())
    );
    let plain = Some("https://player.example");
    assert_eq!(
        suggestion(web_origin("https://player.example/")).as_deref(),
        plain
    );
    assert_eq!(suggestion(web_origin("player.example")).as_deref(), plain);
}

#[test]
fn accepts_only_names_that_fit_labels() {
    assert!(name("live-1").is_ok() && name("*.example.com/live").is_ok());
    assert!(name("").is_err() && name("a b").is_err() && name(&"x".repeat(129)).is_err());
    assert!(pseudonym("seawall").is_ok() && pseudonym("sea wall").is_err());
}

#[test]
fn reads_addresses_and_networks() {
    for text in [
        "192.0.2.7",
        "192.0.2.0/24",
        "0.0.0.0/0",
        "2001:db8::1",
        "2001:db8::/32",
        "::/0",
        "unix",
    ] {
        assert!(address_list_entry(text).is_ok(), "{text}");
    }
    assert_eq!(
        address_list_entry("192.0.2.7"),
        address_list_entry("192.0.2.7/32")
    );
}

#[test]
fn suggests_corrections_of_wrong_networks() {
    let suggested = |text| suggestion(address_list_entry(text));
    assert_eq!(suggested("192.0.2.7/24").as_deref(), Some("192.0.2.0/24"));
    assert_eq!(
        suggested("2001:db8::1/32").as_deref(),
        Some("2001:db8::/32")
    );
    assert_eq!(suggested("::ffff:192.0.2.7").as_deref(), Some("192.0.2.7"));
    assert_eq!(
        suggested("::ffff:192.0.2.0/120").as_deref(),
        Some("192.0.2.0/24")
    );
    for text in [
        "",
        "192.0.2",
        "192.0.2.0/33",
        "192.0.2.7:80",
        "[::1]:80",
        "[::1]",
        "localhost",
        "all",
        "*",
        "Unix",
        "192.0.2.1-9",
        "fe80::1%eth0",
    ] {
        assert_eq!(suggested(text), None, "{text}");
    }
}
