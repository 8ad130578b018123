//! Does each kind of mistake give the right place and the right advice?

use super::*;

#[test]
fn unknown_keys_get_the_nearest_name() {
    first_line(
        "limits.conections_max = 5",
        8,
        "conections_max",
        &["did you mean `connections_max`?"],
    );
    first_line(
        "lissteners = 5",
        1,
        "lissteners",
        &["did you mean `listener`?", "in the file"],
    );
    first_line(
        "admin.colour = 5",
        7,
        "colour",
        &["in [admin]", "the keys here are listen"],
    );
    in_origin(
        "concurrency-max = 5",
        1,
        "concurrency-max",
        &["`concurrency_max`", "[[origin]]"],
    );
    in_route(
        "lifetimes = { manifest_mx = \"1s\" }",
        15,
        "manifest_mx",
        &["`manifest_max`"],
    );
}

#[test]
fn wrong_types_are_named() {
    first_line(
        "server.threads = \"two\"",
        18,
        "\"two\"",
        &["whole number", "this is a string"],
    );
    first_line(
        "cache.memory = true",
        16,
        "true",
        &["a size such as", "this is a boolean"],
    );
    first_line(
        "fill.finish_abandoned = 1",
        25,
        "1",
        &["true or false", "this is an integer"],
    );
    first_line("limits = 5", 10, "5", &["must be a table"]);
    first_line(
        "limits.streams_max = 5_000_000_000",
        22,
        "5_000_000_000",
        &["too large"],
    );
    first_line(
        "limits.streams_max = -1",
        22,
        "-1",
        &["must not be negative"],
    );
    first_line("limits.streams_max = 0", 22, "0", &["at least 1"]);
    in_origin("requests_per_second_max = 0", 27, "0", &["at least 1"]);
    one(
        "[origin]\nendpoints = [\"https://origin.example\"]\n",
        "1:1",
        "[origin]",
        &["write [[origin]] with double brackets"],
    );
}

#[test]
fn durations_and_sizes_come_with_units() {
    first_line(
        "limits.idle_timeout = 75",
        23,
        "75",
        &["did you mean \"75s\"?"],
    );
    first_line(
        "limits.idle_timeout = \"75\"",
        23,
        "\"75\"",
        &["did you mean \"75s\"?"],
    );
    first_line(
        "limits.idle_timeout = \"75 parsecs\"",
        23,
        "\"75 parsecs\"",
        &["the units are"],
    );
    first_line(
        "limits.idle_timeout = \"0s\"",
        23,
        "\"0s\"",
        &["longer than nothing"],
    );
    first_line(
        "cache.memory = \"64M\"",
        16,
        "\"64M\"",
        &["did you mean \"64MiB\"?"],
    );
}

#[test]
fn wrong_addresses_are_underlined() {
    first_line(
        "admin.listen = \":9090\"",
        16,
        "\":9090\"",
        &["did you mean \"127.0.0.1:9090\"?"],
    );
    first_line(
        "listener = [{ listen = \"8080\" }]",
        24,
        "\"8080\"",
        &["\"0.0.0.0:8080\"?"],
    );
    first_line(
        "listener = [{}]",
        13,
        "{}",
        &["has no `listen`", "add listen ="],
    );
    one(
        "[[origin]]\nendpoints = [\"a.example\"]\n",
        "2:14",
        "\"a.example\"",
        &["https://a.example"],
    );
}

#[test]
fn an_address_is_used_once() {
    let two = "listener = [{ listen = \"0.0.0.0:80\" }, { listen = \"127.0.0.1:80\" }]";
    first_line(
        two,
        51,
        "\"127.0.0.1:80\"",
        &["two listeners share", "taken by this one"],
    );
    first_line(
        "admin.listen = \"127.0.0.1:8080\"",
        16,
        "\"127.0.0.1:8080\"",
        &["default listener"],
    );
    let free = "listener = [{ listen = \"0.0.0.0:0\" }, { listen = \"0.0.0.0:0\" }]\n";
    assert_eq!(config(&format!("{free}{ORIGIN}")).edge.listeners.len(), 2);
}

#[test]
fn names_are_unique_and_known() {
    let twice =
        format!("{ORIGIN}[[origin]]\nname = \"main\"\nendpoints = [\"http://b.example\"]\n");
    let route = "[[route]]\norigin = \"main\"\n";
    let words = ["two origins are called `main`", "the name first"];
    one(&format!("{twice}{route}"), "5:8", "\"main\"", &words);
    in_route(
        "origin = \"mian\"",
        10,
        "\"mian\"",
        &["did you mean \"main\"?"],
    );
    in_route(
        "origin = \"zebra\"",
        10,
        "\"zebra\"",
        &["the origins are main"],
    );
    let routes = "[[route]]\nname = \"a\"\npath = \"/a\"\n[[route]]\nname = \"a\"\n";
    one(
        &format!("{ORIGIN}{routes}"),
        "7:1",
        "[[route]]",
        &["two routes are called `a`"],
    );
}

#[test]
fn routes_that_are_never_taken_are_named() {
    let routes = "[[route]]\nhosts = [\"A.example\"]\npath = \"/live/\"\n\
                  [[route]]\nhosts = [\"b.example\", \"a.example.\"]\npath = \"/live\"\n";
    let words = [
        "never taken for host `a.example` and path `/live`",
        "taken by this route",
    ];
    one(&format!("{ORIGIN}{routes}"), "7:1", "[[route]]", &words);
}

#[test]
fn origins_need_endpoints_and_routes_need_origins() {
    one(
        "[[origin]]\nname = \"main\"\n",
        "1:1",
        "[[origin]]",
        &["has no `endpoints`"],
    );
    one(
        "[[origin]]\nendpoints = []\n",
        "2:13",
        "[]",
        &["this is empty"],
    );
    let twice = "[[origin]]\nendpoints = [\"http://a.example\", \"http://A.example:80\"]\n";
    one(
        twice,
        "2:34",
        "\"http://A.example:80\"",
        &["in the list already"],
    );
    let two = format!("{ORIGIN}[[origin]]\nendpoints = [\"http://b.example\"]\n");
    one(
        &two,
        "4:1",
        "[[origin]]",
        &["no route says which origin", "add a [[route]]"],
    );
    one(
        &format!("{two}[[route]]\n"),
        "6:1",
        "[[route]]",
        &["has no `origin`"],
    );
    assert!(complaint(1, "").contains("no origin is named"));
}

#[test]
fn what_counts_of_a_request_is_checked() {
    in_route(
        "live = { hold_early = \"6s\" }",
        23,
        "\"6s\"",
        &["at most 5s"],
    );
    in_route("query = \"non\"", 9, "\"non\"", &["did you mean \"none\"?"]);
    in_route("query = { }", 9, "{ }", &["one of `only` and `except`"]);
    in_route(
        "query = { segmnt = \"none\" }",
        11,
        "segmnt",
        &["did you mean `segment`?"],
    );
    in_route(
        "query = { segment = \"mediapackage\" }",
        21,
        "\"mediapackage\"",
        &["`segment` must be \"all\""],
    );
    in_route(
        "forward_headers = [\"CMCD-Session\"]",
        20,
        "\"CMCD-Session\"",
        &["goes to no origin"],
    );
}

#[test]
fn settings_of_routes_are_checked() {
    in_route(
        "hosts = [\"a.example:80\"]",
        10,
        "\"a.example:80\"",
        &["did you mean \"a.example\"?"],
    );
    in_route("hosts = []", 9, "[]", &["this is empty"]);
    in_route(
        "path = \"live\"",
        8,
        "\"live\"",
        &["did you mean \"/live\"?"],
    );
    in_route(
        "cors = { only = [\"a.example\"] }",
        18,
        "\"a.example\"",
        &["https://a.example"],
    );
    in_route(
        "forward_headers = [\"Host\"]",
        20,
        "\"Host\"",
        &["forward_host = true"],
    );
    in_route(
        "forward_headers = [\"TE\"]",
        20,
        "\"TE\"",
        &["the shield sets this one itself"],
    );
    in_route(
        "forward_headers = [\"a b\"]",
        20,
        "\"a b\"",
        &["not a header's name"],
    );
    let lifetimes = "lifetimes = { segment_min = \"2h\", segment_max = \"1h\" }";
    in_route(lifetimes, 29, "\"2h\"", &["out of step"]);
    in_route(
        "lifetimes = { manifest_stale_if_missing = \"61s\" }",
        43,
        "\"61s\"",
        &["at most `manifest_stale_if_error`", "longer than that"],
    );
    in_route(
        "lifetimes = { manifest_stale_share = -0.5 }",
        38,
        "-0.5",
        &["out of range"],
    );
}

#[test]
fn settings_of_origins_are_checked() {
    in_origin(
        "protocol = \"h3\"",
        12,
        "\"h3\"",
        &["\"auto\", \"h1\" or \"h2\""],
    );
    in_origin("sni = \"a b\"", 7, "\"a b\"", &["not a host name"]);
    in_origin("host = \"a/b\"", 8, "\"a/b\"", &["not a host"]);
    in_origin(
        "ca_file = \"no.pem\"",
        11,
        "\"no.pem\"",
        &["No such file", "looked for is no.pem"],
    );
    in_origin("headers = { Host = \"a\" }", 13, "Host", &["write host ="]);
    in_origin(
        "headers = { Connection = \"a\" }",
        13,
        "Connection",
        &["sets `connection` itself"],
    );
    in_origin(
        "headers = { Expect = \"a\" }",
        13,
        "Expect",
        &["sets `expect` itself"],
    );
    in_origin(
        "deadlines = { total = 5 }",
        23,
        "5",
        &["did you mean \"5s\"?"],
    );
    first_line(
        "cache = { memory = \"1MiB\", object_max = \"2MiB\" }",
        41,
        "\"2MiB\"",
        &["`memory`"],
    );
    first_line(
        "cache.kind_max = { hlss = 5 }",
        20,
        "hlss",
        &["did you mean `hls`?"],
    );
}

/// What is doubtful about a text in which nothing is wrong.
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
fn warns_of_certificates_that_are_not_checked() {
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
fn a_route_with_a_broken_place_hides_no_other() {
    let broken = [
        "path = \"live/*\"",
        "path = 7",
        "hosts = [\"http://a.example\"]",
        "hosts = \"a\"",
    ];
    for place in broken {
        let source = format!("{ORIGIN}[[route]]\nname = \"a\"\n[[route]]\nname = \"b\"\n{place}\n");
        let text = complaint(1, &source);
        assert!(!text.contains("never taken"), "{text}");
    }
}

#[test]
fn suggestions_are_safe_and_make_sense() {
    let admin = complaint(1, &format!("[admin]\nlisten = \":9090\"\n{ORIGIN}"));
    assert!(
        admin.contains("127.0.0.1:9090") && !admin.contains("0.0.0.0"),
        "{admin}"
    );
    let origin = |url: &str| complaint(1, &format!("[[origin]]\nendpoints = [\"{url}\"]\n"));
    let empty = origin("");
    assert!(
        empty.contains("this is empty") && !empty.contains("did you mean"),
        "{empty}"
    );
    for (typed, meant) in [
        ("https//x", "https://x"),
        ("https:/x", "https://x"),
        ("http:x.example", "http://x.example"),
        ("x.example:8080", "https://x.example:8080"),
    ] {
        let text = origin(typed);
        assert!(
            text.contains(&format!("did you mean \"{meant}\"?")),
            "{text}"
        );
    }
    assert!(!origin("://").contains("did you mean"));
}

#[test]
fn only_what_may_be_a_secret_is_masked_on_a_broken_line() {
    let plain = complaint(1, "[cache]\nmemory = \"1GiB\" \"2GiB\"\n");
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
