//! Tests that each kind of mistake is reported with its position and the right help.

use insta::assert_snapshot;

use super::*;

#[test]
fn suggests_the_nearest_name_for_unknown_keys() {
    let diagnostics = diagnostics(&[
        first_line("limits.conections_max = 5"),
        first_line("lissteners = 5"),
        first_line("admin.colour = 5"),
        in_origin("concurrency-max = 5"),
        in_route("lifetimes = { manifest_mx = \"1s\" }"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn names_the_new_name_of_a_renamed_key() {
    let diagnostics = diagnostics(&[
        first_line("cache.uncacheable_memory = \"10s\""),
        in_origin("breaker = { requests_min = 7 }"),
        in_origin("ejection = { slow_floor = \"90ms\" }"),
        first_line("cache.kind_max = { key = \"1MiB\", clock = \"1MiB\" }"),
        first_line("server.lame_duck = \"5s\""),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn names_wrong_types() {
    let diagnostics = diagnostics(&[
        first_line("server.threads = \"two\""),
        first_line("cache.memory = true"),
        first_line("fill.finish_abandoned = 1"),
        first_line("limits = 5"),
        first_line("limits.streams_max = 5_000_000_000"),
        first_line("limits.streams_max = -1"),
        first_line("limits.streams_max = 0"),
        in_origin("requests_per_second_max = 0"),
        file("[origin]\nendpoints = [\"https://origin.example\"]\n"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn requires_units_for_durations_and_sizes() {
    let diagnostics = diagnostics(&[
        first_line("limits.idle_timeout = 75"),
        first_line("limits.idle_timeout = \"75\""),
        first_line("limits.idle_timeout = \"75 parsecs\""),
        first_line("limits.idle_timeout = \"0s\""),
        first_line("cache.memory = \"64M\""),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn underlines_wrong_addresses() {
    let diagnostics = diagnostics(&[
        first_line("admin.listen = \":9090\""),
        first_line("listener = [{ listen = \"8080\" }]"),
        first_line("listener = [{}]"),
        file("[[origin]]\nendpoints = [\"a.example\"]\n"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_an_address_that_is_used_twice() {
    let two = "listener = [{ listen = \"0.0.0.0:80\" }, { listen = \"127.0.0.1:80\" }]";
    let diagnostics = diagnostics(&[
        first_line(two),
        first_line("admin.listen = \"127.0.0.1:8080\""),
    ]);
    assert_snapshot!(diagnostics);
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
    let routes = "[[route]]\nname = \"a\"\npath = \"/a\"\n[[route]]\nname = \"a\"\n";
    let diagnostics = diagnostics(&[
        file(format!("{twice}{route}")),
        in_route("origin = \"mian\""),
        in_route("origin = \"zebra\""),
        file(format!("{ORIGIN}{routes}")),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_unreachable_routes() {
    let routes = "[[route]]\nhosts = [\"A.example\"]\npath = \"/live/\"\n\
                  [[route]]\nhosts = [\"b.example\", \"a.example.\"]\npath = \"/live\"\n";
    let diagnostics = diagnostics(&[file(format!("{ORIGIN}{routes}"))]);
    assert_snapshot!(diagnostics);
}

#[test]
fn requires_endpoints_and_an_origin_per_route() {
    let twice = "[[origin]]\nendpoints = [\"http://a.example\", \"http://A.example:80\"]\n";
    let two = format!("{ORIGIN}[[origin]]\nendpoints = [\"http://b.example\"]\n");
    let diagnostics = diagnostics(&[
        file("[[origin]]\nname = \"main\"\n"),
        file("[[origin]]\nendpoints = []\n"),
        file(twice),
        file(&two),
        file(format!("{two}[[route]]\n")),
        file(""),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_queries_and_headers() {
    let diagnostics = diagnostics(&[
        in_route("live = { hold_early = \"6s\" }"),
        in_route("query = \"non\""),
        in_route("query = { }"),
        in_route("query = { segmnt = \"none\" }"),
        in_route("query = { segment = \"mediapackage\" }"),
        in_route("forward_headers = [\"CMCD-Session\"]"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_unkeyed_credential_headers() {
    let diagnostics = diagnostics(&[
        in_route("unkeyed_headers = [\"Cookie\"]"),
        in_route("unkeyed_headers = [\"X-A\"]\nforward_headers = [\"x-a\"]"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_route_settings() {
    let lifetimes = "lifetimes = { segment_min = \"2h\", segment_max = \"1h\" }";
    let diagnostics = diagnostics(&[
        in_route("hosts = [\"a.example:80\"]"),
        in_route("hosts = []"),
        in_route("path = \"live\""),
        in_route("cors = { only = [\"a.example\"] }"),
        in_route("forward_headers = [\"Host\"]"),
        in_route("forward_headers = [\"TE\"]"),
        in_route("forward_headers = [\"a b\"]"),
        in_route(lifetimes),
        in_route("lifetimes = { manifest_stale_if_missing = \"61s\" }"),
        in_route("lifetimes = { manifest_stale_share = -0.5 }"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_access_rules() {
    let diagnostics = diagnostics(&[
        in_route("allow = []"),
        in_route("allow = \"192.0.2.7\""),
        in_route("allow = [\"192.0.2.7/24\", \"unix\"]"),
        in_route("deny = [\"::ffff:192.0.2.7\", \"edge.example\", \"192.0.2.7:80\"]"),
        in_route("require_header = \"X-Origin-Secret\""),
        in_route("require_header = {}"),
        in_route("require_header = { name = \"Host\", secret_files = [] }"),
        in_route("require_header = { name = \"If-Match\", secret_files = [\"no-secret\"] }"),
        in_route("require_header = { name = \"X-Secret\", secret_file = \"a\" }"),
        in_route("require_certificate = true"),
        in_route("require_certificate = \"all\""),
        in_route("require_certificate = { name = \"edge\" }"),
        in_route("require_certificate = { names = [] }"),
        in_route("require_certificate = { names = [\"\", \"*.cdn.example\"] }"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_tokens() {
    let in_route = |text: &str| in_route(format!("token = {text}"));
    let diagnostics = diagnostics(&[
        in_route("\"seawall\""),
        in_route("{}"),
        in_route("{ kind = \"jwt\", keys = {}, query = \"a=b\" }"),
        in_route("{ kind = \"cat\", keys = { k = \"no-key\" } }"),
        in_route("{ kind = \"cat\", keys = [\"a\"], header = \"Host\", cookie = \"\" }"),
        in_route("{ kind = \"signed_url\", keys = { k = \"no-key\" }, issuers = [\"tv\"] }"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_redirects() {
    let diagnostics = diagnostics(&[
        in_route("redirect = \"https://new.example\""),
        in_route("redirect = { status = 308 }"),
        in_route("redirect = { to = \"https://new.example\", status = 304 }"),
        in_route("redirect = { to = \"//evil.example/live\" }"),
        in_route("redirect = { to = \"ftp://new.example/live\" }"),
        in_route("redirect = { to = \"https://user@new.example/live\" }"),
        in_route("redirect = { to = \"/new?x=1\" }"),
        in_route("redirect = { to = \"/new\" }"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_rate_limits() {
    let diagnostics = diagnostics(&[
        in_route("rate_limit = 50"),
        in_route("rate_limit = []"),
        in_route("rate_limit = {}"),
        in_route("rate_limit = { requests_per_second = 0 }"),
        in_route("rate_limit = { requests_per_second = \"50/s\" }"),
        in_route("rate_limit = { requests_per_second = 1, burst = 0 }"),
        in_route("rate_limit = { requests_per_second = 1, burst = 5000 }"),
        in_route("rate_limit = { requests_per_second = 1, bytes_burst = \"1MB\" }"),
        in_route("rate_limit = { bytes_per_second = \"0\" }"),
        in_route("rate_limit = { requests_per_second = 1, per = \"address\" }"),
        in_route("rate_limit = [{ requests_per_second = 1 }, { bytes_per_second = 1 }]"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_client_classes() {
    const NEAR: &str = "addresses = [\"unix\"]";
    let class = |text: &str| first_line(format!("[[client_class]]\n{text}"));
    let many = (0..17).map(|number| format!("[[client_class]]\nname = \"{number}\"\n{NEAR}\n"));
    let diagnostics = diagnostics(&[
        class("name = \"cdn\""),
        in_route("client_classes = []"),
        class("name = \"cdn\"\ncertificate = \"any\""),
        in_route("client_classes = [\"cdn\"]"),
        class(&format!(
            "name = \"cdn\"\n{NEAR}\n[[route]]\nclient_classes = [\"cnd\"]"
        )),
        class(&format!(
            "name = \"cdn\"\n{NEAR}\nrate_limit = {{ per = \"client\" }}"
        )),
        class(NEAR),
        class(&format!("name = \"other\"\n{NEAR}")),
        class("name = \"cdn\"\naddress = [\"unix\"]"),
        class("name = \"cdn\"\nheader = { name = \"X-Secret\" }"),
        class(&format!(
            "name = \"a\"\n{NEAR}\n[[client_class]]\nname = \"a\"\n{NEAR}"
        )),
        first_line(many.collect::<String>()),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn warns_of_private_kinds_that_are_shared() {
    let diagnostics = diagnostics(&[
        in_route("store_private = \"segment\""),
        in_route("store_private = [\"segments\", \"decryption_key\", \"time_server\"]"),
        in_route("store_private = [\"segment\"]\nforward_host = 1"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_header_rules() {
    let diagnostics = diagnostics(&[
        in_route("headers = { Server = \"a\" }"),
        in_route("headers = [{ set = { X-A = \"a\" } }]"),
        in_route("headers = [{ to = \"viewers\", remove = [\"Server\"] }]"),
        in_route("headers = [{ to = \"viewer\" }]"),
        in_route(
            "headers = [{ to = \"viewer\", set = { Content-Length = \"1\", \"X A\" = \"a\" } }]",
        ),
        in_route("headers = [{ to = \"viewer\", set = { X-A = \"a\\r\\nX-B: b\" } }]"),
        in_route("headers = [{ to = \"viewer\", set = { X-A = \"a\", x-a = \"b\" } }]"),
        in_route("headers = [{ to = \"viewer\", remove = [\"Vary\"], kinds = [\"mpd\"] }]"),
        in_route("headers = [{ to = \"viewer\", remove = [\"Server\"], statuses = [100] }]"),
        in_route("headers = [{ to = \"origin\", remove = [\"Via\"], statuses = [200] }]"),
        in_route("headers = [{ to = \"origin\", set = { Cookie = \"a\", Range = \"b\" } }]"),
        in_route("server_timing = \"X Debug\""),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_origin_settings() {
    let diagnostics = diagnostics(&[
        in_origin("protocol = \"h3\""),
        in_origin("sni = \"a b\""),
        in_origin("host = \"a/b\""),
        in_origin("ca_file = \"no.pem\""),
        in_origin("headers = { Host = \"a\" }"),
        in_origin("headers = { Connection = \"a\" }"),
        in_origin("headers = { Expect = \"a\" }"),
        in_origin("deadlines = { total = 5 }"),
        first_line("cache = { memory = \"1MiB\", object_max = \"2MiB\" }"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_kind_limits_that_use_all_memory() {
    let diagnostics = diagnostics(&[
        first_line(
            "cache = { memory = \"1MiB\", object_max = \"1MiB\", kind_max = { segment = \"2MiB\" } }",
        ),
        first_line(
            "cache = { memory = \"1MiB\", object_max = \"1MiB\", kind_max = { hls = \"1MiB\" } }",
        ),
        first_line("cache.kind_max = { segment = \"600MiB\", other = \"400MiB\" }"),
        first_line("cache.kind_max = { hlss = 5 }"),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_invalid_endpoint_limits() {
    let limits = [
        "concurrency_max = 0",
        "requests_per_second_max = \"600\"",
        "requests_per_second_max = 0",
        "requests_per_second_max = {}",
        "requests_per_second_max = { segment = 0 }",
        "requests_per_second_max = { segments = 9 }",
    ];
    let endpoint = |limit| {
        file(format!(
            "[[origin]]\nendpoints = [{{ url = \"https://a.example\", {limit} }}]\n"
        ))
    };
    assert_snapshot!(diagnostics(&limits.map(endpoint)));
}

#[test]
fn reports_all_problems_at_once() {
    let diagnostics = diagnostics(&[file(
        "[limits]\nidle_timeout = 5\nconections_max = 1\n[cache]\nmemory = \"64M\"\n\
         [[origin]]\nendpoints = [\"a.example\", 7]\n[[route]]\nquery = 1\n",
    )]);
    assert_snapshot!(diagnostics);
}

#[test]
fn shows_where_toml_is_broken() {
    let diagnostics = diagnostics(&[
        file("[limits\nidle_timeout = \"5s\"\n[cache]\nmemory = = 5\n"),
        file("[cache]\nmemory = 5\nmemory = 6\n"),
    ]);
    assert_snapshot!(diagnostics);
}
