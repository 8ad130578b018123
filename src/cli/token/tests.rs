//! Tests of `seawall token`.

use super::*;

const TOKEN: &str = "1.new.1767225660.L2xpdmU..gse9lUrK0ZA_Nl1hOs10ZGVywZrlYo1wyrARMvAd-QA";

/// A file with the secret that signed [`TOKEN`].
fn secret_file(folder: &tempfile::TempDir) -> PathBuf {
    let file = folder.path().join("secret");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    file
}

fn make(secret_file: PathBuf) -> MakeToken {
    MakeToken {
        key_id: "new".to_owned(),
        secret_file,
        path: "/live".to_owned(),
        expires_in: Some(Duration::from_mins(1)),
        expires_at: None,
        network: None,
    }
}

fn explain_token(token: &str, secret_file: Option<PathBuf>, json: bool) -> anyhow::Result<String> {
    let token = token.to_owned();
    ExplainToken {
        token,
        secret_file,
        json,
    }
    .text(NOW)
    .map(|(text, _)| text)
}

fn explain_json(token: &str, secret_file: Option<PathBuf>) -> serde_json::Value {
    let json = explain_token(token, secret_file, true).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// Before the last minute of [`TOKEN`] ends.
const NOW: Duration = Duration::from_secs(1_767_225_601);

#[test]
fn makes_the_token_that_the_documents_describe() {
    let folder = tempfile::tempdir().unwrap();
    let now = Duration::new(1_767_225_600, 999_999_999);
    let token = make(secret_file(&folder)).token(now).unwrap();
    assert_eq!(token, TOKEN);
}

#[test]
fn says_why_it_makes_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let error = |make: MakeToken| format!("{:#}", make.token(Duration::ZERO).unwrap_err());
    let other_path = MakeToken {
        path: "live".to_owned(),
        ..make(secret_file(&folder))
    };
    assert!(error(other_path).contains("must begin with `/`"));
    let missing = make(folder.path().join("missing"));
    assert!(error(missing).contains("cannot read"));
    let short = folder.path().join("short");
    std::fs::write(&short, "guess\n").unwrap();
    let short = error(make(short));
    assert!(
        short.contains("32 bytes") && !short.contains("guess"),
        "{short}"
    );
}

#[test]
fn explains_and_verifies_a_signed_url() {
    let folder = tempfile::tempdir().unwrap();
    let text = explain_token(TOKEN, Some(secret_file(&folder)), false).unwrap();
    let expected = "signed URL\n  \
                      now          admitted for what it permits, for another 59 seconds\n  \
                      key id       new\n  \
                      path         /live\n  \
                      expires at   1767225660 (Thu, 01 Jan 2026 00:01:00 GMT)\n  \
                      network      any\n  \
                      signature    valid\n";
    assert_eq!(text, expected);
    let forged = TOKEN.replace(".1767225660.", ".1767225661.");
    let text = explain_token(&forged, Some(secret_file(&folder)), false).unwrap();
    let expected = "signed URL\n  \
                      now          REFUSED: the signature is wrong\n  \
                      key id       new\n  \
                      path         /live\n  \
                      expires at   1767225661 (Thu, 01 Jan 2026 00:01:01 GMT)\n  \
                      network      any\n  \
                      signature    WRONG\n";
    assert_eq!(text, expected);
    let json = explain_json(&forged, Some(secret_file(&folder)));
    assert_eq!(json["fields"]["key id"], "new");
    assert_eq!(
        (&json["signature"], &json["admitted"], &json["reason"]),
        (&"wrong".into(), &false.into(), &"signature".into())
    );
}

/// `COSE_Mac0` with the key id `a` and `exp` in the year 2100, signed with [`secret_file`].
const CAT: &str = "0YRDoQEFoQRBYUehBBr0hlcAWCBkvSV25Mi1-t-Q6Sjo2QCSpJQilre70PaOOd_yCu3iVg";

#[test]
fn verifies_a_common_access_token() {
    let folder = tempfile::tempdir().unwrap();
    let json = explain_json(CAT, Some(secret_file(&folder)));
    assert_eq!(json["signature"], "valid", "{json}");
    assert_eq!(json["admitted"], true, "{json}");
    let other = folder.path().join("other");
    std::fs::write(&other, "another-secret-of-at-least-32-bytes").unwrap();
    let json = explain_json(CAT, Some(other));
    assert_eq!(json["signature"], "wrong", "{json}");
    assert_eq!(json["fields"]["key id"], "a", "{json}");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let public = folder.path().join("public.pem");
    std::fs::write(&public, pair.public_key_pem()).unwrap();
    let text = explain_token(CAT, Some(public), false).unwrap();
    let algorithm = "signature    WRONG: the algorithm is not that of the key\n";
    assert!(text.contains(algorithm), "{text}");
}

#[test]
fn malformed_token_is_named_as_such() {
    let error = explain_token("1.a.b", None, false).unwrap_err();
    assert_eq!(error.to_string(), "the token is malformed");
    let json = explain_json("1.a.b", None);
    assert_eq!(
        json,
        json!({ "admitted": false, "reason": "malformed" }),
        "{json}"
    );
}

#[test]
fn warns_of_an_end_in_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let warning = |expires_at| {
        let make = MakeToken {
            expires_in: None,
            expires_at: Some(expires_at),
            ..make(secret_file(&folder))
        };
        make.warning(Duration::from_hours(2))
    };
    assert!(warning(3600).is_some_and(|text| text.contains("expired already, 1 hour ago")));
    assert!(warning(7200).is_some());
    assert_eq!(warning(7201), None);
}

#[test]
fn explains_a_common_access_token_as_json() {
    // An issuer, and a claim of its own. Whether the MAC is right takes its key.
    let token = "0YRDoQEFoQRBYUaiAWFhIABBAA";
    let json = explain_token(token, None, true).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["format"], "Common Access Token");
    assert_eq!(json["fields"]["algorithm"], "HS256");
    assert_eq!(json["fields"]["iss"], "\"a\"");
    assert_eq!(json["signature"], "not verified");
    // It has no end.
    assert_eq!(json["admitted"], false);
    assert_eq!(json["reason"], "no_expiry");
}

#[test]
fn says_whether_the_token_would_be_admitted_now() {
    let validity = |not_before, expires_at| TokenValidity {
        never: None,
        not_before,
        expires_at,
    };
    let hour = validity(Some(7200), Some(10_800));
    let verdict = |validity: &TokenValidity, now| super::verdict(validity, Signature::Valid, now);
    assert_eq!(verdict(&hour, 10_860), "REFUSED: EXPIRED 1 minute ago");
    assert_eq!(verdict(&hour, 10_800), "REFUSED: EXPIRED 0 seconds ago");
    assert_eq!(verdict(&hour, 0), "REFUSED: NOT YET VALID, only in 2 hours");
    let admitted = "admitted for what it permits, for another 30 seconds";
    assert_eq!(verdict(&hour, 10_770), admitted);
    let endless = verdict(&validity(None, None), 5);
    assert!(endless.contains("accept_no_expiry"), "{endless}");
    let never = TokenValidity {
        never: Some(TokenRejection::Claim(309)),
        ..validity(None, None)
    };
    let never = verdict(&never, 5);
    assert!(never.starts_with("REFUSED: the claim 309"), "{never}");
    // Without the secret, nobody knows who made it.
    let text = explain_token(TOKEN, None, false).unwrap();
    assert!(
        text.contains("if a key of the route has signed it"),
        "{text}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&explain_token(TOKEN, None, true).unwrap()).unwrap();
    assert_eq!(
        (&json["admitted"], json.get("reason")),
        (&true.into(), None)
    );
}
