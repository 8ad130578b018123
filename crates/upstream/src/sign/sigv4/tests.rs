//! Requests as they are sent: compares them with AWS's published test suite, and with S3 signatures
//! computed outside this code.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// The time used by the suite: 2015-08-30T12:36:00Z.
const NOW: Duration = Duration::from_mins(24_015_636);

fn credentials(token: Option<&str>) -> Credentials {
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    Credentials::new("AKIDEXAMPLE", secret, token.map(str::to_owned), None)
}

/// The target to send for a requested target.
fn asked(place: &CredentialScope<'_>, target: &str) -> Option<PathAndQuery> {
    let service = if place.is_s3 {
        Service::S3
    } else {
        Service::MediaPackageV2
    };
    let regions = vec![place.region.to_owned()];
    let target: PathAndQuery = target.parse().ok()?;
    let asked = Scope { regions, service }.target(&target);
    assert!(
        asked.is_ok() || target.as_str().len() > TARGET_BYTES_MAX / 3,
        "{target}"
    );
    asked.ok()
}

fn signed(
    place: &CredentialScope<'_>,
    method: &Method,
    target: &str,
    token: Option<&str>,
    set: &[(&'static str, &'static str)],
) -> HeaderMap {
    let host = if place.is_s3 {
        "b.s3.example"
    } else {
        "example.amazonaws.com"
    };
    let field = |(name, value): &(&'static str, &'static str)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    };
    let message = Message {
        method,
        host: &HeaderValue::from_static(host),
        target: &asked(place, target).unwrap(),
        headers: &set.iter().map(field).collect(),
        bodiless: true,
    };
    let fields = place.sign(&message, &credentials(token), UNIX_EPOCH + NOW);
    fields.unwrap().into_iter().collect()
}

const SUITE: CredentialScope<'_> = CredentialScope {
    region: "us-east-1",
    name: "service",
    is_s3: false,
};
const S3: CredentialScope<'_> = CredentialScope {
    name: "s3",
    is_s3: true,
    ..SUITE
};

fn signature(headers: &HeaderMap) -> &str {
    let authorization = headers["authorization"].to_str().unwrap();
    authorization.rsplit_once("Signature=").unwrap().1
}

#[test]
fn signatures_match_aws_published_vectors() {
    let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let vectors = [
        // get-vanilla
        (
            "/",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        // get-vanilla-query-order-key-case
        (
            "/?Param2=value2&Param1=value1",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        // get-vanilla-query-order-encoded
        (
            "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        // get-vanilla-query-unreserved
        (
            &format!("/?{unreserved}={unreserved}"),
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        // get-utf8
        (
            "/ሴ",
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        ),
        // get-relative-relative-normalized
        (
            "/example1/example2/../..",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        // get-slashes-normalized
        (
            "//example//",
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
    ];
    for (target, expected) in vectors {
        let headers = signed(&SUITE, &Method::GET, target, None, &[]);
        assert_eq!(signature(&headers), expected, "{target}");
        assert_eq!(headers["x-amz-date"], "20150830T123600Z");
        assert_eq!(headers.len(), 2);
    }
}

#[test]
fn session_token_and_post_match_aws_published_vectors() {
    // get-vanilla-with-session-token
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    let headers = signed(&SUITE, &Method::GET, "/", Some(token), &[]);
    let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/\
        aws4_request, SignedHeaders=host;x-amz-date;x-amz-security-token, \
        Signature=07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8";
    assert_eq!(headers["authorization"], expected);
    assert_eq!(headers["x-amz-security-token"], token);
    assert!(headers.values().all(HeaderValue::is_sensitive));
    // post-vanilla
    let posted = signed(&SUITE, &Method::POST, "/", None, &[]);
    let expected = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
    assert_eq!(signature(&posted), expected);
}

#[test]
fn s3_signature_of_unusual_path_matches_reference() {
    let target = "/live/../a%20b(1)//é%2f%zz.m4s?x=1&part";
    let theirs = [
        ("x-amz-request-payer", "requester"),
        ("x-amz-date", "yesterday"),
        ("authorization", "theirs"),
        ("range", "bytes=0-9"),
    ];
    let headers = signed(&S3, &Method::GET, target, None, &theirs);
    assert_eq!(headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    let expected = "fe023a11a054d050c23cb73853debaf447758157947dbc3a9c322886164962dc";
    assert_eq!(signature(&headers), expected);
}

#[test]
fn sends_the_path_in_the_form_that_is_signed() {
    let of = |place: &CredentialScope<'_>, target: &str| {
        let headers = signed(place, &Method::GET, target, None, &[]);
        signature(&headers).to_owned()
    };
    assert_eq!(of(&S3, "/a(b)%7Ec"), of(&S3, "/a%28b%29~c"));
    assert_eq!(
        asked(&S3, "/a(b)+%7Ec/../%2f?+").unwrap(),
        "/a%28b%29%2B~c/..//?+"
    );
    assert_eq!(
        asked(&SUITE, "/a(b)+%7Ec/../%2f?+").unwrap(),
        "/a(b)+%7Ec/../%2f?+"
    );
    assert_ne!(of(&S3, "/a//b"), of(&S3, "/a/b"));
    assert_ne!(of(&SUITE, "/a%7Ec"), of(&SUITE, "/a~c"));
    assert_eq!(of(&SUITE, "/x?b=2&a=1"), of(&SUITE, "/x?a=1&b=2"));
}

/// Signs any valid target, both ways.
fn sign_anything(target: &str) {
    for place in [&SUITE, &S3] {
        let Some(target) = asked(place, target) else {
            continue;
        };
        let message = Message {
            method: &Method::GET,
            host: &HeaderValue::from_static("o.example"),
            target: &target,
            headers: &HeaderMap::new(),
            bodiless: true,
        };
        let fields = place.sign(&message, &credentials(None), UNIX_EPOCH + NOW);
        assert!(fields.is_ok(), "{target}");
    }
}

#[test]
fn long_and_malformed_targets_are_signed_or_rejected() {
    for target in [
        "/?",
        "/?&&=&%",
        "//",
        "/%",
        "/%f",
        "/\"{}|^`\\",
        "/?é=é&%ff=%FF+",
        "*",
    ] {
        sign_anything(target);
    }
    for length in [TARGET_BYTES_MAX - 2, TARGET_BYTES_MAX, 60_000] {
        for filling in ["\"", "'", "%", "&", "%ff", "/../"] {
            let filling = filling.repeat(length / filling.len());
            sign_anything(&format!("/{filling}"));
            sign_anything(&format!("/?{filling}"));
        }
    }
}

proptest::proptest! {
    #[test]
    fn signing_does_not_panic_for_any_target(target in "/[ -~é]{0,40}(\\?[ -~é]{0,40})?") {
        sign_anything(&target);
    }
}

#[test]
fn each_endpoint_is_signed_for_its_own_region() {
    let endpoint = |host: &str, region: Option<&str>| Endpoint {
        region: region.map(str::to_owned),
        ..Endpoint::new(true, host, 443)
    };
    let one = "abc.egress.def.mediapackagev2.eu-west-1.amazonaws.com";
    let endpoints = [
        endpoint(one, None),
        endpoint(
            "abc.egress.def.mediapackagev2.eu-central-1.amazonaws.com",
            None,
        ),
        endpoint("media.s3.us-east-2.amazonaws.com", None),
        endpoint(one, Some("us-west-2")),
        endpoint("private.example", None),
    ];
    let sigv4 = |region: Option<&str>| Sigv4 {
        region: region.map(str::to_owned),
        service: Service::MediaPackageV2,
        sources: Vec::new(),
    };
    assert_eq!(Scope::of(&sigv4(None), &endpoints), Err(4));
    let scope = Scope::of(&sigv4(Some("ap-south-1")), &endpoints).unwrap();
    let expected = [
        "eu-west-1",
        "eu-central-1",
        "us-east-2",
        "us-west-2",
        "ap-south-1",
    ];
    assert_eq!(scope.regions, expected);
    let target = "/x".parse().unwrap();
    let message = Message {
        method: &Method::GET,
        host: &HeaderValue::from_static("a.example"),
        target: &target,
        headers: &HeaderMap::new(),
        bodiless: true,
    };
    for (place, region) in expected.into_iter().enumerate() {
        let fields = scope
            .sign(place, &message, &credentials(None), UNIX_EPOCH + NOW)
            .unwrap();
        let said = format!("/20150830/{region}/mediapackagev2/aws4_request");
        let authorization = fields.iter().find(|(name, _)| name == "authorization");
        assert!(authorization.unwrap().1.to_str().unwrap().contains(&said));
    }
}
