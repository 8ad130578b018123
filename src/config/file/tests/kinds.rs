//! Tests of `kind` in `[[origin]]`: what it sets, and that other keys win.

use super::*;
use crate::config::written;
use seawall_upstream::CheckKind;
use seawall_upstream::sign::Service;

/// An origin of this kind, with these lines behind it.
fn of_kind(kind: &str, lines: &str) -> Config {
    config(&format!("{ORIGIN}kind = \"{kind}\"\n{lines}"))
}

/// What `seawall check` says that the kind set.
fn defaults_of(config: &Config) -> Vec<String> {
    let defaults = config.presets.iter().flat_map(|preset| &preset.defaults);
    defaults.map(written::preset_default).collect()
}

fn check_of(config: &Config) -> &CheckKind {
    let check = config.origins[0].health.as_ref();
    &check.expect("health checks").kind
}

#[test]
fn query_of_a_kind_is_for_routes_without_one() {
    let without_routes = of_kind("mediapackage", "");
    let routes = &without_routes.rules.routes;
    assert_eq!(routes[0].query, QueryPolicies::mediapackage());
    assert_eq!(
        defaults_of(&without_routes),
        ["[[route]] \"default\": query = \"mediapackage\""]
    );
    let routes = "[[route]]\npath = \"/a\"\nquery = \"all\"\n[[route]]\npath = \"/b\"\n";
    let with_routes = of_kind("mediapackage", routes);
    let query = |path: &str| {
        let mut routes = with_routes.rules.routes.iter();
        let route = routes.find(|route| route.path_prefix == path);
        route.expect("this route").query.clone()
    };
    assert_eq!(query("/a"), QueryPolicy::All.into());
    assert_eq!(query("/b"), QueryPolicies::mediapackage());
    let expected = ["[[route]] \"/b\": query = \"mediapackage\""];
    assert_eq!(defaults_of(&with_routes), expected);
}

#[test]
fn kind_of_one_origin_does_not_change_routes_to_another() {
    let file = "[[origin]]\nname = \"other\"\nendpoints = [\"https://b.example\"]\n\
                [[route]]\norigin = \"other\"\n[[route]]\npath = \"/x\"\norigin = \"main\"\n";
    let config = of_kind("s3", file);
    let routes = &config.rules.routes;
    let to_other = routes.iter().find(|route| &*route.origin == "other");
    assert_eq!(to_other.expect("a route").query, QueryPolicy::All.into());
    assert_eq!(config.presets.len(), 1);
}

#[test]
fn check_of_a_kind_is_for_checks_that_ask_for_nothing() {
    assert!(of_kind("srs", "").origins[0].health.is_none());
    let http = |path: &'static str, statuses: &[u16]| {
        let status = |code: &u16| http::StatusCode::from_u16(*code).unwrap();
        CheckKind::Http {
            path: http::uri::PathAndQuery::from_static(path),
            expect: statuses.iter().map(status).collect(),
        }
    };
    let cases = [
        ("srs", "", http("/api/v1/versions", &[200])),
        ("srs", "kind = \"http\"", http("/api/v1/versions", &[200])),
        ("srs", "kind = \"tcp\"", CheckKind::Tcp),
        ("srs", "path = \"/a\"", http("/a", &[])),
        ("srs", "expect = [204]", http("/", &[204])),
        ("mediapackage", "every = \"9s\"", CheckKind::Tcp),
        ("mediapackage", "path = \"/a\"", http("/a", &[])),
        ("mediapackage", "kind = \"http\"", http("/", &[])),
    ];
    for (kind, lines, expected) in cases {
        let config = of_kind(kind, &format!("[origin.health]\n{lines}\n"));
        assert_eq!(*check_of(&config), expected, "{kind}: {lines}");
        let defaults = defaults_of(&config);
        let is_set = defaults
            .iter()
            .any(|set| set.starts_with("[origin.health]"));
        let is_of_kind = match lines {
            "" | "every = \"9s\"" => true,
            "kind = \"http\"" => kind == "srs",
            _ => false,
        };
        assert_eq!(is_set, is_of_kind, "{kind}: {lines}: {defaults:?}");
    }
}

#[test]
fn kind_names_the_service_of_signatures() {
    let signed = |kind, line: &str| {
        let lines = format!("[origin.sigv4]\nregion = \"eu-west-1\"\n{line}\n");
        let config = of_kind(kind, &lines);
        config.origins[0].sigv4.as_ref().expect("signed").service
    };
    assert_eq!(signed("s3", ""), Service::S3);
    assert_eq!(signed("mediapackage", ""), Service::MediaPackageV2);
    let other = signed("s3", "service = \"mediapackagev2\"");
    assert_eq!(other, Service::MediaPackageV2);
    assert!(of_kind("s3", "").origins[0].sigv4.is_none());
    let unsigned = format!("{ORIGIN}kind = \"srs\"\n[origin.sigv4]\nregion = \"eu-west-1\"\n");
    let problems = draft(&unsigned).finish().expect_err("no service");
    assert!(
        problems.to_string().contains("has no `service`"),
        "{problems}"
    );
}

#[test]
fn warns_of_mediamtx_without_its_secret() {
    let warnings = |lines: &str| {
        let source = format!("{ORIGIN}kind = \"mediamtx\"\n{lines}");
        let (_, problems) = draft(&source).finish().expect("nothing wrong");
        problems.to_string()
    };
    let warning = warnings("");
    assert!(warning.contains("gives each viewer a session"), "{warning}");
    assert!(warning.contains("hlsCDNSecret"), "{warning}");
    assert_eq!(
        warnings("headers = { Authorization = \"Bearer ${TOKEN}\" }"),
        ""
    );
}

#[test]
fn rejects_names_that_no_cookie_or_every_cookie_has() {
    for name in ["", "*", "a b", "a;b", "a*b", "a="] {
        for key in ["strip_set_cookie", "ignore_cookies"] {
            let source = format!("{ORIGIN}[[route]]\n{key} = [\"{name}\"]\n");
            let problems = draft(&source).finish().expect_err(name).to_string();
            assert!(problems.contains(key), "{problems}");
        }
    }
    let route = "[[route]]\nstrip_set_cookie = [\"AWSALB*\", \"__cf_bm\"]\n";
    let config = of_kind("s3", route);
    assert_eq!(
        config.rules.routes[0].strip_set_cookie,
        ["AWSALB*", "__cf_bm"]
    );
}

#[test]
fn suggests_the_kind_that_was_meant() {
    let source = format!("{ORIGIN}kind = \"media-package\"\n");
    let problems = draft(&source)
        .finish()
        .expect_err("no such kind")
        .to_string();
    assert!(problems.contains("mediapackage"), "{problems}");
}
