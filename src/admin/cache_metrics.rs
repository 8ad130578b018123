//! The metrics of the cache: stored objects, fills, clients that abandon requests, compression.

use crate::proxy::{ClientStats, CodingStats};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};
use seawall_cache::EvictionReason;
use seawall_policy::encoding::ContentCoding;

const EVICTION_REASON: MetricLabel = MetricLabel {
    name: "reason",
    values: LabelValues::Fixed(|| EvictionReason::ALL.map(EvictionReason::as_str).to_vec()),
};
const THROTTLING: MetricLabel = MetricLabel {
    name: "result",
    values: LabelValues::Fixed(|| THROTTLINGS.to_vec()),
};
const CODING: MetricLabel = MetricLabel {
    name: "coding",
    values: LabelValues::Fixed(|| ContentCoding::ALL.map(ContentCoding::as_str).to_vec()),
};

/// What happens to a request of a client that abandoned most of its requests.
const THROTTLINGS: [&str; 2] = ["delayed", "refused"];

/// Stored objects and fills.
pub static MEMORY_METRICS: [CollectedMetric<seawall_cache::Stats>; 16] = [
    Metric {
        name: "seawall_store_objects",
        kind: MetricKind::Gauge,
        unit: "objects",
        labels: &[],
        help: "Objects stored now. A URL with variants counts once more: a marker names the headers \
               that select a variant.",
        remedy: "If it stays near 0, responses are not cacheable: ask /explain?url=… why.",
    }
    .collected(|stats, samples| samples.add(&[], stats.objects)),
    Metric {
        name: "seawall_store_bytes",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Bytes stored now, overhead included.",
        remedy: "At seawall_store_bytes_max objects are evicted: see \
                 seawall_store_evictions_total.",
    }
    .collected(|stats, samples| samples.add(&[], stats.bytes)),
    Metric {
        name: "seawall_store_bytes_max",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Limit of stored bytes: [cache] memory. Constant.",
        remedy: "If evictions of reason live rise, raise [cache] memory.",
    }
    .collected(|stats, samples| samples.add(&[], stats.bytes_max)),
    Metric {
        name: "seawall_store_insertions_total",
        kind: MetricKind::Counter,
        unit: "objects",
        labels: &[],
        help: "Objects stored. Increments when a fill has stored its object.",
        remedy: "If it rises as fast as requests, nothing is requested twice: check query \
                 parameters and forward_headers, which are part of the key.",
    }
    .collected(|stats, samples| samples.add(&[], stats.insertions)),
    Metric {
        name: "seawall_store_evictions_total",
        kind: MetricKind::Counter,
        unit: "objects",
        labels: &[EVICTION_REASON],
        help: "Objects dropped to make room, by what they were. Increments when an object is \
               evicted; expired and purged objects do not count.",
        remedy: "Many of reason live: [cache] memory is too small for what is watched live. Many \
                 of on_demand: it is too small for the catalogue.",
    }
    .collected(|stats, samples| {
        for (reason, evicted) in stats.evictions {
            samples.add(&[reason.as_str()], evicted);
        }
    }),
    Metric {
        name: "seawall_variants_refused_total",
        kind: MetricKind::Counter,
        unit: "variants",
        labels: &[],
        help: "Variants not stored because their URL has variants_max of them. Increments with \
               each such response.",
        remedy: "Have the origin send fewer Vary fields, list fewer forward_headers, or raise \
                 variants_max.",
    }
    .collected(|stats, samples| samples.add(&[], stats.too_varied)),
    Metric {
        name: "seawall_tags",
        kind: MetricKind::Gauge,
        unit: "tags",
        labels: &[],
        help: "Tags of stored objects (Surrogate-Key, Cache-Tag, Cache-Groups), and the last 1024 \
               that were purged. Their memory is part of seawall_store_bytes.",
        remedy: "At tags_max objects get a tag that stands for all: have the origin use fewer tags \
                 or raise tags_max.",
    }
    .collected(|stats, samples| samples.add(&[], stats.tags)),
    Metric {
        name: "seawall_tags_overflowed_total",
        kind: MetricKind::Counter,
        unit: "responses",
        labels: &[],
        help: "Responses whose tags were replaced by one that stands for all of the origin. \
               Increments with a response that has more than 64 tags, one longer than 128 bytes, or \
               that comes when there are tags_max.",
        remedy: "Every purge of a tag of that origin drops these objects: have the origin send \
                 fewer and shorter tags, or raise tags_max.",
    }
    .collected(|stats, samples| samples.add(&[], stats.tags_overflowed)),
    Metric {
        name: "seawall_fills_in_flight",
        kind: MetricKind::Gauge,
        unit: "fills",
        labels: &[],
        help: "Fills in progress: fetches of an object for all viewers that request it.",
        remedy: "If it rises and stays high, the origin is slow: see \
                 seawall_origin_target_response_seconds.",
    }
    .collected(|stats, samples| samples.add(&[], stats.fills)),
    Metric {
        name: "seawall_waiters",
        kind: MetricKind::Gauge,
        unit: "viewers",
        labels: &[],
        help: "Viewers attached to fills in progress.",
        remedy: "If it stays high, the origin is slow, or many viewers request what does not exist \
                 yet.",
    }
    .collected(|stats, samples| samples.add(&[], stats.followers)),
    Metric {
        name: "seawall_waiters_refused_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[],
        help: "Requests rejected because waiters_max viewers already waited for the same key. \
               Increments with each rejection.",
        remedy: "Check why the origin does not answer; raise waiters_max for larger audiences.",
    }
    .collected(|stats, samples| samples.add(&[], stats.crowded)),
    Metric {
        name: "seawall_fill_bytes",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Bytes held by fills in progress.",
        remedy: "Near seawall_fill_bytes_max, further large objects stream through a window and \
                 are not stored: raise [fill] memory.",
    }
    .collected(|stats, samples| samples.add(&[], stats.fill_bytes)),
    Metric {
        name: "seawall_fill_bytes_max",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Limit of fill bytes and pinned bytes together: [fill] memory. Constant.",
        remedy: "If seawall_fills_windowed_total rises, raise [fill] memory.",
    }
    .collected(|stats, samples| samples.add(&[], stats.fill_bytes_max)),
    Metric {
        name: "seawall_fills_windowed_total",
        kind: MetricKind::Counter,
        unit: "fills",
        labels: &[],
        help: "Fills too large to hold in memory, streamed through a window and not stored. \
               Increments when a fill begins its window.",
        remedy: "Raise [fill] memory, or [cache] object_max if the objects are larger.",
    }
    .collected(|stats, samples| samples.add(&[], stats.windowed)),
    Metric {
        name: "seawall_pinned_bytes",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Bytes of bodies that have left memory (evicted, replaced, purged, expired) while \
               slow viewers read them. They count towards [fill] memory.",
        remedy: "At seawall_pinned_bytes_max the slowest viewers are cut: raise [cache] memory or \
                 [fill] memory.",
    }
    .collected(|stats, samples| samples.add(&[], stats.pinned_bytes)),
    Metric {
        name: "seawall_pinned_bytes_max",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Limit of pinned bytes now. It is lower while fills need the memory.",
        remedy: "Above it the slowest viewers are cut, and \
                 seawall_viewer_events_total{event=\"cut_for_memory\"} counts them: raise [fill] \
                 memory.",
    }
    .collected(|stats, samples| samples.add(&[], stats.pinned_bytes_max)),
];

/// Query parameters that keep viewers from sharing objects.
pub static QUERY_METRICS: [CollectedMetric<u64>; 1] = [Metric {
    name: "seawall_query_parameters_varying",
    kind: MetricKind::Gauge,
    unit: "parameters",
    labels: &[],
    help: "Query parameters, of each route, of which 54 of the last 60 fetches of a path had \
           different values, found within the last hour: no two viewers share such an object.",
    remedy: "If it is not 0, the log names route and parameter. If no response depends on it, leave \
             it out of `query` of the route; if it is the origin's session, switch that off at the \
             origin.",
}
.collected(|count, samples| samples.add(&[], *count))];

/// Responses that are shared against the word of their origin.
pub static PRIVATE_METRICS: [CollectedMetric<u64>; 1] = [Metric {
    name: "seawall_private_overridden_total",
    kind: MetricKind::Counter,
    unit: "responses",
    labels: &[],
    help: "Responses of an origin with Set-Cookie, private or no-store that are stored and shared, \
           because `store_private` of their route lists their kind. Increments with each such \
           response.",
    remedy: "If a viewer gets what is another one's, take the kind out of `store_private`, and \
             purge the route's path.",
}
.collected(|count, samples| samples.add(&[], *count))];

/// Requests that clients abandoned.
pub static CLIENT_METRICS: [CollectedMetric<ClientStats>; 3] = [
    Metric {
        name: "seawall_fetches_without_viewers",
        kind: MetricKind::Gauge,
        unit: "fetches",
        labels: &[],
        help: "Fetches in progress that no viewer waits for any more: at most 16 per client and 64 \
               in total.",
        remedy: "If it stays at 64, clients reset their requests in a loop: see \
                 seawall_requests_throttled_total.",
    }
    .collected(|stats, samples| samples.add(&[], stats.running)),
    Metric {
        name: "seawall_fetches_cancelled_total",
        kind: MetricKind::Counter,
        unit: "fetches",
        labels: &[],
        help: "Fetches cancelled because their viewers had left and too many such fetches were in \
               progress. Increments when one is cancelled.",
        remedy: "If it rises, find the clients that abandon their requests in the access log \
                 (outcome left).",
    }
    .collected(|stats, samples| samples.add(&[], stats.cancelled)),
    Metric {
        name: "seawall_requests_throttled_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[THROTTLING],
        help: "Requests delayed or refused because their client (an address) abandoned most of its \
               requests. Increments with each such request.",
        remedy: "If it rises, a client resets its requests in a loop: find its address in the \
                 access log.",
    }
    .collected(|stats, samples| {
        for (result, count) in THROTTLINGS
            .into_iter()
            .zip([stats.throttled, stats.refused])
        {
            samples.add(&[result], count);
        }
    }),
];

/// Compression of manifests.
pub static CODING_METRICS: [CollectedMetric<CodingStats>; 3] = [
    Metric {
        name: "seawall_codings_total",
        kind: MetricKind::Counter,
        unit: "manifests",
        labels: &[CODING],
        help: "Manifest versions compressed for viewers, by content coding. Increments when one is \
               compressed, in the background; no viewer waits for it.",
        remedy: "If it rises by more than three for each new version of a manifest, see \
                 seawall_store_evictions_total: an evicted manifest is compressed again.",
    }
    .collected(|stats, samples| {
        for (coding, made) in stats.made {
            samples.add(&[coding.as_str()], made);
        }
    }),
    Metric {
        name: "seawall_codings_refused_total",
        kind: MetricKind::Counter,
        unit: "manifests",
        labels: &[],
        help: "Manifests sent uncompressed because too many waited to be compressed. Increments \
               with each one that finds the queue full.",
        remedy: "If it rises, the machine has too few cores for its streams.",
    }
    .collected(|stats, samples| samples.add(&[], stats.refused)),
    Metric {
        name: "seawall_codings_queued",
        kind: MetricKind::Gauge,
        unit: "manifests",
        labels: &[],
        help: "Manifests waiting to be compressed, or being compressed.",
        remedy: "If it stays above 0, the machine has too few cores for its streams.",
    }
    .collected(|stats, samples| samples.add(&[], stats.queued)),
];
