//! Writes the statistics of the cache as metrics.

use crate::proxy::{ClientStats, CodingStats};
use crate::telemetry::Exposition;
use seawall_cache;

/// A metric's name, help text and value.
type MetricLine = (&'static str, &'static str, u64);

/// Stored objects and fills.
pub fn memory(stats: &seawall_cache::Stats) -> String {
    let mut page = Exposition::default();
    for (name, help, value) in gauges(stats) {
        page.gauge(name, help, &[], value);
    }
    for (name, help, value) in counters(stats) {
        page.counter(name, help, &[], value);
    }
    for (reason, count) in stats.evictions {
        let help = "Objects dropped to make room, by what they were. Many of reason `live`: \
                    memory is too small for what is watched live.";
        let labels = [("reason", reason.as_str())];
        page.counter("seawall_store_evictions_total", help, &labels, count);
    }
    page.to_string()
}

/// Requests that clients abandoned.
pub fn clients(stats: &ClientStats) -> String {
    let mut page = Exposition::default();
    page.gauge(
        "seawall_fetches_deserted",
        "Fetches in progress that no viewer waits for any more: at most 16 per client and 64 in total.",
        &[],
        stats.running,
    );
    page.counter(
        "seawall_fetches_given_up_total",
        "Fetches cancelled because their viewers had left and too many such fetches were in progress.",
        &[],
        stats.given_up,
    );
    for (result, count) in [("delayed", stats.delayed), ("refused", stats.refused)] {
        page.counter(
            "seawall_requests_restrained_total",
            "Requests delayed or refused because their client (an address) abandoned most of its requests. \
             If it grows, a client resets its requests in a loop.",
            &[("result", result)],
            count,
        );
    }
    page.to_string()
}

/// Compression of manifests.
pub fn codings(stats: &CodingStats) -> String {
    let mut page = Exposition::default();
    for (coding, made) in stats.made {
        page.counter(
            "seawall_codings_total",
            "Manifests compressed: once per version and coding, outside the worker threads.",
            &[("coding", coding.as_str())],
            made,
        );
    }
    page.counter(
        "seawall_codings_refused_total",
        "Manifests sent uncompressed because too many waited to be compressed: the machine \
         has too few cores.",
        &[],
        stats.refused,
    );
    page.gauge(
        "seawall_codings_queued",
        "Manifests waiting to be compressed, or being compressed.",
        &[],
        stats.queued,
    );
    page.to_string()
}

fn gauges(stats: &seawall_cache::Stats) -> [MetricLine; 9] {
    [
        ("seawall_store_objects", "Objects stored.", stats.objects),
        (
            "seawall_store_bytes",
            "Bytes stored, overhead included.",
            stats.bytes,
        ),
        (
            "seawall_store_bytes_max",
            "Limit of stored bytes.",
            stats.bytes_max,
        ),
        ("seawall_fills_in_flight", "Fills in progress.", stats.fills),
        (
            "seawall_waiters",
            "Viewers attached to fills in progress.",
            stats.followers,
        ),
        (
            "seawall_fill_bytes",
            "Bytes held by fills in progress.",
            stats.fill_bytes,
        ),
        (
            "seawall_fill_bytes_max",
            "Limit of fill bytes and pinned bytes together.",
            stats.fill_bytes_max,
        ),
        (
            "seawall_pinned_bytes",
            "Bytes of bodies that have left memory (evicted, replaced, purged, expired) while slow \
             viewers read them. They count towards fill.memory.",
            stats.pinned_bytes,
        ),
        (
            "seawall_pinned_bytes_max",
            "Limit of pinned bytes; lower while fills need the memory. Above it the slowest viewers \
             are cut: seawall_edge_events_total{event=\"memory_short\"} counts them.",
            stats.pinned_bytes_max,
        ),
    ]
}

fn counters(stats: &seawall_cache::Stats) -> [MetricLine; 4] {
    [
        (
            "seawall_store_insertions_total",
            "Objects stored since start.",
            stats.insertions,
        ),
        (
            "seawall_variants_refused_total",
            "Variants not stored because their URL reached variants_max.",
            stats.too_varied,
        ),
        (
            "seawall_waiters_refused_total",
            "Viewers rejected because waiters_max already waited for the same key.",
            stats.crowded,
        ),
        (
            "seawall_fills_windowed_total",
            "Fills too large to hold in memory, streamed through a window.",
            stats.windowed,
        ),
    ]
}
