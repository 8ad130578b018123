//! The handlers that the tests of the admin server answer with.

use std::sync::Arc;

use serde_json::Value;

use super::super::super::cache_metrics::CLIENT_METRICS;
use super::super::super::{AdminHandlers, AuditLog, DrainProgress, Overview, WorkerHealth};
use crate::proxy::{ClientStats, PurgeMode, PurgeOrder, PurgeScope, Purged, UnknownTarget};
use crate::telemetry::MetricRegistry;

const OVERVIEW: &str = r#"{"at_ms":1,"uptime_seconds":1.5,"version":"1","host":"a","drain":"serving",
"requests":{},"responses":{},"sent_bytes":{},"origin":{},"head_seconds":{},"connections":{},"memory":{},
"streams":[],"streams_left_out":0,"origins":[],"events":[],"config":{}}"#;

fn registry() -> MetricRegistry {
    let mut registry = MetricRegistry::default();
    let stats = ClientStats {
        running: 3,
        ..ClientStats::default()
    };
    registry
        .collect("Clients", &CLIENT_METRICS, move || stats)
        .unwrap();
    registry
}

pub(super) fn handlers(ready: bool) -> AdminHandlers {
    AdminHandlers {
        hosts: Arc::default(),
        tokens: Arc::default(),
        audit: Arc::new(AuditLog::start(None).unwrap()),
        status: Box::new(|| {
            serde_json::json!({
                "origins": [], "drain": { "state": "serving" }, "config": {}, "process": {},
                "upgrade": {}, "client_classes": [],
            })
        }),
        overview: Arc::new(|| Overview {
            json: OVERVIEW.into(),
            is_last: false,
        }),
        stream: Box::new(|name| {
            let details = serde_json::json!({ "name": "a", "url": "http://a/a", "manifests": [] });
            (name == "a").then_some(details)
        }),
        metrics: registry(),
        health: Box::new(move || Box::pin(async move { WorkerHealth { all: 4, silent: 0 } })),
        ready: Box::new(move || ready),
        drain: Box::new(move |waits| {
            Box::pin(std::future::ready(match (ready, waits) {
                (true, true) => Some(DrainProgress::ListenersClosed),
                (true, false) => Some(DrainProgress::Begun),
                (false, _) => None,
            }))
        }),
        reload: Box::new(move || {
            let report = serde_json::json!({
                "generation": 2, "loaded_at": 0.5, "changes": [], "needs_restart": 0,
                "warnings": [],
            });
            let error = serde_json::json!({ "error": "the file has an error" });
            Box::pin(std::future::ready(ready.then_some(report).ok_or(error)))
        }),
        upgrade: Box::new(move || {
            let report = serde_json::json!({ "pid": 7, "version": "0.1.0" });
            let error = serde_json::json!({ "error": "the new process has ended" });
            let result = ready.then_some(report).ok_or(error);
            Box::pin(std::future::ready(Some(result)))
        }),
        explain: Box::new(|url| match url.host() {
            Some("known.example") => Ok(explanation_of(url)),
            _ => Err("no route"),
        }),
        warm: Box::new(|_, _| Box::pin(std::future::ready(Err("no route")))),
        purge: Box::new(|order| {
            let PurgeOrder { scope, mode, actor } = order;
            assert_eq!(actor, "anyone at 127.0.0.1:1");
            let objects: Option<u64> = match scope {
                PurgeScope::Tags(selection) => selection.origin.is_none().then_some(3),
                PurgeScope::Path(_) => Some(u64::from(mode == PurgeMode::DryRun)),
                PurgeScope::Host(url) => (url.host() == Some("known.example")).then_some(2),
                PurgeScope::Url(url) => (url.host() == Some("known.example")).then_some(1),
                PurgeScope::Stream(url) => (url.path() == "/live.m3u8").then_some(0),
                PurgeScope::Prefix(url) => (url.path() == "/live/").then_some(7),
                PurgeScope::Everything => Some(9),
            };
            let purged = objects.ok_or_else(|| UnknownTarget {
                why: "the origins are a, b".to_owned(),
            });
            let purged = purged.map(|objects| Purged {
                objects,
                bytes: 100 * objects,
                is_complete: objects != 9,
                is_shared_among_hosts: true,
            });
            Box::pin(std::future::ready(purged))
        }),
    }
}

fn explanation_of(url: &http::Uri) -> Value {
    serde_json::json!({
        "route": "live", "kind": "other", "key": "00ff", "target": url.path(), "origin": "main",
    })
}
