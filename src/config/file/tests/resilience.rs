//! Tests of `[origin.retry]`, `[origin.breaker]`, `[origin.ejection]` and the deadlines, and of
//! their contradictions.

use insta::assert_snapshot;

use super::*;

fn settings(lines: &str) -> seawall_upstream::Settings {
    config(&format!("{ORIGIN}{lines}")).origins.remove(0)
}

#[test]
fn reads_retry_breaker_and_ejection() {
    let settings = settings(
        "retry = { attempts = 3, statuses = [503], budget = 0.5 }\n\
         breaker = { error_share = 0.5, window = \"5s\", failed_urls_min = 7 }\n\
         ejection = { failures = 2, first = \"1s\", longest = \"2s\" }\n",
    );
    assert_eq!(settings.retry.attempts_max, 3);
    assert_eq!(
        settings.retry.statuses,
        [http::StatusCode::SERVICE_UNAVAILABLE]
    );
    assert!((settings.retry.budget.share - 0.5).abs() < f64::EPSILON);
    assert_eq!(settings.guards.breaker.failed_urls_min, 7);
    assert_eq!(settings.guards.breaker.window, Duration::from_secs(5));
    assert_eq!(settings.guards.ejection.failures, 2);
    assert_eq!(settings.guards.ejection.max, Duration::from_secs(2));
}

#[test]
fn reads_optional_resilience_settings() {
    let settings = settings(
        "retry = { budget_per_s_min = 0, wait = \"10ms\", wait_max = \"3s\", retry_after_max = \"4s\" }\n\
         breaker = { probe_after = \"1s\", probe_after_max = \"2s\" }\n\
         ejection = { slow_factor = 2.5, slow_min = \"90ms\", slow_judgements = 9 }\n",
    );
    let (retry, guards) = (settings.retry, settings.guards);
    assert_eq!(retry.budget.per_s_min, 0);
    assert_eq!(retry.backoff.base, Duration::from_millis(10));
    assert_eq!(retry.backoff.max, Duration::from_secs(3));
    assert_eq!(retry.backoff.retry_after_max, Duration::from_secs(4));
    assert_eq!(guards.breaker.probe_after, Duration::from_secs(1));
    assert_eq!(guards.breaker.probe_after_max, Duration::from_secs(2));
    assert!((guards.ejection.slow_factor - 2.5).abs() < f64::EPSILON);
    assert_eq!(guards.ejection.slow_min, Duration::from_millis(90));
    assert_eq!(guards.ejection.slow_judgements, 9);
}

#[test]
fn rejects_invalid_resilience_settings() {
    let lines = [
        "retry = { attempts = 4 }",
        "retry = { budget = 1.5 }",
        "retry = { statuses = [200] }",
        "breaker = { error_share = 0 }",
        "ejection = { first = \"10m\" }",
        "deadlines = { connect = \"9s\", total = \"5s\" }",
        "retry = { wait = \"2s\" }",
        "breaker = { probe_after = \"5s\" }",
        "ejection = { slow_factor = 1.0 }",
        "breaker = { window = \"900ms\" }",
        "breaker = { window = 0 }",
        "deadlines = { first_byte = \"20s\" }",
        "deadlines = { manifest = \"20s\" }",
    ];
    assert_snapshot!(diagnostics(&lines.map(in_origin)));
}

#[test]
fn accepts_a_total_below_the_default_deadlines() {
    let settings = settings("deadlines = { total = \"3s\" }\n");
    assert_eq!(settings.deadlines.total, Duration::from_secs(3));
}

#[test]
fn accepts_a_deadline_as_long_as_viewers_wait() {
    let text = format!(
        "[fill]\nwait_max = \"30s\"\n{ORIGIN}\
         deadlines = {{ first_byte = \"30s\", blocking = \"50s\" }}\n"
    );
    assert_eq!(
        config(&text).origins[0].deadlines.first_byte,
        Duration::from_secs(30)
    );
    let short = format!("[fill]\nwait_max = \"5s\"\n{ORIGIN}");
    let usual = config(&short).origins.remove(0).deadlines;
    assert!(
        usual.first_byte > Duration::from_secs(5),
        "a default contradicts no given value"
    );
}
