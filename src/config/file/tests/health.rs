//! Tests of `[origin.health]`.

use super::*;
use seawall_upstream::{Check, CheckKind};

fn check(lines: &str) -> Option<Check> {
    let mut config = config(&format!("{ORIGIN}{lines}"));
    config.origins.remove(0).health
}

#[test]
fn has_no_health_check_without_its_table() {
    assert!(check("").is_none());
    let usual = check("[origin.health]\n").unwrap();
    assert_eq!(format!("{usual:?}"), format!("{:?}", Check::default()));
}

#[test]
fn reads_a_health_check() {
    let check = check(
        "[origin.health]\npath = \"/alive?by=shield\"\nexpect = [200, 204]\nevery = \"1s\"\n\
         timeout = \"200ms\"\nsuccesses = 1\nfailures = 5\n",
    )
    .unwrap();
    let kind = CheckKind::Http {
        path: "/alive?by=shield".parse().unwrap(),
        expect: vec![http::StatusCode::OK, http::StatusCode::NO_CONTENT],
    };
    assert_eq!(check.kind, kind);
    assert_eq!(check.timeout, Duration::from_millis(200));
    assert_eq!(check.pace.every, Duration::from_secs(1));
    assert_eq!((check.pace.successes, check.pace.failures), (1, 5));
}

#[test]
fn reads_a_tcp_health_check() {
    let check = check("health = { kind = \"tcp\", every = \"5s\" }\n").unwrap();
    assert_eq!(check.kind, CheckKind::Tcp);
    let text = problems_text(
        2,
        &format!("{ORIGIN}health = {{ kind = \"tcp\", path = \"/\", expect = [200] }}\n"),
    );
    assert!(
        text.contains("means nothing to a check by \"tcp\""),
        "{text}"
    );
}

#[test]
fn rejects_a_check_timeout_over_its_interval() {
    let check = check("health = { every = \"2s\" }\n").unwrap();
    assert_eq!(check.timeout, Duration::from_secs(2));
    let written = "health = { every = \"2s\", timeout = \"3s\" }\n";
    let text = problems_text(1, &format!("{ORIGIN}{written}"));
    assert!(text.contains("`timeout` is longer than `every`"), "{text}");
}

#[test]
fn rejects_invalid_health_checks() {
    assert_origin_problem(
        "health = { path = \"live\" }",
        19,
        "\"live\"",
        &["\"/live\""],
    );
    assert_origin_problem(
        "health = { path = \"/a#b\" }",
        19,
        "\"/a#b\"",
        &["characters"],
    );
    assert_origin_problem(
        "health = { expect = [99] }",
        22,
        "99",
        &["must be from 0 to 1000"],
    );
    assert_origin_problem("health = { expect = [] }", 21, "[]", &["empty"]);
    assert_origin_problem(
        "health = { kind = \"http2\" }",
        19,
        "\"http2\"",
        &["\"http\""],
    );
    assert_origin_problem(
        "health = { every = \"0s\" }",
        20,
        "\"0s\"",
        &["must be longer than 0s"],
    );
    assert_origin_problem("health = { failures = 0 }", 23, "0", &["at least 1"]);
}
