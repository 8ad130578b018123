//! Tests of `[origin.health]`.

use insta::assert_snapshot;

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
    assert_eq!(check.schedule.every, Duration::from_secs(1));
    assert_eq!((check.schedule.successes, check.schedule.failures), (1, 5));
}

#[test]
fn reads_a_tcp_health_check() {
    let check = check("health = { kind = \"tcp\", every = \"5s\" }\n").unwrap();
    assert_eq!(check.kind, CheckKind::Tcp);
    assert_snapshot!(diagnostics(&[in_origin(
        "health = { kind = \"tcp\", path = \"/\", expect = [200] }"
    )]));
}

#[test]
fn rejects_a_check_timeout_over_its_interval() {
    let check = check("health = { every = \"2s\" }\n").unwrap();
    assert_eq!(check.timeout, Duration::from_secs(2));
    assert_snapshot!(diagnostics(&[in_origin(
        "health = { every = \"2s\", timeout = \"3s\" }"
    )]));
}

#[test]
fn rejects_invalid_health_checks() {
    let diagnostics = diagnostics(&[
        in_origin("health = { path = \"live\" }"),
        in_origin("health = { path = \"/a#b\" }"),
        in_origin("health = { expect = [99] }"),
        in_origin("health = { expect = [] }"),
        in_origin("health = { kind = \"http2\" }"),
        in_origin("health = { every = \"0s\" }"),
        in_origin("health = { failures = 0 }"),
    ]);
    assert_snapshot!(diagnostics);
}
