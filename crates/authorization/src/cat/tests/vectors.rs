//! Tokens and claims that others have published, with their keys. Those that are refused say why.

use super::*;

/// A token that names this key id, and whether it is accepted at a time.
fn accepted(
    token: &str,
    id: &str,
    key: CatKey,
    request: &TokenRequest<'_>,
    now: u64,
) -> Result<(), TokenRejection> {
    let settings = CatSettings {
        keys: vec![(id.as_bytes().to_vec(), key)],
        audiences: vec![
            "one".to_owned(),
            "service".to_owned(),
            "coap://light.example.com".to_owned(),
        ],
        accepts_no_expiry: true,
        ..CatSettings::default()
    };
    // Most of the tokens are for nobody in particular.
    let unnamed = CatSettings {
        audiences: Vec::new(),
        ..settings.clone()
    };
    let verify = |settings| CatVerifier::new(settings).unwrap().verify(token);
    let cat = match verify(settings) {
        Err(TokenRejection::Audience) => verify(unnamed),
        verified => verified,
    };
    cat?.check(request, now)
}

fn rfc_secret() -> CatKey {
    CatKey::hmac_256(&bytes(RFC_SECRET)).unwrap()
}

fn rfc(hex: &str, id: &str, key: CatKey, now: u64) -> Result<(), TokenRejection> {
    let token = BASE64URL_NOPAD.encode(&bytes(hex));
    accepted(&token, id, key, &request("/"), now)
}

const RFC_CLAIMS: &str = "a70175636f61703a2f2f61732e6578616d706c652e636f6d02656572696b77037818636f\
                          61703a2f2f6c696768742e6578616d706c652e636f6d041a5612aeb0051a5610d9f0061a\
                          5610d9f007420b71";

/// RFC 8392, appendix A.3: signed with ES256.
#[test]
fn rfc_8392_signed() {
    let token = format!(
        "d28443a10126a104524173796d6d657472696345434453413235365850{RFC_CLAIMS}58405427c1ff28d23fba\
         d1f29c4c7c6a555e601d6fa29f9179bc3d7438bacaca5acd08c8d4d4f96131680c429a01f85951ecee743a52b9\
         b63632c57209120e1c9e30"
    );
    let at = |now| rfc(&token, "AsymmetricECDSA256", es256_key(), now);
    assert_eq!(at(1_443_944_943), Err(TokenRejection::NotYetValid));
    assert_eq!(at(1_443_944_944), Ok(()));
    assert_eq!(at(1_444_064_943), Ok(()));
    assert_eq!(at(1_444_064_944), Err(TokenRejection::Expired));
}

/// RFC 8392, appendix A.4: a MAC that is truncated to 64 bits, which CTA-5007 does not have.
#[test]
fn rfc_8392_truncated_mac_is_refused() {
    let token =
        format!("d83dd18443a10104a1044c53796d6d65747269633235365850{RFC_CLAIMS}48093101ef6d789200");
    let refused = rfc(&token, "Symmetric256", rfc_secret(), 1_443_944_944);
    assert_eq!(refused, Err(TokenRejection::Algorithm));
}

/// Eyevinn/node-cat at b56b10e, `src/index.test.ts` and `src/validators/http.test.ts`. Their key is
/// that of RFC 8392; the key id in the tokens is `akamai_key_hs256`.
#[test]
fn node_cat() {
    let at =
        |token: &str, now| accepted(token, "akamai_key_hs256", rfc_secret(), &request("/"), now);
    let with_issuer = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2WCijAXgYY29hcDovL2pvbmFzLmV4YW1wbGUuY29t\
                       Bhpn1JipBRpn1JipWCCX4nQb8SYQoa0SFLxE2Rh35DdTjoA9TzOSy1IP9O1BGQ";
    assert_eq!(
        at(with_issuer, 1_741_985_960),
        Err(TokenRejection::NotYetValid)
    );
    assert_eq!(at(with_issuer, 1_741_985_961), Ok(()));
    let until_2032 = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2U6MEGnUCOrsGGmfXRKwFGmfXRKxYIOM6yRx830uqAam\
                      WFv1amFYRa5vaV2z5lIQTqFEvFh8z";
    assert_eq!(at(until_2032, 1_963_080_378), Ok(()));
    assert_eq!(at(until_2032, 1_963_080_379), Err(TokenRejection::Expired));
    let expired = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2U6MEGmfXP_YGGmfXQAsFGmfXQAtYINTT_KlOyhaV6NaSxFX\
                   kqJWfBagSkPkem10dysoA-C0w";
    assert_eq!(at(expired, NOW), Err(TokenRejection::Expired));
    let for_one_and_two = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2V6MDgmNvbmVjdHdvBhpn12R8BRpn12R8WCAdnSbU\
                           N4KbIvaHLn-q4f4YRpfq6ERYotByjbIyZ-EkfQ";
    assert_eq!(at(for_one_and_two, NOW), Ok(()));
    let wrong = "403697de87af64611c1d32b05dab0fe1fcb715a86ab435f1ec99192d79569388";
    let wrong = CatKey::hmac_256(&bytes(wrong)).unwrap();
    let wrong = accepted(until_2032, "akamai_key_hs256", wrong, &request("/"), NOW);
    assert_eq!(wrong, Err(TokenRejection::Signature));
}

/// As above: the issuer is wrong.
#[test]
fn node_cat_with_another_issuer_is_refused() {
    let token = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2VKMBZWpvbmFzBhpn12U-BRpn12U-WCDf1xHvhcnvyXUxd-DP4R\
                 Abayc8nC2PLJPPPbF3S00ruw";
    let issued_by = |issuer: &str| {
        let settings = CatSettings {
            keys: vec![(b"akamai_key_hs256".to_vec(), rfc_secret())],
            issuers: vec![issuer.to_owned()],
            accepts_no_expiry: true,
            ..CatSettings::default()
        };
        CatVerifier::new(settings).unwrap().verify(token).err()
    };
    assert_eq!(
        issued_by("coap://jonas.example.com"),
        Some(TokenRejection::Issuer)
    );
    assert_eq!(issued_by("jonas"), None);
}

/// As above, from older versions: the payload is a text with hex digits, where RFC 9052 has a byte
/// string; the key id has the text `4` for its label, and maps have the tag 259.
#[test]
fn node_cat_in_its_older_forms_is_refused() {
    for token in [
        "0YRDoQEFoQRMU3ltbWV0cmljMjU2eDZkOTAxMDNhMTAxNzU2MzZmNjE3MDNhMmYyZjYxNzMyZTY1Nzg2MTZkNzA2YzY1Mm\
         U2MzZmNmRYIDL8dIteq8pMXXX9oL4eo2NX1kQUaselV6p_JHSEVXWX",
        "2D3RhEOhAQW5AAFhNExTeW1tZXRyaWMyNTZYO9kBA6IBZ2V5ZXZpbm4ZATjZAQOjANkBA6EAZWh0dHBzA9kBA6EBaC9jb2\
         50ZW50CNkBA6EAZS5tM3U4WCCD42NQN46M44nvyg4eD4tKUo2-spMlXhtOHW3IiUFiXg==",
    ] {
        let refused = accepted(token, "Symmetric256", rfc_secret(), &request("/"), NOW);
        assert_eq!(refused, Err(TokenRejection::Malformed), "{token}");
    }
}

/// As above, a cookie that wants to be renewed as one.
#[test]
fn node_cat_cookie() {
    let token = "2D3RhFGiAQUETFN5bW1ldHJpYzI1NqBY-qcBZ2V5ZXZpbm4CeF41NmE1OGQ4OS0yYWJjLTRmZGMtOTM0Yy1jNzk\
                 5ODk0ZGIyNjc6NzEyZGUzYWJmMjgyMDMyYzdjMjY6OGEzMTg0M2YtNGIxZi00ODY4LWIyMzQtNjQxNTI2ZDAxMWU4BB\
                 poMBvFBRpoMBuJBhpoMBuJB1gkYzdhNDlmZmQtY2M3OS00Y2U1LTkzMzEtNmIxMjZiY2RkMWRkGQFDpQABARg8AhgeA\
                 3dDVEEtQ29tbW9uLUFjY2Vzcy1Ub2tlbgWEZlNlY3VyZXJEb21haW49LnR2NHBsYXkuc2VmcGF0aD0vbVNhbWVTaXRl\
                 PU5vbmVYICmzyUJdc5QJKHDrqakTajuSnARci7xvCaAeb212P3Lr";
    let explained = crate::explain(token).unwrap();
    assert_eq!(
        explained.fields[1],
        ("key id".to_owned(), "Symmetric256".to_owned())
    );
    let (name, value) = explained.fields.last().unwrap();
    assert_eq!(name, "catr");
    let expected = "by cookie, extension 60, deadline 30, cookie \"CTA-Common-Access-Token\", \
                    cookie parameters [\"Secure\", \"Domain=.tv4play.se\", \"path=/\", \
                    \"SameSite=None\"]";
    assert_eq!(value, expected);
    let (begin, end) = (0x6830_1b89, 0x6830_1bc5);
    let at = |now| accepted(token, "Symmetric256", rfc_secret(), &request("/"), now);
    assert_eq!(at(begin - 1), Err(TokenRejection::NotYetValid));
    assert_eq!(at(begin), Ok(()));
    assert_eq!(at(end), Err(TokenRejection::Expired));

    let settings = CatSettings {
        keys: vec![(b"Symmetric256".to_vec(), rfc_secret())],
        ..CatSettings::default()
    };
    let verifier = CatVerifier::new(settings).unwrap();
    let carriers = TokenCarriers {
        cookie: Some("CTA-Common-Access-Token".to_owned()),
        ..TokenCarriers::default()
    };
    let cat = verifier.verify(token).unwrap();
    let renew = |now| verifier.renew(&cat, &carriers, TokenCarrier::Cookie, now);
    assert_eq!(renew(end - 31), None);
    let renewed = renew(end - 30).unwrap();
    assert_eq!(renewed.name, "set-cookie");
    let value = renewed.value.to_str().unwrap();
    let token = value.strip_prefix("CTA-Common-Access-Token=").unwrap();
    let (token, parameters) = token.split_once("; ").unwrap();
    let expected = "Secure; Domain=.tv4play.se; path=/; SameSite=None";
    assert_eq!(parameters, expected);
    let renewed = verifier.verify(token).unwrap();
    assert_eq!(renewed.expires_at(), Some(end - 30 + 60));
}

/// fastly/rust-cat at b464f90, `src/tests.rs`.
#[test]
fn rust_cat() {
    let token = "2D3RhEOhAQWhBEd0ZXN0S2lkWOCnAWpwcmltZXZpZGVvAngkNWI4ZWQ2YjItZmNhNC00ZWQ1LTkxNWYtNThjZTF\
                 iMGYzMDRiB1gkZjI0ZmIxMDctNDA0MS00MTkxLThkMDktOWMzMzZkNWVjNzAyBRpofDGABBpoirIAGQE4ogahAXgkNG\
                 FkZGQ5ZTctZTUzMS00NzIxLTlhNjctYjJlNzQ1OTIyMmJiBaECeCYvZTA1OS83ODExLzE2NDAvNDdlMS05OTMwLTJhN\
                 DM0MWVhOGIxMBkBQ6MAAgEZA4QEdVgtUFYtQ0ROLUFjY2Vzcy1Ub2tlblggdBNqM-3RwdEOuIZ2UoF-jDq3z7DvNcjU\
                 WSISjCiugR4";
    let at = |secret: &[u8], target: &str, now| {
        accepted(
            token,
            "testKid",
            CatKey::short(secret),
            &request(target),
            now,
        )
    };
    let parent = "/dm/2$x/e059/7811/1640/47e1-9930-2a4341ea8b10";
    let target = format!("{parent}/4addd9e7-e531-4721-9a67-b2e7459222bb_video_1.mp4");
    let (begin, end) = (1_752_969_600, 1_753_919_999);
    assert_eq!(at(b"testSecret", &target, begin), Ok(()));
    assert_eq!(at(b"testSecret", &target, end), Ok(()));
    assert_eq!(
        at(b"testSecret", &target, begin - 1),
        Err(TokenRejection::NotYetValid)
    );
    assert_eq!(
        at(b"testSecret", &target, end + 1),
        Err(TokenRejection::Expired)
    );
    let other = format!("{parent}/other.mp4");
    assert_eq!(at(b"testSecret", &other, begin), Err(TokenRejection::Url));
    assert_eq!(
        at(
            b"testSecret",
            "/4addd9e7-e531-4721-9a67-b2e7459222bb",
            begin
        ),
        Err(TokenRejection::Url)
    );
    assert_eq!(
        at(b"wrongKey", &target, begin),
        Err(TokenRejection::Signature)
    );

    let with_slash = "2D3RhEOhAQWhBExTeW1tZXRyaWMyNTZYmKQBZ2Nkbm5hbWUCeCxBNXMyRnptNUI5UG5EVEVmS3VybGxMdn\
                       JUelJLSWl4ZERsMWI0TEZzZlB3PQQaaIqzLBkBOKIFoQJ4Ji9lMDU5Lzc4MTEvMTY0MC80N2UxLTk5MzAtMmE0M\
                       zQxZWE4YjEwBqEBeCUvMWJkMWUyNmUtMzQwNy00ODA1LWI4MDYtMTMyMTZiMzRkNGJmWCBxCao7OrEJkkIQ8DcTN\
                       UFB-bMV4vUcVohXksntwc42_w";
    // Its file name begins with a slash, which no file name does.
    let target = format!("{parent}/1bd1e26e-3407-4805-b806-13216b34d4bf");
    let key = CatKey::short(b"testKey");
    let refused = accepted(with_slash, "Symmetric256", key, &request(&target), begin);
    assert_eq!(refused, Err(TokenRejection::Url));
}

/// jedisct1/zig-common-access-token at 16962b9, `README.md`.
#[test]
fn zig_common_access_token() {
    let token = "2D3RhEOhAQWhBExTeW1tZXRyaWMyNTZYS6YHWCA1YmJjNDI2NWVmYTAxOGI4YjU4Y2I5OTQyY2IwODFmMQFnZXhhbXB\
                 sZQQaaQpK1gYaaQpKXgJndXNlcjEyMwNnc2VydmljZVggNRE3wudeG0Fd-vJMZiLpNRO6WU9lrtByioSvzuAEi7U";
    let at = |now| accepted(token, "Symmetric256", rfc_secret(), &request("/"), now);
    let end = 0x690a_4ad6;
    assert_eq!(at(end - 1), Ok(()));
    assert_eq!(at(end), Err(TokenRejection::Expired));
}

/// draft-ietf-moq-c4m at aeba690 (moq-wg/CAT-4-MOQT), appendix A. Its tokens are three parts with
/// dots between, without COSE, and its claims differ from CTA-5007-B: `catv` is a text, `catu` a
/// number, `catnip` and `cath` are maps of texts.
#[test]
fn cat_4_moqt_claims() {
    let core = "a501781868747470733a2f2f617574682e6578616d706c652e636f6d0381781968747470733a2f2f72656c6179\
                2e6578616d706c652e636f6d041a65554280051a6553f100074e746573742d746f6b656e2d303031";
    let core = crate::cat::claims::read(&bytes(core)).unwrap();
    assert_eq!(core.issuer.as_deref(), Some("https://auth.example.com"));
    assert_eq!(core.audiences, ["https://relay.example.com"]);
    let at = |now| core.cat.check(&request("/"), now);
    assert_eq!(at(1_699_999_999), Err(TokenRejection::NotYetValid));
    assert_eq!(at(1_700_000_000), Ok(()));
    assert_eq!(at(1_700_086_400), Err(TokenRejection::Expired));

    let issuer = "a101781868747470733a2f2f617574682e6578616d706c652e636f6d";
    assert!(crate::cat::claims::read(&bytes(issuer)).is_ok());
    let alpn = crate::cat::claims::read(&bytes("a119013a82666d6f712d3030626833"))
        .unwrap()
        .cat;
    let of = |protocol| {
        alpn.check(
            &TokenRequest {
                protocol,
                ..request("/")
            },
            NOW,
        )
    };
    assert_eq!(of(Some("h3")), Ok(()));
    assert_eq!(of(Some("h2")), Err(TokenRejection::Protocol));

    for (claims, label) in [
        // The draft prints `1901 3805` for a `catu` of 5, which would be a negative label.
        ("a2190136664341542d76311901380 5", 310),
        (
            "a1190137846d3139322e3136382e312e313030a16869705f72616e67656a31302e302e302e302f38a16361736e\
             19fc00a16961736e5f72616e6765821 9fc0019fd00",
            311,
        ),
        (
            "a119013b83782068747470733a2f2f6578616d706c652e636f6d2f6c6976652f73747265616d31a16670726566\
             6978781868747470733a2f2f6578616d706c652e636f6d2f766f642fa166737566666978652e6d337538",
            315,
        ),
    ] {
        let refused = crate::cat::claims::read(&bytes(claims)).err();
        assert_eq!(refused, Some(TokenRejection::Claim(label)), "{claims}");
    }
    let token = "ogEjEGNDQVQ.ogF4GGh0dHBzOi8vYXV0aC5leGFtcGxlLmNvbQQaZVVCgA.zmbxdkvbWtGtX0DExLC2nIxPDDmgAVImqk\
                 4rRSCCkCY";
    let refused = accepted(token, "", rfc_secret(), &request("/"), 1_700_000_000);
    assert_eq!(refused, Err(TokenRejection::Malformed));
}
