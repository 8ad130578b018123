//! What the page shows: the state of the server in one JSON object.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::proxy::{StreamDetails, StreamStats, StreamsSnapshot};
use crate::telemetry::{RecentEvent, RequestTotals};
use seawall_upstream::{EndpointStats, Stats};

/// Only the streams with the most requests are listed.
const STREAMS_MAX: usize = 500;

/// What an overview is made from.
pub struct OverviewSource {
    /// The time of this server.
    pub now: SystemTime,
    /// The age of the process.
    pub uptime: Duration,
    /// The name of the machine.
    pub host: String,
    /// The step of a drain.
    pub drain: &'static str,
    /// Requests.
    pub totals: RequestTotals,
    /// Open connections of viewers, and how many may be open.
    pub connections: (usize, usize),
    /// The cache.
    pub cache: seawall_cache::Stats,
    /// The live streams.
    pub streams: StreamsSnapshot,
    /// The origins.
    pub origins: Vec<Stats>,
    /// The last messages.
    pub events: Vec<RecentEvent>,
    /// The configuration in use, as in `/status`.
    pub config: Value,
}

impl OverviewSource {
    /// As the page reads it.
    pub fn to_json(mut self) -> Value {
        let streams = &mut self.streams.streams;
        streams.sort_by_key(|stream| std::cmp::Reverse(stream.audience.requests));
        let left_out = streams.len().saturating_sub(STREAMS_MAX);
        let sum = |count: fn(&StreamStats) -> u64| streams.iter().map(count).sum::<u64>();
        let counts = |group: &Stats| -> u64 { group.endpoints.iter().map(requests_of).sum() };
        let bytes = |group: &Stats| -> u64 {
            let endpoints = group.endpoints.iter();
            endpoints.map(|one| one.counts.bytes_received).sum()
        };
        json!({
            "at_ms": millis_of(self.now),
            "uptime_seconds": self.uptime.as_secs_f64(),
            "version": env!("CARGO_PKG_VERSION"),
            "host": self.host,
            "drain": self.drain,
            "requests": object(self.totals.requests.map(|(outcome, n)| (outcome.as_str(), n.into()))),
            "responses": object(self.totals.responses.map(|(class, n)| (class, n.into()))),
            "sent_bytes": object(self.totals.sent_bytes.map(|(kind, n)| (kind.as_str(), n.into()))),
            "origin": {
                "requests": self.origins.iter().map(counts).sum::<u64>(),
                "bytes": self.origins.iter().map(bytes).sum::<u64>(),
                "stream_requests": sum(|stream| stream.origin_requests),
                "ideal_requests": sum(|stream| stream.ideal_requests),
            },
            "head_seconds": head_seconds(&self.totals),
            "connections": { "open": self.connections.0, "max": self.connections.1 },
            "memory": {
                "used_bytes": self.cache.bytes,
                "max_bytes": self.cache.bytes_max,
                "objects": self.cache.objects,
            },
            "streams": streams.iter().take(STREAMS_MAX).map(stream_json).collect::<Vec<_>>(),
            "streams_left_out": left_out,
            "origins": self.origins.iter().map(origin_json).collect::<Vec<_>>(),
            "events": self.events.iter().map(event_json).collect::<Vec<_>>(),
            "config": config_json(&self.config),
        })
    }
}

/// The manifests of a stream, as the page reads them.
pub fn stream_details_json(name: &str, details: &StreamDetails) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let manifests = details.manifests.iter().map(|manifest| {
        json!({
            "path": manifest.path,
            "is_refreshed": manifest.tracked.is_refreshed,
            "is_stalled": manifest.tracked.is_stalled,
            "idle_seconds": seconds(manifest.tracked.idle_for),
            "next_poll_seconds": seconds(manifest.tracked.next_poll_in),
            "last_sequence": manifest.last_sequence,
            "target_seconds": manifest.interval_max.as_secs_f64(),
            "age_seconds": seconds(manifest.age),
        })
    });
    json!({
        "name": name,
        "url": details.url,
        "manifests": manifests.collect::<Vec<_>>(),
    })
}

fn config_json(status: &Value) -> Value {
    let loaded_at = status["loaded_at"].as_f64().map(|seconds| {
        let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        millis_of(UNIX_EPOCH + since)
    });
    json!({
        "path": status["file"],
        "sha256": status["hash"],
        "generation": status["generation"],
        "loaded_at_ms": loaded_at,
        "last_error": status["last_error"],
        "warnings": status["warnings"],
        "pending_restart": status["pending_restart"],
    })
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn millis_of(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn head_seconds(totals: &RequestTotals) -> Value {
    let times = totals.head_times.iter();
    let times = times.map(|(source, counts)| (source.as_str().to_owned(), json!(counts)));
    let bounds = RequestTotals::BOUNDS.map(|bound| bound.as_secs_f64());
    times
        .chain([("bounds".to_owned(), json!(bounds))])
        .collect()
}

fn stream_json(stream: &StreamStats) -> Value {
    let edge = stream.live_edge.as_ref();
    json!({
        "name": &*stream.name,
        "viewers": stream.audience.viewers,
        "requests": stream.audience.requests,
        "bytes": stream.audience.bytes,
        "origin_requests": stream.origin_requests,
        "ideal_requests": stream.ideal_requests,
        "edge_age_seconds": edge.map(|edge| edge.age.as_secs_f64()),
        "interval_seconds": edge.map(|edge| edge.interval.as_secs_f64()),
        "is_stalled": edge.is_some_and(|edge| edge.is_stalled),
        "restarts": stream.restarts,
        "skew_segments": stream.skew,
        "staleness_seconds": stream.staleness.as_secs_f64(),
        "errors": stream.failures,
        "last_error": stream.last_failure.as_ref().map(|failure| {
            json!({ "at_ms": millis_of(failure.at), "text": failure.text })
        }),
    })
}

fn origin_json(group: &Stats) -> Value {
    json!({
        "name": &*group.name,
        "queued": group.queued,
        "active": group.in_flight,
        "endpoints": group.endpoints.iter().map(endpoint_json).collect::<Vec<_>>(),
    })
}

fn endpoint_json(endpoint: &EndpointStats) -> Value {
    let condition = &endpoint.condition;
    let is_healthy = condition
        .health
        .as_ref()
        .is_none_or(|health| health.healthy);
    let is_out = !condition.reachable || !is_healthy || condition.ejected;
    let latency = endpoint.recent_latency.as_ref();
    json!({
        "url": &*endpoint.endpoint,
        "state": if is_out || condition.breaker == "open" { "out" } else { "in_use" },
        "breaker": condition.breaker,
        "failures": endpoint.counts.failures.iter().sum::<u64>() + endpoint.counts.server_error,
        "requests": requests_of(endpoint),
        "response_seconds": latency.map(|latency| latency.p50.as_secs_f64()),
    })
}

fn requests_of(endpoint: &EndpointStats) -> u64 {
    let counts = &endpoint.counts;
    let answered = counts.success + counts.redirect + counts.client_error + counts.server_error;
    answered + counts.abandoned + counts.failures.iter().sum::<u64>()
}

fn event_json(event: &RecentEvent) -> Value {
    json!({
        "number": event.number,
        "at_ms": millis_of(event.at),
        "kind": event.kind.as_str(),
        "severity": event.severity,
        "text": event.text,
    })
}
