//! Tests of warnings: settings that work but are doubtful.

use insta::assert_snapshot;

use super::*;

#[test]
fn warns_of_an_admin_port_beyond_loopback() {
    let addresses = [
        "0.0.0.0:9090",
        "[::]:9090",
        "192.0.2.1:9090",
        "127.0.0.1:9090",
        "[::1]:9090",
        "127.9.9.9:9090",
    ];
    let listen = |address| first_line(format!("admin.listen = \"{address}\""));
    assert_snapshot!(diagnostics(&addresses.map(listen)));
}

#[test]
fn warns_of_unverified_certificates() {
    assert_snapshot!(diagnostics(&[in_origin("verify = false")]));
}

#[test]
fn warns_of_every_query_before_mediapackage() {
    let host = "https://abc123.egress.d4e5f6.mediapackagev2.eu-west-1.amazonaws.com";
    let routes = [
        "",
        "[[route]]\nquery = \"all\"\n",
        "[[route]]\npath = \"/out\"\n",
        "[[route]]\nquery = { manifest = \"all\", segment = \"none\" }\n",
        "[[route]]\nquery = \"mediapackage\"\n",
    ];
    let before = |route| file(format!("[[origin]]\nendpoints = [\"{host}\"]\n{route}"));
    assert_snapshot!(diagnostics(&routes.map(before)));
    let (_, warnings) = draft(ORIGIN).finish().expect("nothing wrong");
    assert_eq!(warnings.to_string(), "");
}

#[test]
fn warns_of_unkeyed_headers() {
    let diagnostics = diagnostics(&[
        in_route("unkeyed_headers = [\"X-Edge\", \"traceparent\"]"),
        in_route("forward_headers = [\"X-Tenant\", \"Cookie\"]"),
        in_route("forward_headers = [\"X-Tenant\"]"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn warns_of_timings_for_everyone() {
    let names = ["Host", "user-agent", "Range", "X-Debug-Timing"];
    let timed = |name: &str| in_route(format!("server_timing = \"{name}\""));
    assert_snapshot!(diagnostics(&names.map(timed)));
}

#[test]
fn reports_other_routes_beside_a_broken_one() {
    let broken = [
        "path = \"live/*\"",
        "path = 7",
        "hosts = [\"http://a.example\"]",
        "hosts = \"a\"",
    ];
    let beside = |line| in_route(format!("name = \"a\"\n[[route]]\nname = \"b\"\n{line}"));
    assert_snapshot!(diagnostics(&broken.map(beside)));
}

#[test]
fn suggests_only_valid_values() {
    let endpoint = |url| file(format!("[[origin]]\nendpoints = [\"{url}\"]\n"));
    let diagnostics = diagnostics(&[
        first_line("admin.listen = \":9090\""),
        endpoint(""),
        endpoint("https//x"),
        endpoint("https:/x"),
        endpoint("http:x.example"),
        endpoint("x.example:8080"),
        endpoint("://"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn masks_only_possible_secrets_on_a_broken_line() {
    let plain = file("[cache]\nmemory = \"1GiB\" \"2GiB\"\n");
    assert_snapshot!(diagnostics(&[plain]));
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
