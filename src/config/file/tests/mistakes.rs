//! Tests that each kind of mistake is reported with its position and the right help.

use super::*;

#[test]
fn suggests_the_nearest_name_for_unknown_keys() {
    assert_first_line_problem(
        "limits.conections_max = 5",
        8,
        "conections_max",
        &["did you mean `connections_max`?"],
    );
    assert_first_line_problem(
        "lissteners = 5",
        1,
        "lissteners",
        &["did you mean `listener`?", "in the file"],
    );
    assert_first_line_problem(
        "admin.colour = 5",
        7,
        "colour",
        &["in [admin]", "the keys here are hosts, listen"],
    );
    assert_origin_problem(
        "concurrency-max = 5",
        1,
        "concurrency-max",
        &["`concurrency_max`", "[[origin]]"],
    );
    assert_route_problem(
        "lifetimes = { manifest_mx = \"1s\" }",
        15,
        "manifest_mx",
        &["`manifest_max`"],
    );
}

#[test]
fn names_the_new_name_of_a_renamed_key() {
    assert_first_line_problem(
        "cache.uncacheable_memory = \"10s\"",
        7,
        "uncacheable_memory",
        &["its name is `uncacheable_ttl` now"],
    );
}

#[test]
fn names_wrong_types() {
    assert_first_line_problem(
        "server.threads = \"two\"",
        18,
        "\"two\"",
        &["whole number", "this is a string"],
    );
    assert_first_line_problem(
        "cache.memory = true",
        16,
        "true",
        &["a size such as", "this is a boolean"],
    );
    assert_first_line_problem(
        "fill.finish_abandoned = 1",
        25,
        "1",
        &["true or false", "this is an integer"],
    );
    assert_first_line_problem("limits = 5", 10, "5", &["must be a table"]);
    assert_first_line_problem(
        "limits.streams_max = 5_000_000_000",
        22,
        "5_000_000_000",
        &["too large"],
    );
    assert_first_line_problem(
        "limits.streams_max = -1",
        22,
        "-1",
        &["must not be negative"],
    );
    assert_first_line_problem("limits.streams_max = 0", 22, "0", &["at least 1"]);
    assert_origin_problem("requests_per_second_max = 0", 27, "0", &["at least 1"]);
    assert_problem(
        "[origin]\nendpoints = [\"https://origin.example\"]\n",
        "1:1",
        "[origin]",
        &["write [[origin]] with double brackets"],
    );
}

#[test]
fn requires_units_for_durations_and_sizes() {
    assert_first_line_problem(
        "limits.idle_timeout = 75",
        23,
        "75",
        &["did you mean \"75s\"?"],
    );
    assert_first_line_problem(
        "limits.idle_timeout = \"75\"",
        23,
        "\"75\"",
        &["did you mean \"75s\"?"],
    );
    assert_first_line_problem(
        "limits.idle_timeout = \"75 parsecs\"",
        23,
        "\"75 parsecs\"",
        &["the units are"],
    );
    assert_first_line_problem(
        "limits.idle_timeout = \"0s\"",
        23,
        "\"0s\"",
        &["longer than 0s"],
    );
    assert_first_line_problem(
        "cache.memory = \"64M\"",
        16,
        "\"64M\"",
        &["did you mean \"64MiB\"?"],
    );
}

#[test]
fn underlines_wrong_addresses() {
    assert_first_line_problem(
        "admin.listen = \":9090\"",
        16,
        "\":9090\"",
        &["did you mean \"127.0.0.1:9090\"?"],
    );
    assert_first_line_problem(
        "listener = [{ listen = \"8080\" }]",
        24,
        "\"8080\"",
        &["\"0.0.0.0:8080\"?"],
    );
    assert_first_line_problem(
        "listener = [{}]",
        13,
        "{}",
        &["has no `listen`", "add listen ="],
    );
    assert_problem(
        "[[origin]]\nendpoints = [\"a.example\"]\n",
        "2:14",
        "\"a.example\"",
        &["https://a.example"],
    );
}

#[test]
fn rejects_an_address_that_is_used_twice() {
    let two = "listener = [{ listen = \"0.0.0.0:80\" }, { listen = \"127.0.0.1:80\" }]";
    assert_first_line_problem(
        two,
        51,
        "\"127.0.0.1:80\"",
        &["two listeners share", "taken by this one"],
    );
    assert_first_line_problem(
        "admin.listen = \"127.0.0.1:8080\"",
        16,
        "\"127.0.0.1:8080\"",
        &["default listener"],
    );
    let free = "listener = [{ listen = \"0.0.0.0:0\" }, { listen = \"0.0.0.0:0\" }]\n";
    assert_eq!(
        config(&format!("{free}{ORIGIN}")).frontend.listeners.len(),
        2
    );
}

#[test]
fn rejects_duplicate_and_unknown_names() {
    let twice =
        format!("{ORIGIN}[[origin]]\nname = \"main\"\nendpoints = [\"http://b.example\"]\n");
    let route = "[[route]]\norigin = \"main\"\n";
    let words = ["two origins are called `main`", "the name first"];
    assert_problem(&format!("{twice}{route}"), "5:8", "\"main\"", &words);
    assert_route_problem(
        "origin = \"mian\"",
        10,
        "\"mian\"",
        &["did you mean \"main\"?"],
    );
    assert_route_problem(
        "origin = \"zebra\"",
        10,
        "\"zebra\"",
        &["the origins are main"],
    );
    let routes = "[[route]]\nname = \"a\"\npath = \"/a\"\n[[route]]\nname = \"a\"\n";
    assert_problem(
        &format!("{ORIGIN}{routes}"),
        "7:1",
        "[[route]]",
        &["two routes are called `a`"],
    );
}

#[test]
fn rejects_unreachable_routes() {
    let routes = "[[route]]\nhosts = [\"A.example\"]\npath = \"/live/\"\n\
                  [[route]]\nhosts = [\"b.example\", \"a.example.\"]\npath = \"/live\"\n";
    let words = [
        "never taken for host `a.example` and path `/live`",
        "taken by this route",
    ];
    assert_problem(&format!("{ORIGIN}{routes}"), "7:1", "[[route]]", &words);
}

#[test]
fn requires_endpoints_and_an_origin_per_route() {
    assert_problem(
        "[[origin]]\nname = \"main\"\n",
        "1:1",
        "[[origin]]",
        &["has no `endpoints`"],
    );
    assert_problem(
        "[[origin]]\nendpoints = []\n",
        "2:13",
        "[]",
        &["this is empty"],
    );
    let twice = "[[origin]]\nendpoints = [\"http://a.example\", \"http://A.example:80\"]\n";
    assert_problem(
        twice,
        "2:34",
        "\"http://A.example:80\"",
        &["in the list already"],
    );
    let two = format!("{ORIGIN}[[origin]]\nendpoints = [\"http://b.example\"]\n");
    assert_problem(
        &two,
        "4:1",
        "[[origin]]",
        &["no route says which origin", "add a [[route]]"],
    );
    assert_problem(
        &format!("{two}[[route]]\n"),
        "6:1",
        "[[route]]",
        &["has no `origin`"],
    );
    assert!(problems_text(1, "").contains("no origin is named"));
}

#[test]
fn rejects_invalid_queries_and_headers() {
    assert_route_problem(
        "live = { hold_early = \"6s\" }",
        23,
        "\"6s\"",
        &["at most 5s"],
    );
    assert_route_problem("query = \"non\"", 9, "\"non\"", &["did you mean \"none\"?"]);
    assert_route_problem("query = { }", 9, "{ }", &["one of `only` and `except`"]);
    assert_route_problem(
        "query = { segmnt = \"none\" }",
        11,
        "segmnt",
        &["did you mean `segment`?"],
    );
    assert_route_problem(
        "query = { segment = \"mediapackage\" }",
        21,
        "\"mediapackage\"",
        &["`segment` must be \"all\""],
    );
    assert_route_problem(
        "forward_headers = [\"CMCD-Session\"]",
        20,
        "\"CMCD-Session\"",
        &["goes to no origin"],
    );
}

#[test]
fn rejects_unkeyed_credential_headers() {
    assert_route_problem(
        "unkeyed_headers = [\"Cookie\"]",
        20,
        "\"Cookie\"",
        &["credentials", "write forward_headers"],
    );
    assert_route_problem(
        "unkeyed_headers = [\"X-A\"]\nforward_headers = [\"x-a\"]",
        19,
        "[\"X-A\"]",
        &["one that is in both"],
    );
}

#[test]
fn rejects_invalid_route_settings() {
    assert_route_problem(
        "hosts = [\"a.example:80\"]",
        10,
        "\"a.example:80\"",
        &["did you mean \"a.example\"?"],
    );
    assert_route_problem("hosts = []", 9, "[]", &["this is empty"]);
    assert_route_problem(
        "path = \"live\"",
        8,
        "\"live\"",
        &["did you mean \"/live\"?"],
    );
    assert_route_problem(
        "cors = { only = [\"a.example\"] }",
        18,
        "\"a.example\"",
        &["https://a.example"],
    );
    assert_route_problem(
        "forward_headers = [\"Host\"]",
        20,
        "\"Host\"",
        &["forward_host = true"],
    );
    assert_route_problem(
        "forward_headers = [\"TE\"]",
        20,
        "\"TE\"",
        &["the shield sets this one itself"],
    );
    assert_route_problem(
        "forward_headers = [\"a b\"]",
        20,
        "\"a b\"",
        &["not a header's name"],
    );
    let lifetimes = "lifetimes = { segment_min = \"2h\", segment_max = \"1h\" }";
    assert_route_problem(lifetimes, 29, "\"2h\"", &["out of step"]);
    assert_route_problem(
        "lifetimes = { manifest_stale_if_missing = \"61s\" }",
        43,
        "\"61s\"",
        &["at most `manifest_stale_if_error`", "longer than that"],
    );
    assert_route_problem(
        "lifetimes = { manifest_stale_share = -0.5 }",
        38,
        "-0.5",
        &["must be from 0 to 1000"],
    );
}

#[test]
fn rejects_invalid_origin_settings() {
    assert_origin_problem(
        "protocol = \"h3\"",
        12,
        "\"h3\"",
        &["\"auto\", \"h1\" or \"h2\""],
    );
    assert_origin_problem("sni = \"a b\"", 7, "\"a b\"", &["not a host name"]);
    assert_origin_problem("host = \"a/b\"", 8, "\"a/b\"", &["not a host"]);
    assert_origin_problem(
        "ca_file = \"no.pem\"",
        11,
        "\"no.pem\"",
        &["No such file", "looked for is no.pem"],
    );
    assert_origin_problem("headers = { Host = \"a\" }", 13, "Host", &["write host ="]);
    assert_origin_problem(
        "headers = { Connection = \"a\" }",
        13,
        "Connection",
        &["sets `connection` itself"],
    );
    assert_origin_problem(
        "headers = { Expect = \"a\" }",
        13,
        "Expect",
        &["sets `expect` itself"],
    );
    assert_origin_problem(
        "deadlines = { total = 5 }",
        23,
        "5",
        &["did you mean \"5s\"?"],
    );
    assert_first_line_problem(
        "cache = { memory = \"1MiB\", object_max = \"2MiB\" }",
        41,
        "\"2MiB\"",
        &["`memory`"],
    );
}

#[test]
fn rejects_kind_limits_that_use_all_memory() {
    assert_first_line_problem(
        "cache = { memory = \"1MiB\", object_max = \"1MiB\", kind_max = { segment = \"2MiB\" } }",
        60,
        "{ segment = \"2MiB\" }",
        &["`kind_max`", "`memory`"],
    );
    assert_first_line_problem(
        "cache = { memory = \"1MiB\", object_max = \"1MiB\", kind_max = { hls = \"1MiB\" } }",
        60,
        "{ hls = \"1MiB\" }",
        &["`kind_max`", "`memory`"],
    );
    assert_first_line_problem(
        "cache.kind_max = { segment = \"600MiB\", other = \"400MiB\" }",
        18,
        "{ segment = \"600MiB\", other = \"400MiB\" }",
        &["too much of `memory`", "raise `memory`"],
    );
    assert_first_line_problem(
        "cache.kind_max = { hlss = 5 }",
        20,
        "hlss",
        &["did you mean `hls`?"],
    );
}
