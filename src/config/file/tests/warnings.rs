//! Tests of warnings: settings that work but are doubtful.

use super::*;

/// The rendered warnings of a text without errors.
fn warnings(source: &str) -> String {
    let (_, warnings) = draft(source).finish().expect("nothing wrong");
    assert_eq!(warnings.errors(), 0);
    warnings.to_string()
}

#[test]
fn warns_of_an_admin_port_beyond_loopback() {
    let of = |address: &str| warnings(&format!("[admin]\nlisten = \"{address}\"\n{ORIGIN}"));
    for open in ["0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090"] {
        assert!(
            of(open).contains("can be reached from other machines"),
            "{open}"
        );
    }
    for closed in ["127.0.0.1:9090", "[::1]:9090", "127.9.9.9:9090"] {
        assert_eq!(of(closed), "", "{closed}");
    }
}

#[test]
fn warns_of_unverified_certificates() {
    let text = warnings(&format!("{ORIGIN}verify = false\n"));
    assert!(
        text.contains("the certificates of this origin are not checked"),
        "{text}"
    );
}

#[test]
fn warns_of_every_query_before_mediapackage() {
    let host = "https://abc123.egress.d4e5f6.mediapackagev2.eu-west-1.amazonaws.com";
    let origin = format!("[[origin]]\nendpoints = [\"{host}\"]\n");
    let keeps_all = [
        origin.clone(),
        format!("{origin}[[route]]\nquery = \"all\"\n"),
        format!("{origin}[[route]]\npath = \"/out\"\n"),
        format!("{origin}[[route]]\nquery = {{ manifest = \"all\", segment = \"none\" }}\n"),
    ];
    for source in keeps_all {
        let text = warnings(&source);
        assert!(text.contains("makes objects of its own"), "{source}{text}");
    }
    assert_eq!(
        warnings(&format!("{origin}[[route]]\nquery = \"mediapackage\"\n")),
        ""
    );
    assert_eq!(warnings(ORIGIN), "");
}

#[test]
fn warns_of_unkeyed_headers() {
    let of = |line: &str| warnings(&format!("{ORIGIN}[[route]]\n{line}\n"));
    let text = of("unkeyed_headers = [\"X-Edge\", \"traceparent\"]");
    let expected = "`x-edge`, `traceparent` reach the origin and are NOT in the key";
    assert!(text.contains(expected), "{text}");
    let text = of("forward_headers = [\"X-Tenant\", \"Cookie\"]");
    assert!(text.contains("`cookie` differs with each viewer"), "{text}");
    assert_eq!(of("forward_headers = [\"X-Tenant\"]"), "");
}

#[test]
fn reports_other_routes_beside_a_broken_one() {
    let broken = [
        "path = \"live/*\"",
        "path = 7",
        "hosts = [\"http://a.example\"]",
        "hosts = \"a\"",
    ];
    for place in broken {
        let source = format!("{ORIGIN}[[route]]\nname = \"a\"\n[[route]]\nname = \"b\"\n{place}\n");
        let text = problems_text(1, &source);
        assert!(!text.contains("never taken"), "{text}");
    }
}

#[test]
fn suggests_only_valid_values() {
    let admin = problems_text(1, &format!("[admin]\nlisten = \":9090\"\n{ORIGIN}"));
    assert!(
        admin.contains("127.0.0.1:9090") && !admin.contains("0.0.0.0"),
        "{admin}"
    );
    let origin = |url: &str| problems_text(1, &format!("[[origin]]\nendpoints = [\"{url}\"]\n"));
    let empty = origin("");
    assert!(
        empty.contains("this is empty") && !empty.contains("did you mean"),
        "{empty}"
    );
    for (written, meant) in [
        ("https//x", "https://x"),
        ("https:/x", "https://x"),
        ("http:x.example", "http://x.example"),
        ("x.example:8080", "https://x.example:8080"),
    ] {
        let text = origin(written);
        assert!(
            text.contains(&format!("did you mean \"{meant}\"?")),
            "{text}"
        );
    }
    assert!(!origin("://").contains("did you mean"));
}

#[test]
fn masks_only_possible_secrets_on_a_broken_line() {
    let plain = problems_text(1, "[cache]\nmemory = \"1GiB\" \"2GiB\"\n");
    assert!(plain.contains("1GiB"), "{plain}");
    let secrets = [
        "[[origin]]\nheaders = { X-Token = \"s3cret\" \"x\" }\n",
        "[[origin]]\nheaders = {\nX-Token = \"s3cret\" \"x\"\n",
        "[origin.headers]\nx-token = \"s3cret\" \"x\"\n",
        "[[origin]]\nendpoints = [\"https://me:s3cret@x.example\" \"x\"]\n",
    ];
    for source in secrets {
        let problems = draft(source).finish().expect_err("broken").to_string();
        assert!(!problems.contains("s3cret"), "{problems}");
    }
}
