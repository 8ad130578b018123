//! Handles viewer requests: admits a request, looks its key up, and answers from memory or from the
//! key's one fill.
//!
//! **State** ([`Shield`]): the rules, the cache, the origin groups, what is known of live streams
//! (`live`), compressions in progress, the fetches that each client has caused, what clients have
//! used of rate limits, and the secrets of access rules. A reload makes another shield with the
//! same cache, streams and counters (`active`).
//!
//! **A hit**: `admission` (access rules, token, `rate_limits`, key) → `blocking_reload` (only
//! LL-HLS: is the stored version the requested one?) → `pipeline` (look up) → `coding` (the body in
//! the viewer's content coding) → `responses`.
//!
//! **A miss**: `pipeline` → `unkeyed_memos` (did the key fail a moment ago?) → `fill` (one task per
//! key; after an upgrade `fill/given` asks the process before first, by way of `handover`;
//! `fill/request` sends the request) → `fill/streaming` (chunk by chunk to all followers, with
//! `race` when an endpoint is slow) or `fill/failure` → `responses`. What may not be shared goes
//! through `pass`; what is too large for one fetch through `slices`. `stale_on_error` serves a
//! stored object where the origin failed. Viewers that send the same request and wait for the same
//! fill get one response (`shared_wait`).
//!
//! **A manifest**: as a miss up to `fill/request`, then `fill/manifest` (read whole, parse, try
//! another endpoint if it is broken or behind) → `fill/disposition` (decide) → `fill/publish`
//! (apply: trackers, purges, prefetches) → `fill/version` (the object to store). From then on
//! `refresher` polls it ahead of viewers; `prefetch` and `dash_prefetch` fetch its new segments.
//! A manifest that may not be stored is read by `manifest_tap` on its way to the viewer.

mod access_control;
mod active;
mod admission;
mod blocking_reload;
mod blocking_work;
mod body;
mod body_bytes;
mod class_counters;
mod clients;
mod cmcd_prefetch;
mod coding;
mod context;
mod cors;
mod dash_prefetch;
mod explain;
mod fill;
mod follow;
mod handover;
mod manifest_tap;
mod messages;
mod pass;
mod pass_through_response;
mod pass_through_stream;
mod pending_viewer;
mod pipeline;
mod prefetch;
mod priority;
mod purge;
mod query_variance;
mod race;
mod rate_limits;
mod read_whole;
mod refresher;
mod rejections;
mod repeat;
mod responses;
mod server_timing;
mod shared_wait;
mod slices;
mod stale_on_error;
mod stated_freshness;
mod status;
mod token_control;
mod token_keys;
mod unkeyed_memos;
mod warm;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub use access_control::{AccessControl, AccessStats};
pub use active::{ActiveSettings, ActiveShield};
pub use body::ResponseBody;
pub use class_counters::{ClassStats, RefusedStatus};
pub use clients::ClientStats;
pub use coding::CodingStats;
pub use context::{X_REQUEST_ID, new_request_id};
pub use explain::{Explanation, StoredObject};
pub use handover::{
    GivenCount, HANDOVER_METRICS, HandoverStats, ObjectGiver, ObjectHandover, ObjectSource,
};
pub use messages::{MemoryAnswer, SharedWait, ViewerRequest, ViewerResponse};
pub use pass_through_stream::PassThroughStream;
pub use purge::{
    PurgeMode, PurgeOrder, PurgeScope, PurgeStats, Purged, TagSelection, UnknownTarget,
};
pub use rate_limits::{
    ByteMeter, LimitScope, RateLimitStats, RateRefusal, RequestLimiter, admit_repeat,
};
pub use repeat::{RepeatPermit, RepeatRules};
pub use slices::SlicedBody;
pub use token_control::TokenStats;
pub use token_keys::read_token_key;
pub use warm::{ListedObjects, WarmBatch, WarmOutcome, WarmTarget, WarmedObject};

use crate::live::LiveStreams;
pub use crate::live::{
    ManifestState, PrefetchSource, PrefetchStats, RejectReason, StreamAudience, StreamDetails,
    StreamFailure, StreamStats, StreamsSnapshot, TrackedManifest,
};
use crate::telemetry::Telemetry;
use seawall_cache::Cache;
pub use seawall_cache::{BodyConsumer, BodyTruncated, SharedBody, SlowReader};
use seawall_policy::{ErrorPages, Route, Rules, TrustedProxies};
use seawall_upstream::Origin;

/// Waits and limits of the proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A viewer waits at most this long for the head of a fill's response; then it gets a stale
    /// object, else 504. Longer where the origin holds a blocking request back for longer. The wait
    /// begins anew when the key has to be fetched again.
    pub wait_max: Duration,
    /// A viewer waits only this long for a fresh response if a stale one may be served
    /// (stale-if-error).
    pub stale_wait_max: Duration,
    /// After a failed fetch, the key is not requested again for this time.
    pub failure_backoff: Duration,
    /// An uncacheable key is remembered for this time: its viewers do not queue behind one another.
    pub uncacheable_ttl: Duration,
    /// Objects larger than this are fetched in slices, if the origin supports ranges.
    pub whole_fetch_max: u64,
    /// Slice size for larger objects.
    pub slice_bytes: u64,
    /// When every viewer of a fill has left: finish the fill (true) or cancel it.
    pub finish_abandoned: bool,
    /// Maximum ranges in one request; a request with more gets the whole object.
    pub ranges_max: usize,
    /// A manifest larger than this counts as a failed fetch.
    pub manifest_bytes_max: u64,
    /// Bodies of the shield's own errors where a request leads to no route.
    pub error_pages: ErrorPages,
}

impl Settings {
    /// Objects larger than the cache takes are fetched in slices, whatever the settings say.
    fn within(self, object_bytes_max: u64) -> Settings {
        Settings {
            whole_fetch_max: self.whole_fetch_max.min(object_bytes_max),
            ..self
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            wait_max: Duration::from_secs(15),
            stale_wait_max: Duration::from_millis(200),
            failure_backoff: Duration::from_secs(1),
            uncacheable_ttl: Duration::from_secs(10),
            whole_fetch_max: 64 << 20,
            slice_bytes: 4 << 20,
            finish_abandoned: true,
            ranges_max: 16,
            manifest_bytes_max: 16 << 20,
            error_pages: ErrorPages::default(),
        }
    }
}

/// One generation of the caching proxy. See [`ActiveShield`].
pub struct Shield {
    generation: u64,
    rules: Rules,
    settings: Settings,
    origins: Vec<Arc<Origin>>,
    repeat_rules: RepeatRules,
    access: AccessControl,
    rate_limits: rate_limits::RateLimiters,
    /// What holds the current generation, for what outlives a request.
    active: Weak<ActiveShield>,
    // All generations share the rest.
    cache: Cache,
    telemetry: Arc<Telemetry>,
    live: Arc<LiveStreams>,
    compressor: Arc<coding::Compressor>,
    clients: Arc<clients::Clients>,
    class_counters: Arc<class_counters::ClassCounters>,
    purges: Arc<purge::PurgeCounters>,
    query_variance: Arc<query_variance::QueryVariance>,
    /// Responses that were stored although their origin declared them one viewer's own.
    private_overridden: Arc<AtomicU64>,
    handover: Arc<ObjectHandover>,
    object_bytes_max: u64,
}

/// Everything a shield is built from.
pub struct ShieldParts {
    /// Routes and their rules.
    pub rules: Rules,
    /// Memory limits.
    pub cache: seawall_cache::Settings,
    /// Waits and limits of the proxy.
    pub settings: Settings,
    /// Origin groups, in the order routes refer to them.
    pub origins: Vec<Arc<Origin>>,
    /// Receives one outcome per request.
    pub telemetry: Arc<Telemetry>,
    /// The secrets of the routes' access rules.
    pub access: AccessControl,
}

impl Shield {
    /// The first generation.
    fn first(parts: ShieldParts, active: Weak<ActiveShield>) -> Shield {
        let object_bytes_max = parts.cache.object_bytes_max;
        let class_counters = class_counters::ClassCounters::default();
        class_counters.set_classes(&parts.rules.client_classes);
        Shield {
            generation: 1,
            repeat_rules: RepeatRules::of(1, &parts.rules),
            rate_limits: rate_limits::RateLimiters::first(&parts.rules),
            access: parts.access,
            rules: parts.rules,
            settings: parts.settings.within(object_bytes_max),
            origins: parts.origins,
            active,
            live: Arc::new(LiveStreams::new(parts.cache.memory_bytes)),
            cache: Cache::new(parts.cache),
            telemetry: parts.telemetry,
            compressor: Arc::default(),
            clients: Arc::default(),
            class_counters: Arc::new(class_counters),
            purges: Arc::default(),
            query_variance: Arc::default(),
            private_overridden: Arc::default(),
            handover: Arc::default(),
            object_bytes_max,
        }
    }

    /// The generation after this one.
    fn succeed(&self, next: ActiveSettings) -> Shield {
        self.class_counters.set_classes(&next.rules.client_classes);
        Shield {
            generation: self.generation + 1,
            repeat_rules: RepeatRules::of(self.generation + 1, &next.rules),
            access: next.access.counting_after(&self.access),
            rate_limits: self.rate_limits.succeed(&next.rules),
            rules: next.rules,
            settings: next.settings.within(self.object_bytes_max),
            origins: next.origins,
            active: self.active.clone(),
            cache: self.cache.clone(),
            telemetry: Arc::clone(&self.telemetry),
            live: Arc::clone(&self.live),
            compressor: Arc::clone(&self.compressor),
            clients: Arc::clone(&self.clients),
            class_counters: Arc::clone(&self.class_counters),
            purges: Arc::clone(&self.purges),
            query_variance: Arc::clone(&self.query_variance),
            private_overridden: Arc::clone(&self.private_overridden),
            handover: Arc::clone(&self.handover),
            object_bytes_max: self.object_bytes_max,
        }
    }

    /// The number of this generation. The first one is 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The routes and their rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The origin group of a route of this generation.
    fn origin_of(&self, route: &Route) -> &Arc<Origin> {
        let origin = &self.origins[route.origin_index];
        debug_assert_eq!(origin.name(), &route.origin, "a route of this generation");
        origin
    }

    /// Receives one outcome per request.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// What makes two requests the same.
    pub fn repeat_rules(&self) -> &RepeatRules {
        &self.repeat_rules
    }

    /// The proxies that say where a request comes from.
    pub fn trusted_proxies(&self) -> &TrustedProxies {
        &self.rules.trusted_proxies
    }

    /// Whether the secrets of access rules come from files.
    pub fn has_secret_files(&self) -> bool {
        self.access.has_files()
    }

    /// Reads the files with the secrets of access rules again. Blocks.
    pub fn reread_secrets(&self) {
        self.access.reread_files();
    }

    /// Counters of refused requests, for metrics.
    pub fn access_stats(&self) -> AccessStats {
        self.access.stats()
    }

    /// Counters of requests over a rate limit, for metrics.
    pub fn rate_limit_stats(&self) -> RateLimitStats {
        self.rate_limits.stats()
    }

    /// The cache, for metrics.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A snapshot of the tracked live streams, for metrics.
    pub fn streams(&self) -> StreamsSnapshot {
        let now = Instant::now();
        self.live.snapshot(now, |stream| {
            let counts = self.telemetry.stream_counters.counts(stream, now);
            StreamAudience {
                requests: counts.requests,
                bytes: counts.bytes,
                viewers: counts.viewers,
            }
        })
    }

    /// The manifests of a stream. `None`: it is not known.
    pub fn stream_details(&self, name: &str) -> Option<StreamDetails> {
        self.live.stream_details(name, Instant::now())
    }

    /// Compression counters, for metrics.
    pub fn codings(&self) -> CodingStats {
        self.compressor.read()
    }

    /// Counters of fetches that clients abandoned, for metrics.
    pub fn clients(&self) -> ClientStats {
        self.clients.read()
    }

    /// Counters of the classes of clients, for metrics.
    pub fn classes(&self) -> Vec<ClassStats> {
        self.class_counters.stats()
    }

    /// The number of query parameters, by route, because of which viewers share no object.
    pub fn varying_query_parameters(&self) -> u64 {
        self.query_variance.varying_count(Instant::now())
    }

    /// The number of responses that were made shareable by `store_private`, for metrics.
    pub fn private_overridden(&self) -> u64 {
        self.private_overridden.load(Ordering::Relaxed)
    }

    /// What goes from one process to the next in an upgrade.
    pub fn handover(&self) -> &Arc<ObjectHandover> {
        &self.handover
    }

    /// The origin groups, for metrics.
    pub fn origins(&self) -> &[Arc<Origin>] {
        &self.origins
    }
}
