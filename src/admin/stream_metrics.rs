//! The metrics of live streams: manifests, prefetches, origin requests and freshness.

use crate::proxy::{PrefetchSource, RejectReason, StreamStats, StreamsSnapshot};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};

/// Only the streams with the most origin requests have their own samples.
const STREAMS_MAX: usize = 500;

const STREAM: MetricLabel = MetricLabel {
    name: "stream",
    values: LabelValues::Dynamic(
        "the path of the manifest that players start with; the 500 streams with the most origin \
         requests",
    ),
};
const REJECT_REASON: MetricLabel = MetricLabel {
    name: "reason",
    values: LabelValues::Fixed(|| RejectReason::ALL.map(RejectReason::as_str).to_vec()),
};
const PREFETCH_SOURCE: MetricLabel = MetricLabel {
    name: "source",
    values: LabelValues::Fixed(|| PrefetchSource::ALL.map(PrefetchSource::as_str).to_vec()),
};

fn busiest(snapshot: &StreamsSnapshot) -> impl Iterator<Item = &StreamStats> {
    let mut streams: Vec<&StreamStats> = snapshot.streams.iter().collect();
    streams.sort_by_key(|stream| std::cmp::Reverse(stream.origin_requests));
    streams.into_iter().take(STREAMS_MAX)
}

/// All live streams in use.
pub static STREAM_METRICS: [CollectedMetric<StreamsSnapshot>; 17] = [
    Metric {
        name: "seawall_manifests_refreshed",
        kind: MetricKind::Gauge,
        unit: "manifests",
        labels: &[],
        help: "Live manifests that are refreshed ahead of viewers.",
        remedy: "If it is much higher than the number of manifests in use, viewers invent queries: \
                 see `query` in [[route]].",
    }
    .collected(|stats, samples| samples.add(&[], stats.refreshed)),
    Metric {
        name: "seawall_manifests_stalled",
        kind: MetricKind::Gauge,
        unit: "manifests",
        labels: &[],
        help: "Refreshed live manifests without a change for three times their expected interval.",
        remedy: "If above 0, the packager of the stream has stopped, or the origin serves an old \
                 version.",
    }
    .collected(|stats, samples| samples.add(&[], stats.stalled)),
    Metric {
        name: "seawall_manifest_trackers_bytes",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Approximate memory of the manifest trackers, apart from the cache. It grows with \
               the manifests that viewers request and with what they list, up to an eighth of the \
               cache's `memory`.",
        remedy: "If it stays there, more manifests are in use than fit, or viewers invent \
                 queries.",
    }
    .collected(|stats, samples| samples.add(&[], stats.bytes)),
    Metric {
        name: "seawall_manifests_unfit_total",
        kind: MetricKind::Counter,
        unit: "manifests",
        labels: &[REJECT_REASON],
        help: "Manifests from origins that were unfit, by reason: not served (broken, behind), \
               served while another endpoint is requested (stalled), passed on unstored (coded). \
               Increments with each such response.",
        remedy: "broken, behind, stalled: check the packager and the endpoint that the log names. \
                 coded: have the origin send plain text, gzip, br or zstd.",
    }
    .collected(|snapshot, samples| {
        for (reason, count) in snapshot.rejected {
            samples.add(&[reason.as_str()], count);
        }
    }),
    Metric {
        name: "seawall_prefetches_total",
        kind: MetricKind::Counter,
        unit: "objects",
        labels: &[PREFETCH_SOURCE],
        help: "Objects prefetched, by the source of the prediction: a playlist lists it, a player \
               announces it (CMCD nor), or an MPD's template and the clock. Increments when a \
               prefetch starts.",
        remedy: "Compare with seawall_prefetches_used_total: if few are used, set prefetch to false in \
                 [route.live].",
    }
    .collected(|snapshot, samples| {
        for (source, count) in snapshot.prefetches.fetched {
            samples.add(&[source.as_str()], count);
        }
    }),
    Metric {
        name: "seawall_prefetches_used_total",
        kind: MetricKind::Counter,
        unit: "objects",
        labels: &[],
        help: "Prefetched objects that a viewer then requested. Increments with the first request \
               for each.",
        remedy: "If it is far below seawall_prefetches_total, prefetches load the origin for nothing.",
    }
    .collected(|snapshot, samples| samples.add(&[], snapshot.prefetches.used)),
    Metric {
        name: "seawall_prefetches_left_out_total",
        kind: MetricKind::Counter,
        unit: "objects",
        labels: &[],
        help: "Objects not prefetched because memory or prefetch permits were short. Increments \
               with each one.",
        remedy: "If it rises, the origin is slow, or [fill] memory is too small.",
    }
    .collected(|snapshot, samples| samples.add(&[], snapshot.prefetches.skipped)),
    Metric {
        name: "seawall_stream_requests_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[STREAM],
        help: "Requests from viewers for objects of the stream. Increments when a response ends.",
        remedy: "Divide its rate by seawall_stream_viewers: if it rises, players request again what \
                 they should have got.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.audience.requests);
        }
    }),
    Metric {
        name: "seawall_stream_sent_bytes_total",
        kind: MetricKind::Counter,
        unit: "bytes",
        labels: &[STREAM],
        help: "Body bytes sent to viewers of the stream. Increments when a response ends, by the \
               whole body.",
        remedy: "If it falls while the viewers stay, players have switched to a lower bit rate.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.audience.bytes);
        }
    }),
    Metric {
        name: "seawall_stream_viewers",
        kind: MetricKind::Gauge,
        unit: "viewers",
        labels: &[STREAM],
        help: "Estimate, mostly within 7 %, of the addresses from which objects of the stream were \
               requested in the last 10 to 20 s. Behind a CDN these are the CDN's servers.",
        remedy: "If it falls at once, look at the other metrics of the stream, and at the CDN.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.audience.viewers);
        }
    }),
    Metric {
        name: "seawall_stream_live_edge_age_seconds",
        kind: MetricKind::Gauge,
        unit: "seconds",
        labels: &[STREAM],
        help: "Time since the last new version of the stream's manifests, of the refreshed manifest \
               that has been unchanged for longest. Streams that have ended are left out.",
        remedy: "Above three segments, viewers wait: check the packager, then the origin.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            if let Some(edge) = &stream.live_edge {
                samples.add(&[&stream.name], edge.age);
            }
        }
    }),
    Metric {
        name: "seawall_stream_failures_total",
        kind: MetricKind::Counter,
        unit: "fetches",
        labels: &[STREAM],
        help: "Fetches for the stream that failed: no response of the origin, a broken one, or a \
               status of 500 or more. Increments with each one.",
        remedy: "`GET /overview` says what failed last, and why.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.failures);
        }
    }),
    Metric {
        name: "seawall_stream_origin_requests_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[STREAM],
        help: "Requests to the origin, by stream. Increments with each request for a manifest or \
               segment of the stream.",
        remedy: "Divide by seawall_stream_ideal_requests_total: 1.0 is perfect. If it rises above 1.2, look \
                 for objects that are not cacheable.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.origin_requests);
        }
    }),
    Metric {
        name: "seawall_stream_ideal_requests_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[STREAM],
        help: "Origin requests that an ideal cache would make for the stream. Increments with each \
               manifest version and each new segment.",
        remedy: "It is the divisor of seawall_stream_origin_requests_total. If it stops, the \
                 packager has stopped.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.ideal_requests);
        }
    }),
    Metric {
        name: "seawall_stream_restarts_total",
        kind: MetricKind::Counter,
        unit: "restarts",
        labels: &[STREAM],
        help: "Times the packager began a new timeline, which dropped the stored objects of the \
               stream. Increments with each restart.",
        remedy: "If it rises without a planned restart, check the packager.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.restarts);
        }
    }),
    Metric {
        name: "seawall_stream_staleness_seconds",
        kind: MetricKind::Gauge,
        unit: "seconds",
        labels: &[STREAM],
        help: "Average age of served manifests beyond the newest version that the origin had.",
        remedy: "If it is above half a segment, the origin answers refreshes too slowly.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.staleness);
        }
    }),
    Metric {
        name: "seawall_stream_skew_segments",
        kind: MetricKind::Gauge,
        unit: "segments",
        labels: &[STREAM],
        help: "Difference in segments between the live edges of one stream's manifests.",
        remedy: "Above 2, players stop when they switch renditions: check the packager of the \
                 rendition that is behind.",
    }
    .collected(|snapshot, samples| {
        for stream in busiest(snapshot) {
            samples.add(&[&stream.name], stream.skew);
        }
    }),
];
