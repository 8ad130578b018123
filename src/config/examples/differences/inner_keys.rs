//! Two files for each key that has no line of its own in the annotated file.

const ORIGIN: &str = "[[origin]]\nname = \"main\"\nendpoints = [\"https://origin.example\"]\n";

/// A key without a line of its own in the annotated file.
pub(super) struct InnerKey {
    /// The title of its table and the key, as the reader knows them.
    pub(super) known: String,
    /// The key under which its difference is reported.
    pub(super) reported: String,
    /// Two files that differ in it.
    pub(super) texts: [String; 2],
}

/// A key, and what follows an origin in the two files.
fn inner_key(known: &str, reported: &str, texts: [&str; 2]) -> InnerKey {
    InnerKey {
        known: known.to_owned(),
        reported: reported.to_owned(),
        texts: texts.map(|text| format!("{ORIGIN}{text}\n")),
    }
}

/// The same, with the same text around both.
fn inner_key_in(known: &str, reported: &str, around: [&str; 2], texts: [&str; 2]) -> InnerKey {
    let [before, after] = texts.map(|text| format!("{}{text}{}", around[0], around[1]));
    inner_key(known, reported, [&before, &after])
}

/// Keys of an origin that depend on others.
fn origin_keys() -> Vec<InnerKey> {
    const PAIR: &str = "client_certificate = \"shield.pem\"\nclient_key = \"shield.key\"";
    let headers = ["headers = { X-Code = ", " }"];
    let code = ["\"a-code-of-some-length\"", "{ file = \"cdn-code\" }"];
    let second = [
        "[[origin]]\nname = ",
        "\nendpoints = [\"https://b.example\"]\n",
    ];
    let named = |name: &str, route: &str| {
        let route = format!("[[route]]\norigin = {route}");
        format!("{}{name}{}{route}", second[0], second[1])
    };
    let texts = [
        named("\"b\"", "\"main\""),
        named("\"c\"", "\"main\""),
        named("\"b\"", "\"b\""),
    ];
    vec![
        inner_key(
            "origin client_certificate",
            "origin.client_certificate",
            ["", PAIR],
        ),
        inner_key("origin client_key", "origin.client_key", ["", PAIR]),
        inner_key_in(
            "the header's value file",
            "origin.headers.x-code",
            headers,
            code,
        ),
        inner_key("origin name", "origin", [&texts[0], &texts[1]]),
        inner_key("route origin", "route.origin", [&texts[0], &texts[2]]),
    ]
}

fn health_keys() -> Vec<InnerKey> {
    let keys = [
        ("kind", "\"tcp\""),
        ("path", "\"/alive\""),
        ("expect", "[204]"),
        ("every", "\"10s\""),
        ("timeout", "\"1s\""),
        ("successes", "5"),
        ("failures", "5"),
    ];
    let keys = keys.map(|(key, value)| {
        let (known, reported) = (format!("health {key}"), format!("origin.health.{key}"));
        let line = format!("{key} = {value}");
        inner_key_in(&known, &reported, ["[origin.health]\n", ""], ["", &line])
    });
    keys.into()
}

fn sigv4_keys() -> Vec<InnerKey> {
    const SIGV4: &str = "[origin.sigv4]\nservice = \"s3\"\nregion = \"eu-west-1\"\n";
    const PROFILE: &str = "credentials_file = \"aws-credentials\"\nprofile = \"shield\"";
    let keys = [
        ("region", SIGV4.replace("west", "north")),
        ("service", SIGV4.replace("s3", "mediapackagev2")),
        ("credentials", format!("{SIGV4}credentials = \"instance\"")),
        ("credentials_file", format!("{SIGV4}{PROFILE}")),
        ("profile", format!("{SIGV4}{PROFILE}")),
    ];
    let keys = keys.map(|(key, after)| {
        let (known, reported) = (format!("sigv4 {key}"), format!("origin.sigv4.{key}"));
        inner_key(&known, &reported, [SIGV4, &after])
    });
    keys.into()
}

/// The keys of an endpoint, as those of a second origin.
fn endpoint_keys() -> Vec<InnerKey> {
    const AROUND: [&str; 2] = [
        "[[origin]]\nname = \"second\"\nendpoints = [{ ",
        " }]\n[[route]]\norigin = \"main\"",
    ];
    const URL: &str = "url = \"https://b.example\"";
    let key = |known: &str, key: &str, values: [&str; 2]| {
        let reported = format!("origin.endpoints.{key}");
        let texts = values.map(|value| format!("{URL}, {key} = {value}"));
        inner_key_in(known, &reported, AROUND, [&texts[0], &texts[1]])
    };
    let quota = "requests_per_second_max";
    vec![
        inner_key_in(
            "the endpoint url",
            "origin.endpoints",
            AROUND,
            [URL, "url = \"http://b.example\""],
        ),
        key("the endpoint priority", "priority", ["0", "1"]),
        key("the endpoint weight", "weight", ["1", "2"]),
        key(
            "the endpoint region",
            "region",
            ["\"eu-west-1\"", "\"eu-west-2\""],
        ),
        key(
            "the endpoint concurrency_max",
            "concurrency_max",
            ["4", "5"],
        ),
        key(
            "the endpoint requests_per_second_max",
            quota,
            ["4", "{ other = 4 }"],
        ),
        key(
            "`requests_per_second_max` manifest",
            quota,
            ["{ manifest = 4 }", "{ manifest = 5 }"],
        ),
        key(
            "`requests_per_second_max` segment",
            quota,
            ["{ segment = 4 }", "{ segment = 5 }"],
        ),
        key(
            "`requests_per_second_max` other",
            quota,
            ["{ other = 4 }", "{ other = 5 }"],
        ),
    ]
}

fn listener_keys() -> Vec<InnerKey> {
    const AROUND: [&str; 2] = [
        "[[listener]]\nlisten = \"0.0.0.0:8443\"\ntls = { certificates = [",
        " }",
    ];
    let certificates = "listener.tls.certificates";
    let key = format!("{certificates}.key");
    let pair = "{ certificate = \"live.pem\", key = \"live.key\" }]";
    let other = pair.replace("live.pem", "shield.pem");
    let other_key = pair.replace("live.key", "shield.key");
    let tls12 = format!("{pair}, tls12 = false");
    let client_ca = format!("{pair}, client_ca = \"authority.pem\"");
    let optional = format!("{client_ca}, client_certificates = \"optional\"");
    let client = |key: &str, texts: [&str; 2]| {
        let reported = format!("listener.tls.{key}");
        inner_key_in(&format!("tls {key}"), &reported, AROUND, texts)
    };
    vec![
        inner_key_in(
            "certificates certificate",
            certificates,
            AROUND,
            [pair, &other],
        ),
        inner_key_in("certificates key", &key, AROUND, [pair, &other_key]),
        inner_key_in("tls tls12", "listener.tls.tls12", AROUND, [pair, &tls12]),
        client(
            "client_ca",
            [&client_ca, &client_ca.replace("authority", "live")],
        ),
        client("client_certificates", [&client_ca, &optional]),
        inner_key(
            "proxy_protocol from",
            "listener.proxy_protocol.from",
            ["", "proxy_protocol = { from = [\"10.0.0.0/8\"] }"]
                .map(|text| format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n{text}"))
                .each_ref()
                .map(String::as_str),
        ),
    ]
}

fn server_keys() -> Vec<InnerKey> {
    const SERVER: [&str; 2] = ["[server]\ntrusted_proxies = [", "]"];
    let lists = ["\"10.0.0.0/8\"", "\"10.0.0.0/8\", \"unix\""];
    vec![inner_key_in(
        "server trusted_proxies",
        "server.trusted_proxies",
        SERVER,
        lists,
    )]
}

fn admin_keys() -> Vec<InnerKey> {
    const ADMIN: [&str; 2] = ["[admin]\ntokens = [{ ", " }]"];
    let read = "name = \"deploy\", file = \"admin-token\", role = \"read\"";
    let key = |key: &str, other: &str| {
        let reported = "admin.tokens";
        inner_key_in(&format!("tokens {key}"), reported, ADMIN, [read, other])
    };
    vec![
        key("name", &read.replace("deploy", "monitor")),
        key("file", &read.replace("admin-token", "cdn-code")),
        key("role", &read.replace("\"read\"", "\"write\"")),
    ]
}

/// The keys of a class of clients.
fn client_class_keys() -> Vec<InnerKey> {
    const NAMED: [&str; 2] = ["[[client_class]]\nname = \"one\"\n", ""];
    let header = |name: &str, file: &str| {
        format!("header = {{ name = \"{name}\", secret_files = [\"{file}\"] }}")
    };
    let plain = header("X-Secret", "origin-secret");
    let other_name = header("X-Other", "origin-secret");
    let other_file = header("X-Secret", "cdn-code");
    let addresses = "addresses = [\"192.0.2.1\"]";
    let both = format!("{plain}\n{addresses}");
    let limited = format!("{plain}\nrate_limit = {{ requests_per_second = 50 }}");
    let certified = format!("{addresses}\ncertificate = \"any\"");
    let keys = [
        ("client_class header", "header", [addresses, &*both]),
        ("header name", "header", [&*plain, &*other_name]),
        ("header secret_files", "header", [&*plain, &*other_file]),
        ("client_class addresses", "addresses", [&*plain, &*both]),
        (
            "client_class rate_limit",
            "rate_limit",
            [&*plain, &*limited],
        ),
        (
            "client_class certificate",
            "certificate",
            [addresses, &*certified],
        ),
    ];
    let keys = keys.into_iter().map(|(known, key, texts)| {
        inner_key_in(known, &format!("client_class.{key}"), NAMED, texts)
    });
    let name = |name: &str| format!("[[client_class]]\nname = \"{name}\"\n{addresses}");
    let names = [name("one"), name("two")];
    let named = inner_key(
        "client_class name",
        "client_class",
        names.each_ref().map(String::as_str),
    );
    keys.chain([named]).collect()
}

fn route_keys() -> Vec<InnerKey> {
    let only = "cors = { only = [\"https://a.example\"]";
    let with_only = format!("{only} }}");
    let with_credentials = format!("{only}, credentials = true }}");
    let header = |name: &str, file: &str| {
        format!("require_header = {{ name = \"{name}\", secret_files = [\"{file}\"] }}")
    };
    let redirect = |to: &str| format!("path = \"/old\"\nredirect = {{ to = \"{to}\" }}");
    let named = "require_certificate = { names = [\"edge\"] }";
    let redirect_status = redirect("/a").replace(" }", ", status = 308 }");
    let required = header("X-Secret", "origin-secret");
    let other_name = header("X-Other", "origin-secret");
    let other_file = header("X-Secret", "cdn-code");
    let class = "\n[[client_class]]\nname = \"cdn\"\naddresses = [\"unix\"]";
    let of_class = format!("client_classes = [\"cdn\"]{class}");
    let limit = "rate_limit = { requests_per_second = 50 }";
    let limited = |more: &str| limit.replace(" }", &format!(", {more} }}"));
    let per_route = limited("per = \"route\"");
    let burst = limited("burst = 99");
    let bytes = limited("bytes_per_second = \"1MB\"");
    let bytes_burst = bytes.replace(" }", ", bytes_burst = \"9MB\" }");
    let keys = [
        ("rate_limit per", [limit, &*per_route]),
        ("rate_limit requests_per_second", ["", limit]),
        ("rate_limit burst", [limit, &*burst]),
        ("rate_limit bytes_per_second", [limit, &*bytes]),
        ("rate_limit bytes_burst", [&*bytes, &*bytes_burst]),
        ("redirect to", [&*redirect("/a"), &*redirect("/b")]),
        ("redirect status", [&*redirect("/a"), &*redirect_status]),
        ("query manifest", ["", "query = { manifest = \"none\" }"]),
        ("query segment", ["", "query = { segment = \"none\" }"]),
        ("query other", ["", "query = { other = \"none\" }"]),
        ("query only", ["", "query = { only = [\"a\"] }"]),
        ("query except", ["", "query = { except = [\"a\"] }"]),
        ("allow", ["allow = [\"192.0.2.1\"]", "allow = [\"unix\"]"]),
        ("deny", ["", "deny = [\"192.0.2.0/24\"]"]),
        ("client_classes", [class, &*of_class]),
        ("require_header name", [&*required, &*other_name]),
        ("require_header secret_files", [&*required, &*other_file]),
        (
            "require_certificate names",
            ["require_certificate = \"any\"", named],
        ),
        ("cors only", ["", &*with_only]),
        ("cors credentials", [&*with_only, &*with_credentials]),
    ];
    let keys = keys.map(|(known, texts)| {
        let (value, known) = match known.split_once(' ') {
            Some((value, _)) => (value, known.to_owned()),
            None => (known, format!("route {known}")),
        };
        inner_key_in(
            &known,
            &format!("route.{value}"),
            ["[[route]]\n", ""],
            texts,
        )
    });
    keys.into()
}

/// The keys of a token, which is one value.
fn token_keys() -> Vec<InnerKey> {
    const KEYS: &str = "keys = { 2026 = \"url-key\" }";
    let token = |keys: &str| format!("token = {{ {keys} }}");
    let signed_url = format!("kind = \"signed_url\", {KEYS}, query = \"a\"");
    let cat = format!("kind = \"cat\", {KEYS}, query = \"a\"");
    let key = |known: &str, before: &str, after: &str| {
        let (known, texts) = (format!("token {known}"), [token(before), token(after)]);
        inner_key_in(
            &known,
            "route.token",
            ["[[route]]\n", ""],
            [&texts[0], &texts[1]],
        )
    };
    let and = |token: &str, more: &str| format!("{token}, {more}");
    vec![
        key("kind", &signed_url, &cat),
        key("keys", &signed_url, &signed_url.replace("2026", "2027")),
        key("query", &cat, &cat.replace("\"a\"", "\"b\"")),
        key(
            "header",
            &signed_url,
            &and(&signed_url, "header = \"X-Token\""),
        ),
        key("cookie", &signed_url, &and(&signed_url, "cookie = \"CAT\"")),
        key("path", &signed_url, &and(&signed_url, "path = \"t\"")),
        key("issuers", &cat, &and(&cat, "issuers = [\"tv\"]")),
        key("audiences", &cat, &and(&cat, "audiences = [\"tv\"]")),
        key(
            "accept_no_expiry",
            &cat,
            &and(&cat, "accept_no_expiry = true"),
        ),
    ]
}

/// The keys of a rule for headers.
fn header_rule_keys() -> Vec<InnerKey> {
    const AROUND: [&str; 2] = ["[[route]]\nheaders = [{ ", " }]"];
    const TO_VIEWER: &str = "to = \"viewer\", set = { X-A = \"1\" }";
    let key = |key: &str, after: &str| {
        let known = format!("the header rule {key}");
        let reported = match key {
            "to" => "route.headers".to_owned(),
            "set" => "route.headers.set.x-a".to_owned(),
            _ => format!("route.headers.{key}"),
        };
        inner_key_in(&known, &reported, AROUND, [TO_VIEWER, after])
    };
    let also = |more: &str| format!("{TO_VIEWER}, {more}");
    vec![
        inner_key(
            "route headers",
            "route.headers",
            ["", &format!("{}{TO_VIEWER}{}", AROUND[0], AROUND[1])],
        ),
        key("to", &TO_VIEWER.replace("viewer", "origin")),
        key("set", &TO_VIEWER.replace('1', "2")),
        key("kinds", &also("kinds = [\"hls\"]")),
        key("statuses", &also("statuses = [200]")),
        key("remove", &also("remove = [\"Server\"]")),
    ]
}

/// The keys of an error page, in all places.
fn error_page_keys(title: &str, place: &str) -> Vec<InnerKey> {
    const PAGE: &str = "statuses = [403]\nfile = \"down.json\"\ncontent_type = \"text/html\"";
    let around = [format!("{place}\n"), String::new()];
    let around = around.each_ref().map(String::as_str);
    let key = |key: &str, reported: &str, after: &str| {
        let known = format!("{title} {key}");
        inner_key_in(&known, &format!("{title}{reported}"), around, [PAGE, after])
    };
    vec![
        key("statuses", "", &PAGE.replace("403", "\"4xx\"")),
        key("file", ".file", &PAGE.replace("down.json", "denied.html")),
        key(
            "content_type",
            ".content_type",
            &PAGE.replace("html", "plain"),
        ),
    ]
}

/// Every key that has no line of its own in the annotated file.
pub(super) fn inner_keys() -> Vec<InnerKey> {
    let keys = [
        origin_keys(),
        health_keys(),
        client_class_keys(),
        sigv4_keys(),
        endpoint_keys(),
        listener_keys(),
        server_keys(),
        admin_keys(),
        route_keys(),
        token_keys(),
        header_rule_keys(),
        error_page_keys("error_page", "[[error_page]]"),
        error_page_keys("route.error_page", "[[route]]\n[[route.error_page]]"),
    ];
    keys.into_iter().flatten().collect()
}
