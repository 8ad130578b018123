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
    let said = complaint(
        2,
        &format!("{ORIGIN}health = {{ kind = \"tcp\", path = \"/\", expect = [200] }}\n"),
    );
    assert!(
        said.contains("means nothing to a check by \"tcp\""),
        "{said}"
    );
}

#[test]
fn rejects_a_check_timeout_over_its_interval() {
    let check = check("health = { every = \"2s\" }\n").unwrap();
    assert_eq!(check.timeout, Duration::from_secs(2));
    let typed = "health = { every = \"2s\", timeout = \"3s\" }\n";
    let said = complaint(1, &format!("{ORIGIN}{typed}"));
    assert!(said.contains("`timeout` is longer than `every`"), "{said}");
}

#[test]
fn says_what_cannot_be_checked() {
    in_origin(
        "health = { path = \"live\" }",
        19,
        "\"live\"",
        &["\"/live\""],
    );
    in_origin(
        "health = { path = \"/a#b\" }",
        19,
        "\"/a#b\"",
        &["characters"],
    );
    in_origin("health = { expect = [99] }", 22, "99", &["out of range"]);
    in_origin("health = { expect = [] }", 21, "[]", &["empty"]);
    in_origin(
        "health = { kind = \"http2\" }",
        19,
        "\"http2\"",
        &["\"http\""],
    );
    in_origin("health = { every = \"0s\" }", 20, "\"0s\"", &["some time"]);
    in_origin("health = { failures = 0 }", 23, "0", &["at least 1"]);
}
