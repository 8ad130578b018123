//! Writes the statistics of live streams as metrics: origin requests and freshness.

use crate::proxy::{StreamStats, StreamsSnapshot};
use crate::telemetry::Exposition;

/// Only the streams with the most origin requests have their own series; all are in the sums.
const STREAMS_MAX: usize = 500;

/// All live streams in use.
pub fn metrics(snapshot: &StreamsSnapshot) -> String {
    let mut page = Exposition::default();
    page.gauge(
        "seawall_manifests_watched",
        "Live manifests that are refreshed ahead of viewers.",
        &[],
        snapshot.watched,
    );
    page.gauge(
        "seawall_manifests_stalled",
        "Of these, manifests without a change for three times their expected interval.",
        &[],
        snapshot.stalled,
    );
    page.gauge(
        "seawall_manifests_watched_bytes",
        "Approximate memory of the manifest trackers, apart from the cache. It grows with \
         the manifests that viewers request and with what they list, up to an eighth of the cache's \
         `memory`. If it stays there, more manifests are watched than fit, or \
         viewers invent queries.",
        &[],
        snapshot.bytes,
    );
    for (why, count) in snapshot.unfit {
        page.counter(
            "seawall_manifests_unfit_total",
            "Manifests from origins that were rejected as unfit for viewers, by reason.",
            &[("reason", why.as_str())],
            count,
        );
    }
    write_prefetch(&mut page, snapshot);
    let mut streams: Vec<&StreamStats> = snapshot.streams.iter().collect();
    streams.sort_by_key(|stream| std::cmp::Reverse(stream.asked));
    for stream in streams.into_iter().take(STREAMS_MAX) {
        write_stream(&mut page, stream);
    }
    page.to_string()
}

fn write_prefetch(page: &mut Exposition, snapshot: &StreamsSnapshot) {
    let ahead = &snapshot.ahead;
    for (source, count) in ahead.fetched {
        page.counter(
            "seawall_ahead_total",
            "Objects prefetched, by the source of the prediction.",
            &[("source", source.as_str())],
            count,
        );
    }
    page.counter(
        "seawall_ahead_left_out_total",
        "Objects not prefetched because memory or prefetch permits were short.",
        &[],
        ahead.left_out,
    );
    page.counter(
        "seawall_ahead_used_total",
        "Prefetched objects that a viewer then requested.",
        &[],
        ahead.used,
    );
}

fn write_stream(page: &mut Exposition, stream: &StreamStats) {
    let labels = &[("stream", &*stream.name)];
    page.counter(
        "seawall_stream_origin_requests_total",
        "Requests to the origin, by stream.",
        labels,
        stream.asked,
    );
    page.counter(
        "seawall_stream_floor_total",
        "Origin requests that an ideal cache would make: one per manifest version and new segment.",
        labels,
        stream.floor,
    );
    page.counter(
        "seawall_stream_restarts_total",
        "Times the packager began a new timeline, which dropped the stored objects of the stream.",
        labels,
        stream.restarts,
    );
    page.gauge(
        "seawall_stream_staleness_seconds",
        "Average age of served manifests beyond the newest version that the origin had.",
        labels,
        stream.staleness,
    );
    page.gauge(
        "seawall_stream_skew_segments",
        "Difference in segments between the live edges of one stream's manifests.",
        labels,
        stream.skew,
    );
}
