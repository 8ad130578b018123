//! Records one outcome per request, in the metrics and in the access log.
//!
//! The module knows labels and numbers, not sockets, stores or origins. All metrics are in one
//! [`MetricRegistry`]. Other modules keep their own counts; the registry reads these at scrape
//! time.

mod access_log;
mod class_metrics;
mod log_levels;
mod log_path;
mod log_queue;
mod metric;
mod outcome;
mod recent_events;
mod registry;
mod request_metrics;
mod stream_counters;
mod thread_counters;
mod viewer_sketch;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use access_log::Timestamp;
pub use access_log::{AccessLog, AccessLogSettings, PreparedAccessLog, ReplacedQueue};
pub use class_metrics::{CLIENT_CLASSES_MAX, ClassMetrics, ClassRequestCounts};
pub use log_levels::{LogLevels, ProgramLog};
pub(crate) use log_path::{check_log_path, explain_log_error};
pub use log_queue::{LOG_METRICS, LogCounts, LogGuard, LogLineWriter, LogQueue, LogRateLimit};
pub use metric::{
    CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel, SampleValue, Samples, YES_OR_NO,
};
pub use outcome::{
    AbortCause, AccessLogFields, Outcome, RefusalReason, RequestRecord, ResponseSource,
};
pub use recent_events::{RecentEvent, RecentEvents, RecentEventsLayer};
pub use registry::{MetricGroup, MetricRegistry};
pub use request_metrics::{RequestMetrics, RequestTotals};
pub use stream_counters::{StreamCounters, StreamCounts};
pub use viewer_sketch::viewer_hash;

/// The content type of the text that [`MetricRegistry::render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// "1 object", "2 objects": for texts to operators.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Settings of telemetry.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The access log: one JSON line per request.
    pub access_log: AccessLogSettings,
    /// The levels of the program's own log, unless the environment sets them.
    pub log_levels: LogLevels,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A metric was rejected: its name or labels are invalid.
    #[error("metric rejected")]
    Metric(#[from] prometheus::Error),
    /// The access log's file cannot be opened for appending.
    #[error("cannot open the access log {path}")]
    LogFile {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The access log's thread could not be started.
    #[error("cannot start the access log's thread: {0}")]
    LogThread(std::io::Error),
}

const VERSION: MetricLabel = MetricLabel {
    name: "version",
    values: LabelValues::Dynamic("the version of Seawall"),
};

static BUILD_METRICS: [CollectedMetric<()>; 1] = [Metric {
    name: "seawall_build_info",
    kind: MetricKind::Gauge,
    unit: "always 1",
    labels: &[VERSION],
    help: "The running version. The value is always 1.",
    remedy: "If servers differ, a rollout is incomplete.",
}
.collected(|(), samples| samples.add(&[env!("CARGO_PKG_VERSION")], true))];

/// The metrics and the access log.
pub struct Telemetry {
    /// The metrics of requests.
    pub request_metrics: RequestMetrics,
    /// The same by the class of the client.
    pub class_metrics: Arc<ClassMetrics>,
    /// Requests and viewers of live streams.
    pub stream_counters: StreamCounters,
    /// The access log.
    pub access_log: AccessLog,
}

impl Telemetry {
    /// Registers the counters for these routes, in the order of their indexes, and opens the log.
    pub fn new(
        settings: &Settings,
        route_names: &[Arc<str>],
        registry: &mut MetricRegistry,
    ) -> Result<Telemetry, TelemetryError> {
        registry.collect("Server", &BUILD_METRICS, || ())?;
        let request_metrics = RequestMetrics::new(route_names, registry)?;
        let class_metrics = ClassMetrics::register(registry)?;
        let access_log = AccessLog::open(&settings.access_log)?;
        access_log.register(registry)?;
        Ok(Telemetry {
            request_metrics,
            class_metrics,
            stream_counters: StreamCounters::default(),
            access_log,
        })
    }

    /// Records one finished request.
    pub fn record(&self, record: &RequestRecord) {
        self.request_metrics.count(record);
        if let Some(class) = record.class {
            self.class_metrics.count(class, record);
        }
        if let Some(stream) = record.stream {
            self.stream_counters.count(stream, record);
        }
        self.access_log.write(record);
    }

    /// Writes the queued lines of the access log. Call it before a program ends without running
    /// destructors; dropping does the same.
    pub fn close(&self) {
        self.access_log.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::StatusCode;

    use super::*;
    use seawall_manifest::Kind;

    pub(super) fn record_of(outcome: Outcome, kind: Kind, status: u16) -> RequestRecord {
        RequestRecord {
            outcome,
            kind,
            status: StatusCode::from_u16(status).unwrap(),
            head_time: Duration::from_micros(80),
            total_time: Duration::from_millis(3),
            ..RequestRecord::begin(Instant::now())
        }
    }

    #[test]
    fn maps_outcomes_and_kinds_to_their_own_index() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), index, "{outcome:?}");
        }
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index, "{kind:?}");
        }
    }

    #[test]
    fn telemetry_is_send_and_sync() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Telemetry>();
    }
}
