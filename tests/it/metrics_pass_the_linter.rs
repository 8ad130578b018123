//! `/metrics` passes Prometheus's own linter after traffic, and lists what `docs/metrics.md` lists.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use seawall_policy::{ClientClass, ClientClasses};
use seawall_upstream::guard::health;
use seawall_upstream::{Check, CheckKind, Quota};

use crate::support::metrics::REFERENCE;
use crate::support::shield::address_list;
use crate::support::{Origin, Shield, ask, manifest, playlist, segment, status};

/// Metrics after hits, misses, failures, 404s, live playlists and a purge, of an endpoint with
/// every limit and with health checks.
async fn metrics_after_traffic() -> String {
    // Stale at once, so that it is refreshed from the second request on.
    let overdue = manifest(playlist(7)).cache_control("max-age=1").age(1);
    let origin = Origin::start()
        .await
        .on("/live/index.m3u8", overdue)
        .on("/live/seg7.ts", segment("x"))
        .on("/live/broken.ts", status(500))
        .on("/live/gone.ts", status(404));
    let shield = Shield::in_front_of(&origin)
        .origin(|group| {
            group.endpoints[0].concurrency_max = Some(100);
            group.endpoints[0].requests_per_second_max = Some(Quota::All(1000));
            group.guards.latency.samples_min = 1;
            group.health = Some(Check {
                kind: CheckKind::Tcp,
                timeout: std::time::Duration::from_hours(1),
                schedule: health::Settings::default(),
            });
        })
        .with(|config| {
            let class = ClientClass {
                addresses: Some(address_list(&["127.0.0.1/32"])),
                ..ClientClass::named("near", 0)
            };
            config.rules.client_classes = ClientClasses::of(vec![class]);
        })
        .start()
        .await;
    for path in [
        "/live/index.m3u8",
        "/live/seg7.ts",
        "/live/broken.ts",
        "/live/gone.ts",
    ] {
        for _ in 0..3 {
            shield.get(path).await;
        }
    }
    shield.ask(ask("DELETE", "/live/seg7.ts")).await;
    shield.purge("/live/seg7.ts").await;
    shield.metrics().await
}

#[tokio::test]
async fn the_reference_lists_every_exported_metric_and_no_other() {
    let text = metrics_after_traffic().await;
    let exported = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("# TYPE ")?;
        rest.split(' ').next()
    });
    let listed = REFERENCE.lines().filter_map(|line| {
        let rest = line.strip_prefix("### `")?;
        rest.strip_suffix('`')
    });
    let (exported, listed) = (exported.collect::<BTreeSet<_>>(), listed.collect());
    let differing: Vec<_> = exported.symmetric_difference(&listed).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

/// The main rules, without the linter: every family has help and type before its samples and
/// appears once; labels of summaries and histograms appear on nothing else.
#[tokio::test]
async fn every_family_is_described_once_and_uses_no_reserved_label() {
    let page = metrics_after_traffic().await;
    let mut described = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            let known = described.iter().any(|(other, _)| *other == name);
            assert!(!known, "{name} is described twice");
            described.push((name, kind));
        } else if !line.starts_with('#') {
            let (name, kind) = described.last().expect("a type before its samples");
            assert!(line.starts_with(name), "{line} under {name}");
            let reserved = line.contains("quantile=\"") || line.contains("le=\"");
            assert!(!reserved || *kind == "histogram", "{line} is a {kind}");
            assert!(*kind != "counter" || name.ends_with("_total"), "{name}");
        }
    }
    assert!(described.len() > 40, "{described:?}");
}

/// `promtool` comes with Prometheus and is not on every machine: run `cargo test -- --ignored`
/// where it is.
#[tokio::test]
#[ignore = "needs promtool in the path; .ci/run installs it"]
async fn promtool_check_metrics_reports_nothing() {
    let page = metrics_after_traffic().await;
    let mut linter = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool in the path");
    let mut input = linter.stdin.take().expect("a pipe");
    input.write_all(page.as_bytes()).expect("promtool reads");
    drop(input);
    let output = linter.wait_with_output().expect("promtool ends");
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.is_empty(), "{report}");
}
