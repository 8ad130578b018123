//! Tests of the metrics of requests.

use super::*;
use crate::telemetry::tests::record_of;

fn metrics() -> (RequestMetrics, MetricRegistry) {
    let mut registry = MetricRegistry::default();
    let metrics = RequestMetrics::new(&["live".into(), "vod \"x\"".into()], &mut registry);
    (metrics.unwrap(), registry)
}

fn has(registry: &MetricRegistry, sample: &str) {
    let page = registry.render();
    let name = sample.split('{').next().unwrap();
    let near: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with(name) && !line.ends_with(" 0"))
        .collect();
    assert!(
        page.lines().any(|line| line == sample),
        "no {sample} in {near:#?}"
    );
}

#[test]
fn every_combination_has_a_sample_from_the_start() {
    let page = metrics().1.render();
    let samples = page
        .lines()
        .filter(|line| line.starts_with("seawall_requests_total{"));
    assert_eq!(samples.count(), 3 * Kind::ALL.len() * Outcome::ALL.len());
}

#[test]
fn each_index_reaches_the_sample_of_its_name() {
    let (metrics, registry) = metrics();
    for kind in Kind::ALL {
        for outcome in Outcome::ALL {
            metrics.count(&RequestRecord {
                route: Some(1),
                bytes: 10,
                ..record_of(outcome, kind, 206)
            });
            let (kind, outcome) = (kind.as_str(), outcome.as_str());
            let labels = format!(r#"kind="{kind}",outcome="{outcome}",route="vod \"x\"""#);
            has(&registry, &format!("seawall_requests_total{{{labels}}} 1"));
        }
    }
    has(
        &registry,
        r#"seawall_responses_total{class="2xx",route="vod \"x\""} 98"#,
    );
    has(&registry, r#"seawall_sent_bytes_total{kind="init"} 140"#);
}

#[test]
fn counts_requests_without_a_route_as_none() {
    let (metrics, registry) = metrics();
    metrics.count(&record_of(Outcome::Refused, Kind::Other, 421));
    let labels = r#"kind="other",outcome="refused",route="none""#;
    has(&registry, &format!("seawall_requests_total{{{labels}}} 1"));
    has(
        &registry,
        r#"seawall_responses_total{class="4xx",route="none"} 1"#,
    );
}

fn hit_of(route: usize) -> RequestRecord {
    RequestRecord {
        route: Some(route),
        ..record_of(Outcome::Hit, Kind::Segment, 200)
    }
}

fn hits_of(route: &str, count: u64) -> String {
    format!(r#"seawall_requests_total{{kind="segment",outcome="hit",route="{route}"}} {count}"#)
}

#[test]
fn counts_of_a_route_stay_when_others_follow() {
    let (metrics, registry) = metrics();
    metrics.count(&hit_of(0));
    metrics.set_route_names(&["live".into(), "vod \"x\"".into(), "new".into()]);
    metrics.count(&hit_of(2));
    metrics.count(&hit_of(0));
    has(&registry, &hits_of("live", 2));
    has(&registry, &hits_of("new", 1));
    has(&registry, &hits_of("none", 0));
}

#[test]
fn routes_without_room_are_counted_together() {
    let (metrics, registry) = metrics();
    let first = ["live".into(), "vod \"x\"".into()];
    let added = (2..80).map(|number: usize| number.to_string().into());
    let names: Vec<Arc<str>> = first.into_iter().chain(added).collect();
    metrics.set_route_names(&names);
    (0..names.len()).for_each(|route| metrics.count(&hit_of(route)));
    has(&registry, &hits_of("live", 1));
    has(&registry, &hits_of("67", 1));
    has(&registry, &hits_of("other", 80 - 68));
    assert!(!registry.render().contains(r#"route="68""#));
}

#[test]
fn counts_cut_bodies_and_times_by_label() {
    let (metrics, registry) = metrics();
    metrics.count(&RequestRecord {
        route: Some(0),
        aborted_by: Some(AbortCause::Origin),
        origin_time: Some(Duration::from_millis(20)),
        head_time: Duration::from_millis(30),
        ..record_of(Outcome::Miss, Kind::Segment, 200)
    });
    metrics.count(&record_of(Outcome::Hit, Kind::Segment, 200));
    has(
        &registry,
        r#"seawall_responses_aborted_total{cause="origin",kind="segment"} 1"#,
    );
    has(
        &registry,
        r#"seawall_origin_head_seconds_sum{route="live"} 0.02"#,
    );
    let missed = r#"kind="segment",source="origin""#;
    has(
        &registry,
        &format!("seawall_response_head_seconds_count{{{missed}}} 1"),
    );
    let hit = r#"kind="segment",source="memory",le="0.0001""#;
    has(
        &registry,
        &format!("seawall_response_head_seconds_bucket{{{hit}}} 1"),
    );
}

#[test]
fn groups_statuses_by_class() {
    let classes = [
        (100, "1xx"),
        (200, "2xx"),
        (304, "3xx"),
        (499, "4xx"),
        (504, "5xx"),
    ];
    for (status, class) in classes.into_iter().chain([(999, "other")]) {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(CLASSES[class_index(status)], class);
    }
}
