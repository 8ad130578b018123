//! Signed URLs: what they permit, and every other form of a token is refused.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_767_225_600;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &[u8] = b"fedcba9876543210fedcba9876543210";

fn keys() -> SigningKeys {
    SigningKeys::new([("new", SECRET), ("old", OTHER_SECRET)]).unwrap()
}

fn url() -> SignedUrl {
    SignedUrl {
        key_id: "new".to_owned(),
        path_prefix: "/live".to_owned(),
        expires_at: NOW + 60,
        network: None,
    }
}

fn request(target: &str) -> TokenRequest<'_> {
    TokenRequest {
        method: "GET",
        scheme: "https",
        host: "media.test",
        port: None,
        target,
        client: Some([192, 0, 2, 7].into()),
        protocol: None,
    }
}

fn check(url: &SignedUrl, target: &str, now: u64) -> Result<(), TokenRejection> {
    let token = keys().sign(url).unwrap();
    keys().verify(&token)?.check(&request(target), now)
}

#[test]
fn a_token_is_what_the_documents_say() {
    // The MAC is what the shell commands of docs/tokens.md print.
    let token = "1.new.1767225660.L2xpdmU..gse9lUrK0ZA_Nl1hOs10ZGVywZrlYo1wyrARMvAd-QA";
    assert_eq!(keys().sign(&url()).unwrap(), token);
    let network = Some("2001:db8::/56".parse().unwrap());
    let bound = SignedUrl { network, ..url() };
    let bound = keys().sign(&bound).unwrap();
    assert!(bound.starts_with("1.new.1767225660.L2xpdmU.MjAwMTpkYjg6Oi81Ng."));
}

#[test]
fn what_was_signed_is_read_again() {
    for network in [None, Some("192.0.2.7/32"), Some("2001:db8::/56")] {
        let network = network.map(|network| network.parse().unwrap());
        let signed = SignedUrl { network, ..url() };
        let token = keys().sign(&signed).unwrap();
        assert_eq!(keys().verify(&token), Ok(signed));
    }
}

#[test]
fn prefix_ends_at_a_segment() {
    assert_eq!(check(&url(), "/live", NOW), Ok(()));
    assert_eq!(check(&url(), "/live/a.m3u8?b=/../c", NOW), Ok(()));
    for target in ["/lively", "/", "/Live/a", "/vod?/live", "/live%2fa"] {
        assert_eq!(
            check(&url(), target, NOW),
            Err(TokenRejection::Url),
            "{target}"
        );
    }
}

#[test]
fn percent_encoded_path_is_compared_as_sent() {
    let path_prefix = "/caf%C3%A9".to_owned();
    let url = SignedUrl {
        path_prefix,
        ..url()
    };
    assert_eq!(check(&url, "/caf%C3%A9/a", NOW), Ok(()));
    assert_eq!(check(&url, "/caf%c3%a9/a", NOW), Err(TokenRejection::Url));
}

#[test]
fn path_that_leaves_the_prefix_is_refused() {
    for target in [
        "/live/../vod",
        "/live/%2E%2e/vod",
        "/live/..%2Fvod",
        "/live/.",
        "/live\\..\\a",
    ] {
        assert_eq!(
            check(&url(), target, NOW),
            Err(TokenRejection::Url),
            "{target}"
        );
    }
}

#[test]
fn expires_to_the_second() {
    assert_eq!(check(&url(), "/live", NOW + 59), Ok(()));
    assert_eq!(
        check(&url(), "/live", NOW + 60),
        Err(TokenRejection::Expired)
    );
}

#[test]
fn address_bound_token_is_refused_elsewhere() {
    let bound = |network: &str| SignedUrl {
        network: Some(network.parse().unwrap()),
        ..url()
    };
    let from = |url: &SignedUrl, client: Option<IpAddr>| {
        let request = TokenRequest {
            client,
            ..request("/live")
        };
        url.check(&request, NOW)
    };
    let client = |text: &str| Some(text.parse().unwrap());
    let v4 = bound("192.0.2.0/24");
    assert_eq!(from(&v4, client("192.0.2.200")), Ok(()));
    // As a listener on [::] sees the same client.
    assert_eq!(from(&v4, client("::ffff:192.0.2.200")), Ok(()));
    for elsewhere in [
        client("192.0.3.1"),
        client("::c000:2c8"),
        client("2001:db8::1"),
        None,
    ] {
        assert_eq!(
            from(&v4, elsewhere),
            Err(TokenRejection::Address),
            "{elsewhere:?}"
        );
    }
    let v6 = bound("2001:db8::/56");
    assert_eq!(from(&v6, client("2001:db8:0:ff::1")), Ok(()));
    assert_eq!(
        from(&v6, client("2001:db8:0:100::1")),
        Err(TokenRejection::Address)
    );
}

#[test]
fn unknown_key_id_is_refused_and_a_rotated_key_is_accepted() {
    let old = SignedUrl {
        key_id: "old".to_owned(),
        ..url()
    };
    let token = keys().sign(&old).unwrap();
    assert_eq!(keys().verify(&token), Ok(old));
    let rotated = SigningKeys::new([("new", SECRET)]).unwrap();
    assert_eq!(rotated.verify(&token), Err(TokenRejection::UnknownKey));
    // The id does not say which secret it is.
    let replaced = SigningKeys::new([("old", SECRET)]).unwrap();
    assert_eq!(replaced.verify(&token), Err(TokenRejection::Signature));
}

#[test]
fn token_beyond_2_kib_is_refused() {
    let long = SignedUrl {
        path_prefix: format!("/{}", "a".repeat(2000)),
        ..url()
    };
    assert_eq!(keys().sign(&long), Err(SigningError::TooLong));
    let token = keys().sign(&url()).unwrap();
    let token = format!("{token}{}", "A".repeat(SIGNED_URL_BYTES_MAX));
    assert_eq!(keys().verify(&token), Err(TokenRejection::TooLong));
}

#[test]
fn other_forms_are_malformed() {
    let token = keys().sign(&url()).unwrap();
    let fields: Vec<_> = token.split('.').collect();
    let with = |index: usize, field: &str| {
        let mut fields = fields.clone();
        fields[index] = field;
        fields.join(".")
    };
    for token in [
        String::new(),
        ".....".to_owned(),
        format!("{token}.{token}"),
        format!("{token}="),
        with(0, "2"),
        with(1, ""),
        with(1, "a b"),
        with(2, ""),
        with(2, "01767225660"),
        with(2, "+1767225660"),
        with(2, "99999999999999999999"),
        with(3, ""),
        with(3, "bGl2ZQ"),
        with(3, "L2xpdmX"),
        with(3, "_w"),
        with(4, "bm9uc2Vuc2U"),
        fields[..5].join("."),
    ] {
        assert_eq!(
            keys().verify(&token),
            Err(TokenRejection::Malformed),
            "{token}"
        );
    }
    assert_eq!(keys().verify(&with(5, "")), Err(TokenRejection::Signature));
}

#[test]
fn refuses_to_sign_what_no_request_can_match() {
    for path in [
        "",
        "live",
        "/a b",
        "/ü",
        "/a?b",
        "/a#b",
        "/a/../b",
        "/a/%2e%2e",
    ] {
        let url = SignedUrl {
            path_prefix: path.to_owned(),
            ..url()
        };
        assert_eq!(keys().sign(&url), Err(SigningError::Path), "{path}");
    }
    let url = SignedUrl {
        key_id: "other".to_owned(),
        ..url()
    };
    assert_eq!(keys().sign(&url), Err(SigningError::UnknownKey));
}

#[test]
fn refuses_keys_that_are_none() {
    let error =
        |keys: &[(&'static str, &'static [u8])]| SigningKeys::new(keys.iter().copied()).err();
    assert_eq!(error(&[("a", &SECRET[1..])]), Some(KeyError::ShortSecret));
    assert_eq!(
        error(&[("a", SECRET), ("a", OTHER_SECRET)]),
        Some(KeyError::RepeatedId)
    );
    for id in ["", "a.b", "a b", "ä"] {
        let error = SigningKeys::new([(id, SECRET)]).err();
        assert_eq!(error, Some(KeyError::Id), "{id}");
    }
    assert_eq!(error(&[]), None);
}

#[test]
fn secrets_are_not_shown() {
    let keys = SigningKeys::new([("2026", SECRET)]).unwrap();
    assert_eq!(format!("{keys:?}"), r#"{"2026"}"#);
}

proptest! {
    #[test]
    fn any_changed_byte_is_refused(at in 0_usize..80, byte in 0x20_u8..0x7f) {
        let token = keys().sign(&url()).unwrap();
        let mut changed = token.clone().into_bytes();
        let at = at % changed.len();
        prop_assume!(changed[at] != byte);
        changed[at] = byte;
        let changed = String::from_utf8(changed).unwrap();
        prop_assert!(keys().verify(&changed).is_err(), "{}", changed);
    }

    #[test]
    fn any_text_is_read_without_panic(text in ".{0,200}") {
        let _ = keys().verify(&text);
    }
}
