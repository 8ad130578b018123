//! What do the rooms count? Their snapshots, written as metrics.

use crate::cache;
use crate::origin;
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

fn totals(stats: &cache::Stats) -> [Line; 5] {
    [
        (
            "seawall_store_insertions_total",
            "Objects stored since start.",
            stats.insertions,
        ),
        (
            "seawall_store_evictions_total",
            "Objects dropped to make room since start.",
            stats.evictions,
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

/// What came of asking the origins.
pub fn origins(groups: &[origin::Stats]) -> String {
    let mut page = Exposition::default();
    requests(&mut page, groups);
    for stats in groups {
        let name = [("origin", &*stats.name)];
        page.counter(
            "seawall_origin_bytes_total",
            "Body bytes received from origins.",
            &name,
            stats.bytes_received,
        );
        for (state, value) in [
            ("new", stats.connections_new),
            ("reused", stats.connections_reused),
        ] {
            page.counter(
                "seawall_origin_connections_total",
                "Connections to origins, made or used again.",
                &[name[0], ("state", state)],
                value,
            );
        }
        page.counter(
            "seawall_origin_retries_total",
            "Requests sent again because a reused connection had been closed.",
            &name,
            stats.retries,
        );
        page.gauge(
            "seawall_origin_in_flight",
            "Requests to origins under way.",
            &name,
            stats.in_flight as u64,
        );
        page.gauge(
            "seawall_origin_queued",
            "Requests waiting for a permit to ask an origin.",
            &name,
            stats.queued as u64,
        );
    }
    page.to_string()
}

fn requests(page: &mut Exposition, groups: &[origin::Stats]) {
    const NAME: &str = "seawall_origin_requests_total";
    const HELP: &str = "Requests to origins, by what came of them.";
    for stats in groups {
        let classes = [
            ("2xx", stats.success),
            ("3xx", stats.redirect),
            ("4xx", stats.client_error),
            ("5xx", stats.server_error),
            ("abandoned", stats.abandoned),
        ];
        let failures = stats
            .failures
            .map(|(failure, count)| (failure.as_str(), count));
        for (result, count) in classes.into_iter().chain(failures) {
            let labels = [("origin", &*stats.name), ("result", result)];
            page.counter(NAME, HELP, &labels, count);
        }
    }
}
