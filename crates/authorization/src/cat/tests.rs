//! Common Access Tokens: envelopes, claims and renewal. Claims are written as CBOR in hex.

mod claims;
mod envelopes;
mod renewals;
mod vectors;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE as HEX};
use http::HeaderName;
use proptest::prelude::*;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use self::envelopes::{enveloped, es256};
use super::*;
use crate::TokenRequest;

const NOW: u64 = 1_767_225_600;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The keys of RFC 8392, appendix A.2.2 and A.2.3.
const RFC_SECRET: &str = "403697de87af64611c1d32a05dab0fe1fcb715a86ab435f1ec99192d79569388";
const RFC_PRIVATE: &str = "6c1382765aec5358f117733d281c1c7bdc39884d04a45a1e6c67c858bc206c19";
const RFC_POINT: &str = "04143329cce7868e416927599cf65a34f3ce2ffda55a7eca69ed8919a394d42f0f\
                         60f7f1a780d8a783bfb7a2dd6b2796e8128dbbcef9d3d168db9529971a36e7b9";
const P256_DER: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

/// Spaces are for the reader.
fn bytes(hex: &str) -> Vec<u8> {
    HEX.decode(hex.replace(' ', "").as_bytes()).unwrap()
}

fn es256_key() -> CatKey {
    let der = BASE64.encode(&bytes(&format!("{P256_DER}{RFC_POINT}")));
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
    CatKey::es256(&pem).unwrap()
}

fn settings() -> CatSettings {
    CatSettings {
        keys: vec![
            (b"a".to_vec(), CatKey::hmac_256(SECRET).unwrap()),
            (b"b".to_vec(), es256_key()),
        ],
        accepts_no_expiry: true,
        ..CatSettings::default()
    }
}

fn verifier() -> CatVerifier {
    CatVerifier::new(settings()).unwrap()
}

fn request(target: &str) -> TokenRequest<'_> {
    TokenRequest {
        method: "GET",
        scheme: "https",
        host: "media.test",
        port: None,
        target,
        client: Some([192, 0, 2, 7].into()),
        protocol: Some("h2"),
    }
}

/// A token with these claims (in hex) and the HMAC of key `a`.
fn token(claims: &str) -> String {
    let key = CatKey::hmac_256(SECRET).unwrap();
    let token = envelope::seal(&key, b"a", &bytes(claims)).unwrap();
    BASE64URL_NOPAD.encode(&token)
}

fn verify(claims: &str) -> Result<Cat, TokenRejection> {
    verifier().verify(&token(claims))
}

fn check(claims: &str, request: &TokenRequest<'_>) -> Result<(), TokenRejection> {
    verify(claims)?.check(request, NOW)
}

#[test]
fn deep_nesting_and_huge_maps_cost_nothing() {
    for payload in [
        "81".repeat(2500),
        format!("a119013881{}", "81".repeat(2000)),
        "bbffffffffffffffff".to_owned(),
        "9b7fffffffffffffff".to_owned(),
    ] {
        assert!(verify(&payload).is_err());
        // Unsigned too: nothing is read before the envelope is.
        let unsigned = BASE64URL_NOPAD.encode(&bytes(&payload));
        assert_eq!(verifier().verify(&unsigned), Err(TokenRejection::Malformed));
    }
    // In a protected header, which is read before the signature is verified.
    let protected = format!("a2010505{}", "81".repeat(200));
    let before = format!("8458{:02x}{protected}a1044161", protected.len() / 2);
    let token = BASE64URL_NOPAD.encode(&bytes(&format!("{before}41a04100")));
    assert_eq!(verifier().verify(&token), Err(TokenRejection::Malformed));
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", verifier());
    assert!(
        shown.contains("CatKey(HS256)") && shown.contains("CatKey(ES256)"),
        "{shown}"
    );
    assert!(
        !shown.contains("48, 49") && !shown.contains("0123"),
        "{shown}"
    );
}

#[test]
fn keys_that_are_none_are_refused() {
    assert_eq!(
        CatKey::hmac_256(&SECRET[1..]).err(),
        Some(KeyError::ShortSecret)
    );
    assert_eq!(CatKey::es256("").err(), Some(KeyError::PublicKey));
    let mut twice = settings();
    twice.keys.push(twice.keys[0].clone());
    assert_eq!(CatVerifier::new(twice).err(), Some(KeyError::RepeatedId));
}

proptest! {
    #[test]
    fn any_changed_byte_is_refused(at in any::<prop::sample::Index>(), mask in 1_u8..=255, is_es256: bool) {
        let token = if is_es256 {
            enveloped("d83dd28443a10126a1044162", "a10126", "Signature1", es256)
        } else {
            token("a2041a6955b901016161")
        };
        let mut changed = BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
        let at = at.index(changed.len());
        changed[at] ^= mask;
        let changed = BASE64URL_NOPAD.encode(&changed);
        prop_assert!(verifier().verify(&changed).is_err(), "{}", changed);
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verifier().verify(&BASE64URL_NOPAD.encode(&bytes)).is_err());
    }

    #[test]
    fn any_claims_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let key = CatKey::hmac_256(SECRET).unwrap();
        let token = envelope::seal(&key, b"a", &bytes).unwrap();
        let token = BASE64URL_NOPAD.encode(&token);
        if let Ok(cat) = verifier().verify(&token) {
            let _ = cat.check(&request("/a"), NOW);
        }
        let _ = crate::explain(&token);
    }
}
