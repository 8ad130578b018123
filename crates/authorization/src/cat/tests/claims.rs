//! Claims: what they permit, and which refuse the token.

use super::*;

#[test]
fn expires_and_begins_to_the_second() {
    // exp and nbf of NOW + 1 and NOW; also as fractions, and before 1970.
    for (claims, now, expected) in [
        ("a1041a6955b901", NOW, Ok(())),
        ("a1041a6955b901", NOW + 1, Err(TokenRejection::Expired)),
        ("a104fb41da556e406 00000", NOW, Ok(())),
        (
            "a104fb41da556e40600000",
            NOW + 1,
            Err(TokenRejection::Expired),
        ),
        ("a10400", NOW, Err(TokenRejection::Expired)),
        ("a10420", NOW, Err(TokenRejection::Expired)),
        ("a1051a6955b900", NOW - 1, Err(TokenRejection::NotYetValid)),
        ("a1051a6955b900", NOW, Ok(())),
        (
            "a105fb41da556e40200000",
            NOW,
            Err(TokenRejection::NotYetValid),
        ),
        ("a105fb41da556e40200000", NOW + 1, Ok(())),
        ("a1061a6955b900", 0, Ok(())),
    ] {
        let cat = verify(claims).unwrap();
        assert_eq!(cat.check(&request("/"), now), expected, "{claims} at {now}");
    }
}

#[test]
fn times_that_are_none_are_refused() {
    for value in [
        "6131",
        "f6",
        "c11a6955b900",
        "f97c00",
        "f97e00",
        "fb7fefffffffffffff",
        "80",
    ] {
        for label in [4, 5, 6] {
            let claims = format!("a10{label}{value}");
            assert_eq!(
                verify(&claims),
                Err(TokenRejection::Claim(label)),
                "{claims}"
            );
        }
    }
}

#[test]
fn expiry_is_wanted_where_the_settings_do_not_accept_none() {
    let accepts_no_expiry = false;
    let strict = CatVerifier::new(CatSettings {
        accepts_no_expiry,
        ..settings()
    })
    .unwrap();
    assert_eq!(strict.verify(&token("a0")), Err(TokenRejection::NoExpiry));
    assert!(strict.verify(&token("a1041a6955b901")).is_ok());
}

#[test]
fn issuer_and_audience_are_those_of_the_settings() {
    let with = |issuers: &[&str], audiences: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let (issuers, audiences) = (owned(issuers), owned(audiences));
        CatVerifier::new(CatSettings {
            issuers,
            audiences,
            ..settings()
        })
        .unwrap()
    };
    let verify = |verifier: &CatVerifier, claims: &str| verifier.verify(&token(claims)).err();
    let (issuer_a, audience_a, audiences_ab) = ("a1016161", "a1036161", "a1038261616162");
    let any = with(&[], &[]);
    assert_eq!(verify(&any, issuer_a), None);
    // A token for others is for others, also where nobody has a name.
    assert_eq!(verify(&any, audience_a), Some(TokenRejection::Audience));
    let issuer = with(&["b", "a"], &[]);
    assert_eq!(verify(&issuer, issuer_a), None);
    assert_eq!(verify(&issuer, "a1016163"), Some(TokenRejection::Issuer));
    assert_eq!(verify(&issuer, "a0"), Some(TokenRejection::Issuer));
    let audience = with(&[], &["b"]);
    assert_eq!(verify(&audience, audiences_ab), None);
    assert_eq!(
        verify(&audience, audience_a),
        Some(TokenRejection::Audience)
    );
    assert_eq!(verify(&audience, "a10380"), Some(TokenRejection::Audience));
    assert_eq!(verify(&audience, "a0"), Some(TokenRejection::Audience));
    assert_eq!(
        verify(&audience, "a1034162"),
        Some(TokenRejection::Claim(3))
    );
}

#[test]
fn claims_that_are_not_evaluated_refuse_the_token() {
    // cnf, geohash, catpor, cath … cattprint, the next of each registry, and the composite claims.
    for label in [
        0, 8, 41, 44, 282, 307, 309, 315, 316, 317, 318, 319, 320, 321, 322, 324, 325, 65535,
    ] {
        let claims = format!("a119{label:04x}a0");
        assert_eq!(
            verify(&claims),
            Err(TokenRejection::Claim(label)),
            "{label}"
        );
    }
    // Names in text and negative labels are the issuer's own; sub and cti restrict nothing.
    for claims in [
        "a1637669700a",
        "a139ffff01",
        "a1026161",
        "a1074161",
        "a1190136 01",
    ] {
        assert!(verify(claims).is_ok(), "{claims}");
    }
    for claims in [
        "a119013602",
        "a1190136666341542d7631",
        "a119013401",
        "a119013402",
        "a1190134f6",
    ] {
        assert!(
            matches!(verify(claims), Err(TokenRejection::Claim(308 | 310))),
            "{claims}"
        );
    }
    assert!(verify("a119013400").is_ok());
}

#[test]
fn repeated_claims_have_no_meaning() {
    for claims in [
        "a2041a7000000004 00",
        "bf041a700000000400ff",
        "a2041a7000000018 0400",
        "a2616101616102",
    ] {
        assert_eq!(verify(claims), Err(TokenRejection::Malformed), "{claims}");
    }
    let one = |label: u32| format!("39{:04x}00", 60_000 + label);
    let many: Vec<_> = (0..=64).map(one).collect();
    let many = many.concat();
    assert_eq!(
        verify(&format!("b841{many}")),
        Err(TokenRejection::Malformed)
    );
    for claims in ["80", "a1", "00", "a000", "f6", ""] {
        assert_eq!(verify(claims), Err(TokenRejection::Malformed), "{claims}");
    }
}

/// A text in CBOR, in hex.
fn text(text: &str) -> String {
    assert!(text.len() < 256);
    format!("78{:02x}{}", text.len(), HEX.encode(text.as_bytes()))
}

fn catu(component: u8, kind: &str, value: &str) -> String {
    format!("a1190138a1{component:02x}a1{kind}{value}")
}

#[test]
fn catu_compares_every_part_in_every_way() {
    let of = TokenRequest {
        port: Some(8443),
        ..request("/a/b/c.tar.gz?x=1&y")
    };
    let (exact, prefix, suffix, contains) = ("00", "01", "02", "03");
    for (component, kind, value, expected) in [
        (0, exact, "https", true),
        (0, exact, "HTTPS", true),
        (0, exact, "http", false),
        (1, exact, "media.test", true),
        (1, suffix, ".TEST", true),
        (1, exact, "media.test:8443", false),
        (2, exact, "8443", true),
        (2, exact, "", false),
        (3, exact, "/a/b/c.tar.gz", true),
        (3, prefix, "/a/", true),
        (3, prefix, "/a", true),
        (3, prefix, "/A", false),
        (3, prefix, "a", false),
        (3, contains, "/b/", true),
        (3, suffix, "?x=1&y", false),
        (4, exact, "x=1&y", true),
        (4, contains, "y", true),
        (4, exact, "x=1", false),
        (5, exact, "/a/b", true),
        (5, suffix, "/b", true),
        (5, exact, "/a/b/", false),
        (6, exact, "c.tar.gz", true),
        (7, exact, "c.tar", true),
        (8, exact, ".gz", true),
        (8, exact, "gz", false),
    ] {
        let expected = if expected {
            Ok(())
        } else {
            Err(TokenRejection::Url)
        };
        let claims = catu(component, kind, &text(value));
        assert_eq!(check(&claims, &of), expected, "{component} {kind} {value}");
    }
}

#[test]
fn catu_has_all_of_its_comparisons() {
    // A path below /a and the extension .m3u8; then a path with a prefix and a suffix.
    let two_parts = format!("a1190138a203a101{}08a100{}", text("/a"), text(".m3u8"));
    let two_kinds = format!("a1190138a103a201{}02{}", text("/a"), text(".m3u8"));
    for claims in [two_parts, two_kinds] {
        assert_eq!(check(&claims, &request("/a/b.m3u8")), Ok(()));
        assert_eq!(
            check(&claims, &request("/a/b.ts")),
            Err(TokenRejection::Url)
        );
        assert_eq!(
            check(&claims, &request("/b.m3u8")),
            Err(TokenRejection::Url)
        );
    }
}

#[test]
fn catu_compares_hashes() {
    let value = |algorithm| {
        let hash = digest::digest(algorithm, b"/a/b");
        format!("5820{}", HEX.encode(hash.as_ref()))
    };
    for (kind, algorithm) in [("20", &digest::SHA256), ("21", &digest::SHA512_256)] {
        let claims = catu(5, kind, &value(algorithm));
        assert_eq!(check(&claims, &request("/a/b/c")), Ok(()));
        assert_eq!(check(&claims, &request("/a/c/c")), Err(TokenRejection::Url));
    }
}

#[test]
fn catu_has_two_ways_to_write_a_default_port() {
    for (port, scheme, value, expected) in [
        (None, "https", "", Ok(())),
        (None, "https", "443", Ok(())),
        (Some(443), "https", "", Ok(())),
        (None, "http", "80", Ok(())),
        (Some(443), "http", "", Err(TokenRejection::Url)),
        (None, "https", "80", Err(TokenRejection::Url)),
    ] {
        let request = TokenRequest {
            scheme,
            port,
            ..request("/")
        };
        let claims = catu(2, "00", &text(value));
        assert_eq!(
            check(&claims, &request),
            expected,
            "{port:?} {scheme} {value}"
        );
    }
}

#[test]
fn catu_that_is_not_understood_refuses_the_token() {
    let regex = format!("82{}{}", text("/a.*"), text("i"));
    for claims in [
        catu(3, "04", &regex),
        catu(3, "04", &text(".*")),
        catu(3, "05", &text("/")),
        catu(3, "22", &text("/")),
        catu(9, "00", &text("/")),
        catu(3, "00", "412f"),
        catu(3, "00", "812f"),
        catu(3, "20", &text(&"0".repeat(64))),
        catu(3, "20", "411f"),
        catu(3, "6130", &text("/")),
        "a1190138a103a0".to_owned(),
        "a1190138a10380".to_owned(),
        "a119013880".to_owned(),
        "a11901380a".to_owned(),
        "a1190138a16161a10061 2f".to_owned(),
    ] {
        assert_eq!(verify(&claims), Err(TokenRejection::Claim(312)), "{claims}");
    }
}

#[test]
fn catu_is_not_passed_by_dot_segments() {
    let claims = catu(3, "01", &text("/a/"));
    for target in ["/a/../b", "/a/%2e%2e/b", "/a/..%2Fb"] {
        assert_eq!(
            check(&claims, &request(target)),
            Err(TokenRejection::Url),
            "{target}"
        );
    }
}

#[test]
fn catm_permits_its_methods_only() {
    let get_and_post = "a11901398263474554 64504f5354";
    for (method, expected) in [
        ("GET", Ok(())),
        ("POST", Ok(())),
        ("HEAD", Err(TokenRejection::Method)),
        ("get", Err(TokenRejection::Method)),
    ] {
        let request = TokenRequest {
            method,
            ..request("/")
        };
        assert_eq!(check(get_and_post, &request), expected, "{method}");
    }
    assert_eq!(
        check("a119013980", &request("/")),
        Err(TokenRejection::Method)
    );
    assert_eq!(verify("a119013963474554"), Err(TokenRejection::Claim(313)));
}

#[test]
fn catnip_permits_its_networks_only() {
    let catnip =
        |entries: &[&str]| format!("a1190137{:02x}{}", 0x80 + entries.len(), entries.concat());
    let from = |claims: &str, client: &str| {
        let client = client.parse().ok();
        check(
            claims,
            &TokenRequest {
                client,
                ..request("/")
            },
        )
    };
    let denied = Err(TokenRejection::Address);
    let address = catnip(&["d83444c0000207"]);
    assert_eq!(from(&address, "192.0.2.7"), Ok(()));
    assert!(verify(&address).unwrap().is_for_connection());
    assert_eq!(from(&address, "::ffff:192.0.2.7"), Ok(()));
    assert_eq!(from(&address, "192.0.2.8"), denied);
    assert_eq!(from(&address, "a Unix socket"), denied);
    // Prefixes with and without their zeros.
    for prefix in ["d834821818 44c0000200", "d834821818 43c00002"] {
        let prefix = catnip(&[prefix]);
        assert_eq!(from(&prefix, "192.0.2.200"), Ok(()));
        assert_eq!(from(&prefix, "192.0.3.1"), denied);
    }
    let v6 = catnip(&["d8368218384720010db8000020", "d83444c0000207"]);
    assert_eq!(from(&v6, "2001:db8:0:2000::1"), Ok(()));
    assert_eq!(from(&v6, "192.0.2.7"), Ok(()));
    assert_eq!(from(&v6, "2001:db8:1::1"), denied);
    // An autonomous system permits nobody, but others beside it do.
    assert_eq!(from(&catnip(&["1910e1"]), "192.0.2.7"), denied);
    assert_eq!(
        from(&catnip(&["1910e1", "d83444c0000207"]), "192.0.2.7"),
        Ok(())
    );
    assert_eq!(from(&catnip(&[]), "192.0.2.7"), denied);
    for entry in [
        "6931302e302e302e3031",
        "20",
        "1b0000000100000000",
        "d83443c00002",
        "d83482182144c0000200",
        "d8348118 18",
        "d83444",
        "d83544c0000207",
        "d83482182045c000020000",
        "f6",
        "d834820144c0000200ff",
    ] {
        let claims = catnip(&[entry]);
        assert!(verify(&claims).is_err(), "{entry}");
    }
}

#[test]
fn catalpn_permits_its_protocols_only() {
    for claims in ["a119013a81426832", "a119013a82626833626832"] {
        assert_eq!(check(claims, &request("/")), Ok(()));
        for protocol in [Some("http/1.1"), None] {
            let request = TokenRequest {
                protocol,
                ..request("/")
            };
            assert_eq!(check(claims, &request), Err(TokenRejection::Protocol));
        }
    }
    assert_eq!(verify("a119013a8101"), Err(TokenRejection::Claim(314)));
}

#[test]
fn explanation_says_when_a_token_is_valid() {
    let validity = |claims: &str| crate::explain(&token(claims)).unwrap().validity;
    // nbf 100, exp 200.
    let timed = validity("a2 051864 0418c8");
    let checks = [99, 100, 199, 200].map(|now| timed.check(now).err());
    let (early, late) = (TokenRejection::NotYetValid, TokenRejection::Expired);
    assert_eq!(checks, [Some(early), None, None, Some(late)]);
    assert_eq!(validity("a0").check(0), Ok(()));
    assert_eq!(validity("a0").expires_at, None);
    // A claim that is not evaluated.
    let refused = validity("a119 0135 a0");
    assert_eq!(refused.check(0), Err(TokenRejection::Claim(309)));
}

#[test]
fn claims_are_explained_in_words() {
    let explained = |claims: &str| {
        let explained = crate::explain(&token(claims)).unwrap();
        let (name, value) = explained.fields.last().cloned().unwrap();
        format!("{name}: {value}")
    };
    let catu = format!("a1190138a203a101{}08a100{}", text("/a"), text(".ts"));
    assert_eq!(
        explained(&catu),
        "catu: path begins with \"/a\", extension is \".ts\""
    );
    let catnip = "a119013784 d83444c0000207 d8368218384720010db8000020 1910e1 d83444";
    assert!(
        crate::explain(&token(catnip)).is_err(),
        "the last one is cut"
    );
    let catnip = catnip.replace("84 d83444c0000207", "83 d83444c0000207");
    let catnip = catnip.trim_end_matches(" d83444");
    let expected = "catnip: 192.0.2.7/32, 2001:db8:0:2000::/56, AS4321";
    assert_eq!(explained(catnip), expected);
    // What is no such claim is shown as it is.
    assert_eq!(explained("a119013880"), "catu: []");
    assert_eq!(explained("a1190138a16161a0"), "catu: {\"a\": {}}");
    assert_eq!(explained("a10420"), "exp: -1");
}
