//! Records one outcome per request, in the metrics and in the access log.
//!
//! The module knows labels and numbers, not sockets, stores or origins. Other modules keep their
//! own counts; the admin interface writes these to `/metrics` with an [`Exposition`].

mod access_log;
mod exposition;
mod log_queue;
mod metrics;
mod outcome;

use std::path::PathBuf;
use std::sync::Arc;

pub use access_log::{AccessLog, AccessLogSettings};
pub use exposition::{Exposition, SampleValue};
pub use log_queue::{LogCounts, LogGuard, LogLineWriter, LogQueue, RateLimit};
pub use metrics::Metrics;
pub use outcome::{AccessLogFields, CutBy, Outcome, RequestRecord, ResponseSource};

/// The content type of the text that [`Telemetry::render`] and [`Exposition`] write.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Settings of telemetry.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The access log: one JSON line per request.
    pub access_log: AccessLogSettings,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A metric was rejected: its name or labels are invalid.
    #[error("metric rejected")]
    Metric(#[from] prometheus::Error),
    /// The access log's file cannot be opened for appending.
    #[error("cannot open access log {path}: {source}")]
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

/// The metrics and the access log.
pub struct Telemetry {
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// The access log.
    pub access_log: AccessLog,
}

impl Telemetry {
    /// Creates the counters for these routes, in the order of their indexes, and opens the log.
    pub fn new(settings: &Settings, route_names: &[Arc<str>]) -> Result<Telemetry, TelemetryError> {
        Ok(Telemetry {
            metrics: Metrics::new(route_names)?,
            access_log: AccessLog::open(&settings.access_log)?,
        })
    }

    /// Records one finished request.
    pub fn record(&self, tale: &RequestRecord) {
        self.metrics.count(tale);
        self.access_log.write(tale);
    }

    /// Writes the queued lines of the access log. Call it before a program ends without running
    /// destructors; dropping does the same.
    pub fn close(&self) {
        self.access_log.close();
    }

    /// All counts as Prometheus text (format 0.0.4). Counts of other modules may be appended with
    /// their own [`Exposition`]; a name must not occur in both.
    pub fn render(&self) -> String {
        let mut page = Exposition::default();
        page.gauge(
            "seawall_build_info",
            "The running version. The value is always 1.",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1_u64,
        );
        self.access_log.describe(&mut page);
        let mut text = self.metrics.render();
        text.push_str(&page.to_string());
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::StatusCode;

    use super::*;
    use seawall_manifest::Kind;

    pub(super) fn tale(outcome: Outcome, kind: Kind, status: u16) -> RequestRecord {
        RequestRecord {
            outcome,
            kind,
            status: StatusCode::from_u16(status).unwrap(),
            head_time: Duration::from_micros(80),
            total_time: Duration::from_millis(3),
            ..RequestRecord::begun(Instant::now())
        }
    }

    #[test]
    fn outcomes_and_kinds_index_their_own_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), place, "{outcome:?}");
        }
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), place, "{kind:?}");
        }
    }

    #[test]
    fn every_thread_may_tell() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Telemetry>();
    }

    #[test]
    fn a_page_names_each_metric_once() {
        let telemetry = Telemetry::new(&Settings::default(), &["live".into()]).unwrap();
        telemetry.record(&tale(Outcome::Hit, Kind::Hls, 200));
        let page = telemetry.render();
        let mut names: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let told = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), told);
        assert!(
            names.iter().all(|name| name.starts_with("seawall_")),
            "{names:?}"
        );
        assert!(page.ends_with('\n'));
    }
}
