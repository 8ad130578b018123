//! What does the memory count? Its snapshot, written as metrics.

use crate::cache;
use crate::proxy::{ClientStats, CodingStats};
use crate::telemetry::Exposition;

/// A metric's name, what it says, and what it stands at.
type MetricLine = (&'static str, &'static str, u64);

/// What is remembered and what is being fetched.
pub fn memory(stats: &cache::Stats) -> String {
    let mut page = Exposition::default();
    for (name, help, value) in levels(stats) {
        page.gauge(name, help, &[], value);
    }
    for (name, help, value) in totals(stats) {
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

/// What clients asked for and left.
pub fn clients(stats: &ClientStats) -> String {
    let mut page = Exposition::default();
    page.gauge(
        "seawall_fetches_deserted",
        "Fetches under way that no viewer waits for any more: 16 of one client and 64 in all at most.",
        &[],
        stats.running,
    );
    page.counter(
        "seawall_fetches_given_up_total",
        "Fetches given up because their viewers had left, and too many of them or of this client's ran on.",
        &[],
        stats.given_up,
    );
    for (result, count) in [("delayed", stats.delayed), ("refused", stats.refused)] {
        page.counter(
            "seawall_requests_restrained_total",
            "Requests delayed or refused because their client (an address) had left most of what it asked \
             for. If it grows, a client resets its requests in a loop.",
            &[("result", result)],
            count,
        );
    }
    page.to_string()
}

/// What is compressed.
pub fn codings(stats: &CodingStats) -> String {
    let mut page = Exposition::default();
    for (coding, made) in stats.made {
        page.counter(
            "seawall_codings_total",
            "Manifests compressed, once a version and coding, off the threads that serve viewers.",
            &[("coding", coding.as_str())],
            made,
        );
    }
    page.counter(
        "seawall_codings_refused_total",
        "Manifests that went out in plain text because too many waited to be compressed: the machine \
         is short of cores.",
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

fn levels(stats: &cache::Stats) -> [MetricLine; 9] {
    [
        ("seawall_store_objects", "Objects stored.", stats.objects),
        (
            "seawall_store_bytes",
            "Bytes stored, overhead included.",
            stats.bytes,
        ),
        (
            "seawall_store_bytes_max",
            "The bound of stored bytes.",
            stats.bytes_max,
        ),
        ("seawall_fills_in_flight", "Fills under way.", stats.fills),
        (
            "seawall_waiters",
            "Viewers at a fill under way.",
            stats.followers,
        ),
        (
            "seawall_fill_bytes",
            "Bytes held by fills under way.",
            stats.fill_bytes,
        ),
        (
            "seawall_fill_bytes_max",
            "The bound of bytes held by fills and of pinned bytes, together.",
            stats.fill_bytes_max,
        ),
        (
            "seawall_pinned_bytes",
            "Bytes of bodies that have left memory (evicted, replaced, purged, expired) while slow \
             viewers read them. They come out of fill.memory.",
            stats.pinned_bytes,
        ),
        (
            "seawall_pinned_bytes_max",
            "The bound of pinned bytes; lower while fills need the room. Past it the slowest viewers \
             are cut: seawall_edge_events_total{event=\"memory_short\"} counts them.",
            stats.pinned_bytes_max,
        ),
    ]
}

fn totals(stats: &cache::Stats) -> [MetricLine; 4] {
    [
        (
            "seawall_store_insertions_total",
            "Objects stored since start.",
            stats.insertions,
        ),
        (
            "seawall_variants_refused_total",
            "Variants not stored because their URL had too many.",
            stats.too_varied,
        ),
        (
            "seawall_waiters_refused_total",
            "Viewers turned away because too many waited for the same key.",
            stats.crowded,
        ),
        (
            "seawall_fills_windowed_total",
            "Fills too large to hold, streamed through a window.",
            stats.windowed,
        ),
    ]
}
