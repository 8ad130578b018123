//! Envelopes: which are opened, and by which keys.

use super::*;

/// A token in an envelope of any form: `before` the payload and the signature, in hex.
pub(super) fn enveloped(
    before: &str,
    protected: &str,
    context: &str,
    signature_of: Signer,
) -> String {
    let payload = bytes("a0");
    let context = context.as_bytes();
    let protected = bytes(protected);
    let mut signed = vec![0x84, 0x60 | u8::try_from(context.len()).unwrap()];
    signed.extend_from_slice(context);
    signed.push(0x40 | u8::try_from(protected.len()).unwrap());
    signed.extend_from_slice(&protected);
    signed.extend_from_slice(&[0x40, 0x41, 0xa0]);
    let signature = signature_of(&signed);
    let mut token = bytes(before);
    token.extend_from_slice(&[
        0x41,
        payload[0],
        0x58,
        u8::try_from(signature.len()).unwrap(),
    ]);
    token.extend_from_slice(&signature);
    BASE64URL_NOPAD.encode(&token)
}

pub(super) type Signer = fn(&[u8]) -> Vec<u8>;

fn hmac_256(signed: &[u8]) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    ring::hmac::sign(&key, signed).as_ref().to_vec()
}

pub(super) fn es256(signed: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let (private, public) = (bytes(RFC_PRIVATE), bytes(RFC_POINT));
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, &public, &random);
    key.unwrap()
        .sign(&random, signed)
        .unwrap()
        .as_ref()
        .to_vec()
}

#[test]
fn both_algorithms_are_verified_in_all_forms_of_the_envelope() {
    for (before, protected, context, signer) in [
        (
            "d83dd18443a10105a10441 61",
            "a10105",
            "MAC0",
            hmac_256 as Signer,
        ),
        ("d18443a10105a1044161", "a10105", "MAC0", hmac_256),
        ("8443a10105a1044161", "a10105", "MAC0", hmac_256),
        // The key id is protected; another header is too, and means nothing.
        (
            "d18449a30105044161181800a0",
            "a30105044161181800",
            "MAC0",
            hmac_256,
        ),
        ("d83dd28443a10126a1044162", "a10126", "Signature1", es256),
        ("d28443a10126a1044162", "a10126", "Signature1", es256),
        ("8443a10126a1044162", "a10126", "Signature1", es256),
    ] {
        let token = enveloped(before, protected, context, signer);
        assert!(verifier().verify(&token).is_ok(), "{before}");
    }
}

#[test]
fn a_key_verifies_by_its_own_algorithm_only() {
    for (before, protected, context, signer) in [
        // The public key taken for a secret would be known to all.
        ("8443a10105a1044162", "a10105", "MAC0", hmac_256 as Signer),
        ("8443a10126a1044161", "a10126", "Signature1", es256),
        // The tag says another structure than the algorithm.
        ("d28443a10105a1044161", "a10105", "MAC0", hmac_256),
        ("d28443a10105a1044161", "a10105", "Signature1", hmac_256),
        ("d18443a10126a1044162", "a10126", "Signature1", es256),
        // HMAC 256/64, HMAC 512, PS256, none.
        ("8443a10104a1044161", "a10104", "MAC0", hmac_256),
        ("8443a10107a1044161", "a10107", "MAC0", hmac_256),
        ("8444a1013824a1044161", "a1013824", "MAC0", hmac_256),
        ("8443a10100a1044161", "a10100", "MAC0", hmac_256),
        ("8441a0a1044161", "a0", "MAC0", hmac_256),
    ] {
        let token = enveloped(before, protected, context, signer);
        assert_eq!(
            verifier().verify(&token),
            Err(TokenRejection::Algorithm),
            "{before}"
        );
    }
}

#[test]
fn other_structures_have_another_signature() {
    for (before, protected, context, signer) in [
        ("8443a10105a1044161", "a10105", "MAC", hmac_256 as Signer),
        ("8443a10105a1044161", "a10105", "Signature1", hmac_256),
        ("8443a10126a1044162", "a10126", "MAC0", es256),
        ("8443a10105a1044161", "a10105", "MAC0", |signed| {
            hmac_256(signed)[..8].to_vec()
        }),
        ("8443a10105a1044161", "a10105", "MAC0", |_| vec![0; 32]),
        ("8443a10105a1044161", "a10105", "MAC0", |_| Vec::new()),
        ("8443a10126a1044162", "a10126", "Signature1", |_| {
            vec![0; 64]
        }),
    ] {
        let token = enveloped(before, protected, context, signer);
        let error = verifier().verify(&token).unwrap_err();
        // An empty signature is written with a head that is not the shortest.
        let expected = [TokenRejection::Signature, TokenRejection::Malformed];
        assert!(expected.contains(&error), "{before} {error}");
    }
}

#[test]
fn key_id_must_be_there_once_and_known() {
    let reject = |before: &str, protected: &str| {
        let token = enveloped(before, protected, "MAC0", hmac_256);
        verifier().verify(&token).unwrap_err()
    };
    assert_eq!(reject("8443a10105a0", "a10105"), TokenRejection::UnknownKey);
    assert_eq!(
        reject("8443a10105a1044163", "a10105"),
        TokenRejection::UnknownKey
    );
    assert_eq!(
        reject("8443a10105a10440", "a10105"),
        TokenRejection::UnknownKey
    );
    let both = reject("8446a20105044161a1044161", "a20105044161");
    assert_eq!(both, TokenRejection::Malformed);
    let text = reject("8443a10105a1046161", "a10105");
    assert_eq!(text, TokenRejection::Malformed);
}

#[test]
fn critical_and_repeated_headers_are_refused() {
    for (before, protected) in [
        ("8447a201050281182aa1044161", "a201050281182a"),
        ("8445a201050105a1044161", "a201050105"),
        ("8443a10105a2044161 0105", "a10105"),
        ("8443a10105a1054161", "a10105"),
    ] {
        let token = enveloped(before, protected, "MAC0", hmac_256);
        assert_eq!(
            verifier().verify(&token),
            Err(TokenRejection::Malformed),
            "{before}"
        );
    }
}

#[test]
fn an_envelope_has_one_form() {
    let valid = BASE64URL_NOPAD.decode(token("a0").as_bytes()).unwrap();
    let hex = HEX.encode(&valid);
    for (from, to) in [
        ("d83d", "d9003d"),
        ("d83d", "d83dd83d"),
        ("d83dd1", "d83d"),
        ("d1", "d811"),
        ("84", "9804"),
        ("84", "83"),
        ("84", "9f"),
        ("43a10105", "5803a10105"),
        ("a1044161", "bf044161ff"),
        ("a1044161", "b8010441 61"),
        ("a1044161", "a118044161"),
        ("41a0", "5801a0"),
        ("41a0", "5f41a0ff"),
        ("41a0", "61a0"),
    ] {
        let hex = hex.replacen(from, to, 1);
        let token = BASE64URL_NOPAD.encode(&bytes(&hex));
        assert_eq!(
            verifier().verify(&token),
            Err(TokenRejection::Malformed),
            "{from} {to}"
        );
    }
    for token in [
        [&valid[..], &[0]].concat(),
        valid[..valid.len() - 1].to_vec(),
        Vec::new(),
    ] {
        let token = BASE64URL_NOPAD.encode(&token);
        assert_eq!(
            verifier().verify(&token),
            Err(TokenRejection::Malformed),
            "{token}"
        );
    }
}

#[test]
fn base64_is_strict_but_for_padding() {
    let plain = token("a10161 61");
    for padded in [
        format!("{plain}=="),
        format!("{plain}%3D"),
        format!("{plain}%3d%3d"),
    ] {
        assert!(verifier().verify(&padded).is_ok(), "{padded}");
    }
    for other in [
        format!("{plain}A"),
        format!(" {plain}"),
        plain.replace('A', "+"),
        format!("{plain}."),
    ] {
        assert_eq!(
            verifier().verify(&other),
            Err(TokenRejection::Malformed),
            "{other}"
        );
    }
    let long = "A".repeat(CAT_BYTES_MAX + 1);
    assert_eq!(verifier().verify(&long), Err(TokenRejection::TooLong));
}
