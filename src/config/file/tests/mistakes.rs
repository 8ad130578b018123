//! Tests that each kind of mistake is reported with its position and the right help.

use super::*;

#[test]
fn suggests_the_nearest_name_for_unknown_keys() {
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
        &["in [admin]", "the keys here are hosts, listen"],
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
fn names_wrong_types() {
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
fn requires_units_for_durations_and_sizes() {
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
fn underlines_wrong_addresses() {
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
fn rejects_an_address_that_is_used_twice() {
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
    assert_eq!(
        config(&format!("{free}{ORIGIN}")).frontend.listeners.len(),
        2
    );
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
fn warns_of_unreachable_routes() {
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
fn checks_keyed_headers_and_queries() {
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
fn rejects_unkeyed_credential_headers() {
    in_route(
        "unkeyed_headers = [\"Cookie\"]",
        20,
        "\"Cookie\"",
        &["credentials", "write forward_headers"],
    );
    in_route(
        "unkeyed_headers = [\"X-A\"]\nforward_headers = [\"x-a\"]",
        19,
        "[\"X-A\"]",
        &["one that is in both"],
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
}

#[test]
fn rejects_kind_limits_that_use_all_memory() {
    first_line(
        "cache = { memory = \"1MiB\", object_max = \"1MiB\", kind_max = { segment = \"2MiB\" } }",
        60,
        "{ segment = \"2MiB\" }",
        &["`kind_max`", "`memory`"],
    );
    first_line(
        "cache = { memory = \"1MiB\", object_max = \"1MiB\", kind_max = { hls = \"1MiB\" } }",
        60,
        "{ hls = \"1MiB\" }",
        &["`kind_max`", "`memory`"],
    );
    first_line(
        "cache.kind_max = { segment = \"600MiB\", other = \"400MiB\" }",
        18,
        "{ segment = \"600MiB\", other = \"400MiB\" }",
        &["too much of `memory`", "raise `memory`"],
    );
    first_line(
        "cache.kind_max = { hlss = 5 }",
        20,
        "hlss",
        &["did you mean `hls`?"],
    );
}
