//! Verified once, compared with each request.

use super::*;
use crate::{CatKey, CatSettings, CatVerifier, SignedUrl, SigningKeys};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn keys() -> SigningKeys {
    SigningKeys::new([("a", SECRET)]).unwrap()
}

fn rules(keys: SigningKeys) -> TokenRules {
    let carriers = TokenCarriers {
        query: Some("t".to_owned()),
        ..TokenCarriers::default()
    };
    TokenRules::new(carriers, TokenVerifier::SignedUrl(keys))
}

fn token(path: &str, expires_at: u64) -> String {
    let url = SignedUrl {
        key_id: "a".to_owned(),
        path_prefix: path.to_owned(),
        expires_at,
        network: None,
    };
    keys().sign(&url).unwrap()
}

fn admit(
    rules: &TokenRules,
    path: &str,
    token: &str,
    verified: &mut VerifiedTokens,
    now: u64,
) -> Result<Option<u64>, TokenRejection> {
    let (target, headers) = (format!("{path}?t={token}"), HeaderMap::new());
    let found = rules.find(&target, &headers)?;
    let request = TokenRequest {
        method: "GET",
        scheme: "https",
        host: "media.test",
        port: None,
        target: &found.target,
        client: None,
        protocol: None,
    };
    let permit = rules.admit(&found, &request, verified, now);
    permit.map(|permit| permit.until)
}

#[test]
fn a_remembered_token_permits_the_same_and_no_more() {
    let (rules, mut verified) = (rules(keys()), VerifiedTokens::new(8, 1 << 20));
    let token = token("/a", 60);
    for _ in 0..2 {
        assert_eq!(
            admit(&rules, "/a/1", &token, &mut verified, 0),
            Ok(Some(60))
        );
        let elsewhere = admit(&rules, "/b/1", &token, &mut verified, 0);
        assert_eq!(elsewhere, Err(TokenRejection::Url));
    }
    assert_eq!(verified.stats().entries, 1);
    for _ in 0..2 {
        let late = admit(&rules, "/a/1", &token, &mut verified, 60);
        assert_eq!(late, Err(TokenRejection::Expired));
    }
    assert_eq!(verified.stats().entries, 0);
}

#[test]
fn invalid_tokens_are_not_remembered() {
    let (rules, mut verified) = (rules(keys()), VerifiedTokens::new(8, 1 << 20));
    let valid = token("/a", 60);
    let forged = valid.replace(".60.", ".61.");
    for invalid in [forged.as_str(), "", "x", &valid[1..]] {
        assert!(
            admit(&rules, "/a", invalid, &mut verified, 0).is_err(),
            "{invalid}"
        );
    }
    assert_eq!(verified.stats().entries, 0);
}

#[test]
fn other_rules_do_not_believe_what_was_verified_by_these() {
    let (first, mut verified) = (rules(keys()), VerifiedTokens::new(8, 1 << 20));
    let token = token("/a", 60);
    assert!(admit(&first, "/a", &token, &mut verified, 0).is_ok());
    let rotated = SigningKeys::new([("b", SECRET)]).unwrap();
    let rotated = admit(&rules(rotated), "/a", &token, &mut verified, 0);
    assert_eq!(rotated, Err(TokenRejection::UnknownKey));
}

#[test]
fn a_permission_for_a_connection_says_so() {
    let rules = rules(keys());
    let permit = |network: Option<&str>| {
        let url = SignedUrl {
            key_id: "a".to_owned(),
            path_prefix: "/".to_owned(),
            expires_at: 60,
            network: network.map(|network| network.parse().unwrap()),
        };
        let token = keys().sign(&url).unwrap();
        let (target, headers) = (format!("/a?t={token}"), HeaderMap::new());
        let found = rules.find(&target, &headers).unwrap();
        let request = TokenRequest {
            method: "GET",
            scheme: "https",
            host: "media.test",
            port: None,
            target: &found.target,
            client: Some([192, 0, 2, 7].into()),
            protocol: None,
        };
        let permit = rules.admit(&found, &request, &mut VerifiedTokens::new(8, 1 << 20), 0);
        permit.unwrap().is_for_connection
    };
    assert!(permit(Some("192.0.2.0/24")));
    assert!(!permit(None));
}

#[test]
fn a_flood_of_forged_signatures_is_refused_unread() {
    // No claims, and a signature of 64 bytes with the value 1.
    let token = "0oRDoQEmoQRSQXN5bW1ldHJpY0VDRFNBMjU2QaBYQAEBAQEBAQEBAQEBAQEBAQEBAQEBAQ\
                 EBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    let pem = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAED5fNFnQYFBOjWa1ndpQK3ZrzXuHD\n\
        77oGDgPaMNbtZ7tjiJLobxq2qnfHznEk58Jj33sBVYc/L50SAuToJo1nvA==\n\
        -----END PUBLIC KEY-----";
    let settings = CatSettings {
        keys: vec![(b"AsymmetricECDSA256".to_vec(), CatKey::es256(pem).unwrap())],
        ..CatSettings::default()
    };
    let verifier = TokenVerifier::Cat(CatVerifier::new(settings).unwrap());
    let carriers = TokenCarriers {
        query: Some("t".to_owned()),
        ..TokenCarriers::default()
    };
    let rules = TokenRules::new(carriers, verifier);
    let mut verified = VerifiedTokens::new(8, 1 << 20);
    let reasons: Vec<_> = (0..60)
        .map(|_| admit(&rules, "/a", token, &mut verified, 7).unwrap_err())
        .collect();
    assert_eq!(reasons[..50], [TokenRejection::Signature; 50]);
    assert_eq!(reasons[50..], [TokenRejection::Flood; 10]);
    let later = admit(&rules, "/a", token, &mut verified, 8);
    assert_eq!(later, Err(TokenRejection::Signature));
}
