//! Handles viewer requests: admits a request, looks its key up, and answers from memory or from the
//! key's one fill.

mod blocking_reload;
mod blocking_work;
mod body;
mod clients;
mod cmcd_prefetch;
mod coding;
mod context;
mod cors;
mod dash_prefetch;
mod explain;
mod fill;
mod messages;
mod overheard;
mod pass;
mod pipeline;
mod prefetch;
mod provoked;
mod purge;
mod race;
mod rank;
mod read_whole;
mod refresher;
mod rejections;
mod respond;
mod slices;
mod stale_on_error;
mod status;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use body::ResponseBody;
pub use clients::ClientStats;
pub use coding::CodingStats;
pub use explain::{Explanation, StoredObject};
pub use messages::{ViewerRequest, ViewerResponse};
pub use pass::PassThroughStream;
pub use purge::{PurgeScope, Purged};
pub use slices::SlicedBody;

use crate::live::LiveStreams;
pub use crate::live::{
    PrefetchSource, PrefetchStats, RejectReason, StreamStats, StreamsSnapshot, TrackedManifest,
};
use crate::telemetry::Telemetry;
use seawall_cache::Cache;
pub use seawall_cache::{BodyConsumer, BodyTruncated, SharedBody, SlowReader};
use seawall_policy::Rules;
use seawall_upstream::Origin;

/// Waits and limits of the proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A viewer waits at most this long for a response head; then it gets a stale object, else 504.
    pub wait_max: Duration,
    /// A viewer waits only this long for a fresh response if a stale one may be served
    /// (stale-if-error).
    pub stale_wait_max: Duration,
    /// After a failed fetch, the key is not requested again for this time.
    pub failure_backoff: Duration,
    /// An uncacheable key is remembered for this time: its viewers do not queue behind one another.
    pub pass_memory: Duration,
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
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            wait_max: Duration::from_secs(15),
            stale_wait_max: Duration::from_millis(200),
            failure_backoff: Duration::from_secs(1),
            pass_memory: Duration::from_secs(10),
            whole_fetch_max: 64 << 20,
            slice_bytes: 4 << 20,
            finish_abandoned: true,
            ranges_max: 16,
            manifest_bytes_max: 16 << 20,
        }
    }
}

/// The caching proxy. One per process, and one per test.
pub struct Shield {
    rules: Rules,
    cache: Cache,
    settings: Settings,
    origins: Vec<Arc<Origin>>,
    telemetry: Arc<Telemetry>,
    live: LiveStreams,
    press: coding::Compressor,
    clients: Arc<clients::Clients>,
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
}

impl Shield {
    /// Builds the shield.
    pub fn new(parts: ShieldParts) -> Arc<Shield> {
        let mut settings = parts.settings;
        settings.whole_fetch_max = settings.whole_fetch_max.min(parts.cache.object_bytes_max);
        Arc::new(Shield {
            live: LiveStreams::new(parts.rules.clone(), parts.cache.memory_bytes),
            rules: parts.rules,
            cache: Cache::new(parts.cache),
            settings,
            origins: parts.origins,
            telemetry: parts.telemetry,
            press: coding::Compressor::default(),
            clients: Arc::default(),
        })
    }

    /// Receives one outcome per request.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// The cache, for metrics.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A snapshot of the tracked live streams, for metrics.
    pub fn streams(&self) -> StreamsSnapshot {
        self.live.read(Instant::now())
    }

    /// Compression counters, for metrics.
    pub fn codings(&self) -> CodingStats {
        self.press.read()
    }

    /// Counters of fetches that clients abandoned, for metrics.
    pub fn clients(&self) -> ClientStats {
        self.clients.read()
    }

    /// The origin groups, for metrics.
    pub fn origins(&self) -> &[Arc<Origin>] {
        &self.origins
    }
}
