//! Common Access Tokens: what they permit and nothing else, and a token that is renewed is for one
//! viewer only.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use seawall_policy::{RequiredToken, TokenKind};
use tempfile::TempDir;

use crate::support::metrics::{REPEATED, TOKENS_REFUSED, TOKENS_VERIFIED};
use crate::support::shield::Builder;
use crate::support::tokens::{self, SECRET, cat, expiry, now, required, text, write_key};
use crate::support::viewer::{Ask, Viewer};
use crate::support::{Origin, Response, Shield, eventually, get, head, segment};

const PATH: &str = "/live/seg1.ts";
const BODY: &str = "0123456789";

/// Labels of claims.
const ISS: u64 = 1;
const AUD: u64 = 3;
const CATNIP: u64 = 311;
const CATU: u64 = 312;
const CATM: u64 = 313;
const CATR: u64 = 323;

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

/// Every route demands a Common Access Token in the cookie `CAT`.
fn guarded(origin: &Origin, change: impl FnOnce(&mut RequiredToken)) -> (Builder, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let key = write_key(folder.path(), "key", SECRET);
    let mut token = RequiredToken {
        query: None,
        cookie: Some("CAT".to_owned()),
        ..required(TokenKind::Cat, key)
    };
    change(&mut token);
    let shield = Shield::in_front_of(origin);
    let shield = shield.route(|route| route.access.token = Some(Arc::new(token)));
    (shield, folder)
}

fn with(ask: Ask, token: &str) -> Ask {
    ask.header("Cookie", &format!("CAT={token}"))
}

/// A token for an hour with one more claim.
fn token(label: u64, value: Vec<u8>) -> String {
    cat(SECRET, &[expiry(now() + 3600), (label, value)])
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [tokens::head(4, items.len() as u64), items.concat()].concat()
}

fn map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let bytes = entries
        .iter()
        .flat_map(|(key, value)| [key.clone(), value.clone()]);
    [
        tokens::head(5, entries.len() as u64),
        bytes.collect::<Vec<_>>().concat(),
    ]
    .concat()
}

fn number(number: u64) -> Vec<u8> {
    tokens::head(0, number)
}

/// `catu`: the path must begin so.
fn path_prefix(prefix: &str) -> Vec<u8> {
    let begins = map(&[(number(1), text(prefix))]);
    map(&[(number(3), begins)])
}

/// `catnip`: one IPv4 network.
fn network(address: [u8; 4], length: u64) -> Vec<u8> {
    let network = array(&[number(length), tokens::bytes(&address)]);
    array(&[[tokens::head(6, 52), network].concat()])
}

/// The claims that a token must have.
fn base() -> Vec<(u64, Vec<u8>)> {
    let end = expiry(now() + 3600);
    vec![end, (ISS, text("tv")), (AUD, text("shield"))]
}

/// The same and one more.
fn and(label: u64, value: Vec<u8>) -> String {
    let mut claims = base();
    claims.push((label, value));
    cat(SECRET, &claims)
}

/// Requests with the word that counts their refusal.
fn refused_requests() -> Vec<(Ask, &'static str)> {
    let plain = cat(SECRET, &base());
    let get_only = and(CATM, array(&[text("GET")]));
    let other_key = cat("a-secret-of-somebody-else-entirely", &base());
    vec![
        (get(PATH), "missing"),
        (with(get(PATH), "guess"), "malformed"),
        (with(get(PATH), &other_key), "signature"),
        (with(get(PATH), &and(CATU, path_prefix("/film/"))), "url"),
        (
            with(get(PATH), &and(CATNIP, network([192, 0, 2, 0], 24))),
            "address",
        ),
        (with(head(PATH), &get_only), "method"),
        (with(get(PATH), &cat(SECRET, &base()[..2])), "audience"),
        (
            with(
                get(PATH),
                &cat(SECRET, &[base()[0].clone(), base()[2].clone()]),
            ),
            "issuer",
        ),
        (with(get(PATH), &cat(SECRET, &base()[1..])), "no_expiry"),
        (with(get(PATH), &and(308, number(2))), "claim"),
        (
            with(
                get(PATH),
                &cat(
                    SECRET,
                    &[expiry(now()), base()[1].clone(), base()[2].clone()],
                ),
            ),
            "expired",
        ),
        (with(with(get(PATH), &plain), &plain), "repeated"),
    ]
}

#[tokio::test]
async fn claims_permit_what_they_say_and_nothing_else() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin, |token| {
        token.issuers = vec!["tv".to_owned()];
        token.audiences = vec!["shield".to_owned()];
    });
    let shield = shield.start().await;
    let permitted = [
        cat(SECRET, &base()),
        and(CATM, array(&[text("GET")])),
        and(CATU, path_prefix("/live/")),
        and(CATNIP, network([127, 0, 0, 0], 8)),
    ];
    let mut viewer = shield.viewer().await;
    let http2 = shield.h2_viewer().await;
    for token in &permitted {
        for _ in 0..3 {
            viewer.ask(with(get(PATH), token)).await.assert_whole(BODY);
            http2.ask(with(get(PATH), token)).await.assert_whole(BODY);
        }
    }
    for (request, reason) in refused_requests() {
        let reasons = [("reason", reason)];
        let before = shield.counter(TOKENS_REFUSED, &reasons).await;
        for response in [
            viewer.ask(request.clone()).await,
            http2.ask(request.clone()).await,
        ] {
            assert_eq!(response.status, 403, "{reason}");
        }
        assert_eq!(
            shield.counter(TOKENS_REFUSED, &reasons).await,
            before + 2,
            "{reason}"
        );
    }
    assert_eq!(origin.hits(PATH), 1);
    assert_eq!(origin.latest(PATH).header("cookie"), None);
}

#[tokio::test]
async fn public_key_verifies_es256_once_per_token() {
    let origin = origin().await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (shield, _folder) = guarded(&origin, |token| {
        std::fs::write(&token.keys[0].1, key.public_key_pem()).unwrap();
    });
    let shield = shield.start().await;
    let signed = es256(&key, &[expiry(now() + 3600)]);
    for _ in 0..4 {
        shield
            .ask(with(get(PATH), &signed))
            .await
            .assert_whole(BODY);
    }
    assert_eq!(shield.counter(TOKENS_VERIFIED, &[]).await, 1);
    // Everyone may know the public key: it is no secret of an HS256 token.
    let forged = cat(&key.public_key_pem(), &[expiry(now() + 3600)]);
    assert_eq!(shield.ask(with(get(PATH), &forged)).await.status, 403);
    let stranger = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let forged = es256(&stranger, &[expiry(now() + 3600)]);
    for _ in 0..60 {
        assert_eq!(shield.ask(with(get(PATH), &forged)).await.status, 403);
    }
    assert_eq!(shield.ask(with(get(PATH), &signed)).await.status, 200);
}

/// `COSE_Sign1` without a tag.
fn es256(key: &rcgen::KeyPair, claims: &[(u64, Vec<u8>)]) -> String {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let protected = tokens::bytes(&[0xa1, 0x01, 0x26]);
    let entries = claims
        .iter()
        .map(|(label, value)| (number(*label), value.clone()));
    let payload = tokens::bytes(&map(&entries.collect::<Vec<_>>()));
    let parts = [
        text("Signature1"),
        protected.clone(),
        tokens::bytes(b""),
        payload.clone(),
    ];
    let signed = array(&parts);
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, &key.serialize_der(), &random).unwrap();
    let signature = pair.sign(&random, &signed).unwrap();
    let kid = map(&[(number(4), tokens::bytes(b"k"))]);
    BASE64URL_NOPAD.encode(&array(&[
        protected,
        kid,
        payload,
        tokens::bytes(signature.as_ref()),
    ]))
}

/// `catr`: by cookie, for an hour, in the last ten minutes.
fn renewable() -> String {
    let renewal = map(&[
        (number(0), number(1)),
        (number(1), number(3600)),
        (number(2), number(600)),
        (number(5), text("Path=/; Secure; HttpOnly")),
    ]);
    cat(SECRET, &[expiry(now() + 300), (CATR, renewal)])
}

fn renewed(response: &Response) -> String {
    let cookies = response.fields.all("set-cookie");
    let [cookie] = cookies[..] else {
        panic!("one cookie: {response:?}")
    };
    let value = cookie.strip_prefix("CAT=").expect("the cookie of tokens");
    let (token, parameters) = value.split_once("; ").expect("its parameters");
    assert_eq!(parameters, "Path=/; Secure; HttpOnly");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    token.to_owned()
}

#[tokio::test]
async fn renewed_token_is_for_one_viewer_and_is_neither_stored_nor_repeated() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin, |_| ());
    let shield = shield.start().await;
    let lasting = cat(SECRET, &[expiry(now() + 3600)]);
    let (old, http2) = (renewable(), shield.h2_viewer().await);
    let mut viewer = shield.viewer().await;
    // The renewal comes with the miss too.
    let first = viewer.ask(with(get(PATH), &old)).await;
    first.assert_whole(BODY);
    let new = renewed(&first);
    for _ in 0..4 {
        renewed(viewer.ask(with(get(PATH), &old)).await.assert_whole(BODY));
        renewed(http2.ask(with(get(PATH), &old)).await.assert_whole(BODY));
    }
    assert_eq!(shield.counter(REPEATED, &[]).await, 0);
    for token in [&new, &lasting] {
        for _ in 0..4 {
            for response in [
                viewer.ask(with(get(PATH), token)).await,
                http2.ask(with(get(PATH), token)).await,
            ] {
                response.assert_whole(BODY);
                assert_eq!(response.header("set-cookie"), None, "{response:?}");
                assert_eq!(response.header("cache-control"), Some("max-age=600"));
            }
        }
    }
    assert_eq!(origin.hits(PATH), 1);
}

#[tokio::test]
async fn network_of_a_token_holds_where_responses_are_repeated() {
    let origin = origin().await;
    let (shield, folder) = guarded(&origin, |_| ());
    let socket = folder.path().join("viewers.sock");
    let shield = shield.on_unix(socket.clone()).start().await;
    let (mut viewer, mut unix) = (shield.viewer().await, Viewer::connect_unix(&socket).await);
    let bound = token(CATNIP, network([127, 0, 0, 1], 32));
    for _ in 0..5 {
        viewer.ask(with(get(PATH), &bound)).await.assert_whole(BODY);
        assert_eq!(unix.ask(with(get(PATH), &bound)).await.status, 403);
    }
    let free = token(CATU, path_prefix("/live/"));
    eventually("a repeated response", async || {
        viewer.ask(with(get(PATH), &free)).await.assert_whole(BODY);
        unix.ask(with(get(PATH), &free)).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await > 0
    })
    .await;
}
