//! AWS's published test suite for Signature Version 4, but for its bodies (a shield signs none).
//! <https://github.com/awslabs/aws-c-auth/tree/v0.9.0/tests/aws-signing-test-suite>

use std::time::Duration;

use super::*;

/// 2015-08-30T12:36:00Z.
const NOW: Duration = Duration::from_mins(24_015_636);
const UNRESERVED: &str = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn vanilla<'a>() -> CanonicalRequest<'a> {
    CanonicalRequest {
        method: "GET",
        path: "/".to_owned(),
        query: String::new(),
        fields: BTreeMap::new(),
        payload: EMPTY_PAYLOAD,
    }
}

fn with_path<'a>(path: impl Into<String>) -> CanonicalRequest<'a> {
    CanonicalRequest {
        path: path.into(),
        ..vanilla()
    }
}

fn normalized<'a>(path: &str) -> CanonicalRequest<'a> {
    with_path(normalized_path(path))
}

fn with_query<'a>(query: &str) -> CanonicalRequest<'a> {
    CanonicalRequest {
        query: canonical_query(query),
        ..vanilla()
    }
}

fn with_fields<'a>(fields: &[(&'a str, &str)]) -> CanonicalRequest<'a> {
    let mut request = vanilla();
    for (name, value) in fields {
        request.add_field(name, value);
    }
    request
}

fn posted(request: CanonicalRequest<'_>) -> CanonicalRequest<'_> {
    CanonicalRequest {
        method: "POST",
        ..request
    }
}

/// The signature, with the fields that every request of the suite has.
fn signature(mut request: CanonicalRequest<'_>) -> String {
    let time = SigningTime::new(UNIX_EPOCH + NOW);
    request.add_field("host", "example.amazonaws.com");
    request.add_field("x-amz-date", time.as_str());
    let scope = SigningScope {
        time: &time,
        region: "us-east-1",
        service: "service",
    };
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let credentials = Credentials::new("AKIDEXAMPLE", secret, None, None);
    let authorization = request.authorization(&scope, &credentials);
    authorization
        .rsplit_once("Signature=")
        .unwrap()
        .1
        .to_owned()
}

#[track_caller]
fn check<'a>(vectors: impl IntoIterator<Item = (&'a str, CanonicalRequest<'a>, &'a str)>) {
    for (name, request, expected) in vectors {
        assert_eq!(signature(request), expected, "{name}");
    }
}

const VANILLA: &str = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
const POST: &str = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";

#[test]
fn signs_fields_as_published() {
    check([
        ("get-vanilla", vanilla(), VANILLA),
        (
            "get-header-key-duplicate",
            with_fields(&[
                ("my-header1", "value2"),
                ("my-header1", "value2"),
                ("my-header1", "value1"),
            ]),
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        ),
        (
            "get-header-value-order",
            with_fields(&[
                ("my-header1", "value4"),
                ("my-header1", "value1"),
                ("my-header1", "value3"),
                ("my-header1", "value2"),
            ]),
            "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        ),
        (
            "get-header-value-trim",
            with_fields(&[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")]),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "post-header-key-sort",
            posted(with_fields(&[("my-header1", "value1")])),
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
        (
            "post-header-value-case",
            posted(with_fields(&[("my-header1", "VALUE1")])),
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
        ("post-vanilla", posted(vanilla()), POST),
    ]);
}

#[test]
fn normalizes_paths_as_published() {
    check([
        (
            "get-relative-normalized",
            normalized("/example/.."),
            VANILLA,
        ),
        (
            "get-relative-relative-normalized",
            normalized("/example1/example2/../.."),
            VANILLA,
        ),
        ("get-slash-dot-slash-normalized", normalized("/./"), VANILLA),
        ("get-slash-normalized", normalized("//"), VANILLA),
        (
            "get-slash-pointless-dot-normalized",
            normalized("/./example"),
            "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
        ),
        (
            "get-slashes-normalized",
            normalized("//example//"),
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
        (
            "get-unreserved",
            normalized(&format!("/{UNRESERVED}")),
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "get-utf8",
            normalized("/ሴ"),
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        ),
        (
            "get-space-unnormalized",
            normalized("/example space/"),
            "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        ),
    ]);
}

#[test]
fn keeps_paths_as_published() {
    check([
        (
            "get-relative-unnormalized",
            with_path("/example/.."),
            "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282",
        ),
        (
            "get-relative-relative-unnormalized",
            with_path("/example1/example2/../.."),
            "dc33e0856fd4baca4d7aa2146c38958283844764f38c74252a333df5e613003b",
        ),
        (
            "get-slash-dot-slash-unnormalized",
            with_path("/./"),
            "68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145",
        ),
        (
            "get-slash-unnormalized",
            with_path("//"),
            "c88bcd3d312d75078c0cd961d6deae3f4c754924b01669efcfcb439fd5e5b76e",
        ),
        (
            "get-slash-pointless-dot-unnormalized",
            with_path("/./example"),
            "beb03f223f7deae4146464f06e29eebbee9c8afbe15c290cf07aa8b119e14cff",
        ),
        (
            "get-slashes-unnormalized",
            with_path("//example//"),
            "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
        ),
    ]);
}

#[test]
fn orders_parameters_as_published() {
    check([
        (
            "get-vanilla-empty-query-key",
            with_query("Param1=value1"),
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        ),
        (
            "get-vanilla-query-order-encoded",
            with_query("Param-3=Value3&Param=Value2&%E1%88%B4=Value1"),
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "get-vanilla-query-order-key-case",
            with_query("Param2=value2&Param1=value1"),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "get-vanilla-query-unreserved",
            with_query(&format!("{UNRESERVED}={UNRESERVED}")),
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        (
            "get-vanilla-utf8-query",
            with_query("ሴ=bar"),
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        (
            "post-vanilla-query",
            posted(with_query("Param1=value1")),
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
    ]);
}

#[test]
fn writes_parameters_in_one_form() {
    for (query, expected) in [
        ("", ""),
        ("&&", ""),
        ("b&a=1&a=0&=x", "=x&a=0&a=1&b="),
        ("a=b=c+d%2b%20%zz%", "a=b%3Dc%20d%2B%20%25zz%25"),
        ("a=%ff%C3%A9", "a=%FF%C3%A9"),
    ] {
        assert_eq!(canonical_query(query), expected, "{query}");
    }
}
