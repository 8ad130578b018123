//! What does the memory count? Its snapshot, written as metrics.

use crate::cache;
use crate::shield::CodingStats;
use crate::telemetry::Exposition;

/// A metric's name, what it says, and what it stands at.
type Line = (&'static str, &'static str, u64);

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

fn levels(stats: &cache::Stats) -> [Line; 7] {
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
            "The bound of bytes held by fills.",
            stats.fill_bytes_max,
        ),
    ]
}

fn totals(stats: &cache::Stats) -> [Line; 4] {
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
