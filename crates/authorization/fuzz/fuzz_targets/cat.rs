//! Only a signed token is valid, and it permits nothing after its expiry.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ring::hmac;
use seawall_authorization::{
    CatKey, CatSettings, CatVerifier, TokenRejection, TokenRequest, explain,
};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static VERIFIER: LazyLock<CatVerifier> = LazyLock::new(|| {
    let key = CatKey::hmac_256(SECRET).expect("the secret is long enough");
    let settings = CatSettings {
        keys: vec![(b"a".to_vec(), key)],
        accepts_no_expiry: true,
        ..CatSettings::default()
    };
    CatVerifier::new(settings).expect("there is one key")
});

fuzz_target!(|input: (bool, &[u8])| {
    let (is_signed, bytes) = input;
    let token = base64url(&if is_signed {
        signed(bytes)
    } else {
        bytes.to_vec()
    });
    let _ = explain(&token);
    let Ok(cat) = VERIFIER.verify(&token) else {
        return;
    };
    assert!(is_signed, "a forged token is valid");
    let request = TokenRequest {
        method: "GET",
        scheme: "https",
        host: "media.test",
        port: None,
        target: "/live/a.m3u8?b=1",
        client: Some([192, 0, 2, 7].into()),
        protocol: Some("h2"),
    };
    let _ = cat.check(&request, 1_767_225_600);
    if let Some(end) = cat.expires_at() {
        assert_eq!(cat.check(&request, end), Err(TokenRejection::Expired));
    }
});

/// A token with these claims.
fn signed(claims: &[u8]) -> Vec<u8> {
    let claims = &claims[..claims.len().min(2000)];
    let length = u16::try_from(claims.len()).expect("it was cut");
    let head = match length {
        0..24 => vec![0x40 | length.to_be_bytes()[1]],
        24..=255 => vec![0x58, length.to_be_bytes()[1]],
        _ => [&[0x59][..], &length.to_be_bytes()].concat(),
    };
    let protected = [0x43, 0xa1, 0x01, 0x05];
    let signed = [&b"\x84\x64MAC0"[..], &protected, &[0x40], &head, claims].concat();
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), &signed);
    let before = [
        &[0xd8, 0x3d, 0xd1, 0x84][..],
        &protected,
        &[0xa1, 0x04, 0x41, b'a'],
    ]
    .concat();
    [&before, &head, claims, &[0x58, 0x20], mac.as_ref()].concat()
}

fn base64url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(at).copied().unwrap_or_default());
        }
        for at in 0..=chunk.len() {
            let index = bits >> (18 - 6 * at) & 0x3f;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}
