//! What do live streams cost their origins, and how fresh are they? As metrics.

use crate::proxy::{StreamStats, StreamsSnapshot};
use crate::telemetry::Exposition;

/// So many streams have series of their own, those that cost most; the others are in the sums.
const STREAMS_MAX: usize = 500;

/// All streams that are watched.
pub fn metrics(snapshot: &StreamsSnapshot) -> String {
    let mut page = Exposition::default();
    page.gauge(
        "seawall_manifests_watched",
        "Live manifests that are looked after ahead of viewers.",
        &[],
        snapshot.watched,
    );
    page.gauge(
        "seawall_manifests_stalled",
        "Of these, those that have not changed for three times as long as they should take.",
        &[],
        snapshot.stalled,
    );
    page.gauge(
        "seawall_manifests_watched_bytes",
        "Memory, about, that is taken by what is known of manifests, beside the cache's. It grows with \
         the manifests that viewers ask for and with what these list, to an eighth of the cache's \
         `memory`. Where it stays there, more manifests are watched than that is enough for, or \
         viewers invent queries.",
        &[],
        snapshot.bytes,
    );
    for (why, count) in snapshot.unfit {
        page.counter(
            "seawall_manifests_unfit_total",
            "Manifests that origins sent and that were not fit for viewers, by reason.",
            &[("reason", why.as_str())],
            count,
        );
    }
    ahead(&mut page, snapshot);
    let mut streams: Vec<&StreamStats> = snapshot.streams.iter().collect();
    streams.sort_by_key(|stream| std::cmp::Reverse(stream.asked));
    for stream in streams.into_iter().take(STREAMS_MAX) {
        one(&mut page, stream);
    }
    page.to_string()
}

fn ahead(page: &mut Exposition, snapshot: &StreamsSnapshot) {
    let ahead = &snapshot.ahead;
    for (source, count) in ahead.fetched {
        page.counter(
            "seawall_ahead_total",
            "Objects fetched ahead of viewers, by what said that they will be asked for.",
            &[("source", source.as_str())],
            count,
        );
    }
    page.counter(
        "seawall_ahead_left_out_total",
        "Objects that were not fetched ahead, for want of room.",
        &[],
        ahead.left_out,
    );
    page.counter(
        "seawall_ahead_used_total",
        "Objects fetched ahead that a viewer then asked for.",
        &[],
        ahead.used,
    );
}

fn one(page: &mut Exposition, stream: &StreamStats) {
    let labels = &[("stream", &*stream.name)];
    page.counter(
        "seawall_stream_origin_requests_total",
        "Requests to the origin, by stream.",
        labels,
        stream.asked,
    );
    page.counter(
        "seawall_stream_floor_total",
        "Versions of manifests and new segments: what has to be asked for once, whatever the audience.",
        labels,
        stream.floor,
    );
    page.counter(
        "seawall_stream_restarts_total",
        "Times the packager began anew, and what was held of it was dropped.",
        labels,
        stream.restarts,
    );
    page.gauge(
        "seawall_stream_staleness_seconds",
        "How old manifests were on average, as served, beyond what the origin had to offer.",
        labels,
        stream.staleness,
    );
    page.gauge(
        "seawall_stream_skew_segments",
        "By how many segments the manifests of one stream differ at their ends.",
        labels,
        stream.skew,
    );
}
