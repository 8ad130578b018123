//! A request's journey, one short function per step: admit, look up, answer, or join the one fill.

mod blocking_reload;
mod blocking_work;
mod body;
mod clients;
mod cmcd_prefetch;
mod coding;
mod context;
mod cors;
mod explain;
mod fill;
mod live;
mod messages;
mod overheard;
mod pass;
mod pipeline;
mod provoked;
mod purge;
mod race;
mod rank;
mod read_whole;
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
pub use explain::{Explanation, StoredObject, TrackedManifest};
pub use live::{PrefetchSource, RejectReason, StreamStats, StreamsSnapshot};
pub use messages::{ViewerRequest, ViewerResponse};
pub use pass::PassThroughStream;
pub use purge::{PurgeScope, Purged};
pub use slices::SlicedBody;

use crate::cache::{self, Cache};
pub use crate::cache::{BodyConsumer, BodyTruncated, SharedBody, SlowReader};
use crate::policy::Rules;
use crate::telemetry::Telemetry;
use crate::upstream::Origin;

/// How long viewers wait, and for what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A viewer waits so long for the head of an answer; then stale, else 504.
    pub wait_max: Duration,
    /// With a stale copy at hand (stale-if-error), a viewer waits only so long for a fresh one.
    pub stale_wait_max: Duration,
    /// After a failed fetch, the same key is not asked for again for so long.
    pub failure_backoff: Duration,
    /// An uncacheable key is remembered so long: its viewers do not queue behind one another.
    pub pass_memory: Duration,
    /// Objects larger than this are fetched in slices, where the origin can send parts of them.
    pub whole_fetch_max: u64,
    /// Slice size for larger objects.
    pub slice_bytes: u64,
    /// When every viewer of a fill has left: finish it (true) or cancel it.
    pub finish_abandoned: bool,
    /// Ranges in one request at most; more are answered with the whole object.
    pub ranges_max: usize,
    /// A manifest larger than this is a failed fetch.
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

/// The shield: one per process (and per test).
pub struct Shield {
    rules: Rules,
    cache: Cache,
    settings: Settings,
    origins: Vec<Arc<Origin>>,
    telemetry: Arc<Telemetry>,
    streams: live::LiveStreams,
    press: coding::Compressor,
    clients: Arc<clients::Clients>,
}

/// What a shield is made of.
pub struct ShieldParts {
    /// Routes.
    pub rules: Rules,
    /// Bounds of memory.
    pub cache: cache::Settings,
    /// Waits.
    pub settings: Settings,
    /// Origin groups, in the order routes refer to them.
    pub origins: Vec<Arc<Origin>>,
    /// Where outcomes go.
    pub telemetry: Arc<Telemetry>,
}

impl Shield {
    /// Puts a shield together.
    pub fn new(parts: ShieldParts) -> Arc<Shield> {
        let mut settings = parts.settings;
        settings.whole_fetch_max = settings.whole_fetch_max.min(parts.cache.object_bytes_max);
        Arc::new(Shield {
            rules: parts.rules,
            streams: live::LiveStreams::new(parts.cache.memory_bytes),
            cache: Cache::new(parts.cache),
            settings,
            origins: parts.origins,
            telemetry: parts.telemetry,
            press: coding::Compressor::default(),
            clients: Arc::default(),
        })
    }

    /// Where outcomes go.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// What is remembered, for metrics.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The live streams that are watched, for metrics.
    pub fn streams(&self) -> live::StreamsSnapshot {
        self.streams.read(Instant::now())
    }

    /// What is compressed here, for metrics.
    pub fn codings(&self) -> CodingStats {
        self.press.read()
    }

    /// What clients left that they had asked for, for metrics.
    pub fn clients(&self) -> ClientStats {
        self.clients.read()
    }

    /// The origin groups, for metrics.
    pub fn origins(&self) -> &[Arc<Origin>] {
        &self.origins
    }
}
