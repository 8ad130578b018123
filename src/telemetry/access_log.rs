//! The access log: one JSON line per request, without any wait for its reader.
//!
//! A request record is copied into a bounded queue; one thread converts it to text. When the reader
//! of the log is slow, the queue fills, and further lines are dropped and counted. The log knows
//! only what the record contains.

mod file;
mod line;
mod writer;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use self::file::LogFile;
use self::line::AccessLogEntry;
pub(crate) use self::line::Timestamp;
use self::writer::{AccessLogWriter, WriterCounts};
use super::{
    CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel, MetricRegistry, RequestRecord,
    TelemetryError, explain_log_error,
};

/// Lines that may wait for the writer. With the limits on an entry's texts this is 32 MiB in the
/// worst case, and about 2 MiB with typical paths.
const QUEUE_LINES_MAX: usize = 8192;

/// Maximum wait for the last lines when the program stops.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Whether, how much and where to log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// Enables the log.
    pub enabled: bool,
    /// Log one request in this many (0 and 1: all). Errors (5xx, aborted) are always logged.
    pub sample: u32,
    /// Append to this file. It is reopened within a second after it was moved. `None`: stdout.
    pub path: Option<PathBuf>,
}

/// The access log.
pub struct AccessLog {
    /// Log one request in this many; 0: the log is disabled.
    sample: AtomicU32,
    /// `None`: disabled.
    queue: ArcSwapOption<AccessLogQueue>,
    /// Of all queues since the start.
    counts: Arc<WriterCounts>,
    settings: Mutex<AccessLogSettings>,
}

/// Other settings of the log, ready to be used: nothing can fail any more.
pub struct PreparedAccessLog {
    settings: AccessLogSettings,
    queue: Option<Arc<AccessLogQueue>>,
}

impl AccessLog {
    /// Opens the log according to the settings.
    pub fn open(settings: &AccessLogSettings) -> Result<AccessLog, TelemetryError> {
        let log = AccessLog {
            sample: AtomicU32::new(0),
            queue: ArcSwapOption::empty(),
            counts: Arc::default(),
            settings: Mutex::default(),
        };
        log.apply(log.prepare(settings)?);
        Ok(log)
    }

    /// Prepares other settings: opens the file, if it is another one. Blocks. If that fails,
    /// nothing has changed.
    pub fn prepare(
        &self,
        settings: &AccessLogSettings,
    ) -> Result<PreparedAccessLog, TelemetryError> {
        let is_same_file = self.settings.lock().path == settings.path;
        let running = self.queue.load_full().filter(|_| is_same_file);
        let queue = match (&settings.path, running) {
            _ if !settings.enabled => None,
            (_, Some(running)) => Some(running),
            (None, None) => Some(self.start_queue(io::stdout())?),
            (Some(path), None) => {
                let file = LogFile::open(path).map_err(|error| TelemetryError::LogFile {
                    path: path.clone(),
                    source: explain_log_error(path, error),
                })?;
                Some(self.start_queue(file)?)
            }
        };
        Ok(PreparedAccessLog {
            settings: settings.clone(),
            queue,
        })
    }

    fn start_queue(
        &self,
        sink: impl Write + Send + 'static,
    ) -> Result<Arc<AccessLogQueue>, TelemetryError> {
        AccessLogQueue::start(sink, QUEUE_LINES_MAX, &self.counts).map(Arc::new)
    }

    /// Uses other settings for requests that end from now on. Returns the queue that is not used
    /// any more, if there is one: its last lines are written when it is closed or dropped, which
    /// waits for them. Cannot fail.
    pub fn apply(&self, prepared: PreparedAccessLog) -> Option<ReplacedQueue> {
        let PreparedAccessLog { settings, queue } = prepared;
        let sample = if queue.is_some() {
            settings.sample.max(1)
        } else {
            0
        };
        *self.settings.lock() = settings;
        let now = queue.as_ref().map(Arc::as_ptr);
        let before = self.queue.swap(queue.clone());
        self.sample.store(sample, Ordering::Relaxed);
        let before = before.filter(|before| Some(Arc::as_ptr(before)) != now);
        before.map(ReplacedQueue)
    }

    /// Whether a request needs [`super::AccessLogFields`]. True whenever the log is enabled, even
    /// with sampling: errors are always logged, and only the end of a request shows whether it is
    /// one.
    pub fn is_enabled(&self) -> bool {
        self.sample.load(Ordering::Relaxed) > 0
    }

    /// Writes one line if this record is to be logged. Never blocks.
    pub fn write(&self, record: &RequestRecord) {
        let sample = self.sample.load(Ordering::Relaxed);
        if sample == 0 {
            return;
        }
        let weight = if record.aborted_by.is_some() || record.status.is_server_error() {
            1
        } else {
            sample
        };
        if weight > 1 && fastrand::u32(..weight) != 0 {
            return;
        }
        let mut entry = Box::new(AccessLogEntry::of(record, weight, SystemTime::now()));
        // The second time, if the queue was replaced meanwhile.
        for _ in 0..2 {
            let queue = self.queue.load();
            let Some(queue) = &*queue else { return };
            match queue.push(entry) {
                Ok(()) => return,
                Err(TrySendError::Disconnected(refused)) => entry = refused,
                Err(TrySendError::Full(_)) => break,
            }
        }
        self.counts.count_dropped();
    }

    /// Writes the queued lines and accepts no more. Waits for that for a limited time. Dropping the
    /// log does the same; this is for programs that end without running destructors.
    pub fn close(&self) {
        if let Some(queue) = &*self.queue.load() {
            queue.close();
        }
    }

    /// Registers the log's own metrics.
    pub(super) fn register(&self, registry: &mut MetricRegistry) -> Result<(), prometheus::Error> {
        let counts = Arc::clone(&self.counts);
        registry.collect("Logs", &ACCESS_LOG_METRICS, move || {
            let (written, dropped, write_errors) = counts.read();
            AccessLogStats {
                lines: LINE_RESULTS.into_iter().zip([written, dropped]).collect(),
                write_errors,
            }
        })
    }
}

/// What happens to a line.
const LINE_RESULTS: [&str; 2] = ["written", "dropped"];

/// The counts of the log.
struct AccessLogStats {
    lines: Vec<(&'static str, u64)>,
    write_errors: u64,
}

const LINE_RESULT: MetricLabel = MetricLabel {
    name: "result",
    values: LabelValues::Fixed(|| LINE_RESULTS.to_vec()),
};

static ACCESS_LOG_METRICS: [CollectedMetric<AccessLogStats>; 2] = [
    Metric {
        name: "seawall_access_log_lines_total",
        kind: MetricKind::Counter,
        unit: "lines",
        labels: &[LINE_RESULT],
        help: "Access log lines, written or dropped. Increments when a line is written, or finds \
               the queue full or the log closed.",
        remedy: "If dropped rises, the reader of the log is too slow or absent, or the disk is full.",
    }
    .collected(|stats, samples| {
        for (fate, lines) in &stats.lines {
            samples.add(&[fate], *lines);
        }
    }),
    Metric {
        name: "seawall_access_log_write_errors_total",
        kind: MetricKind::Counter,
        unit: "errors",
        labels: &[],
        help: "Failed writes to the access log's file or pipe. Increments with each failure.",
        remedy: "If it rises, check the disk, the permissions and the pipe's reader.",
    }
    .collected(|stats, samples| samples.add(&[], stats.write_errors)),
];

/// A queue that is not used any more.
pub struct ReplacedQueue(Arc<AccessLogQueue>);

impl ReplacedQueue {
    /// Writes its last lines. Waits for that for a limited time.
    pub fn close(self) {
        self.0.close();
    }
}

/// The queue to the writer thread.
struct AccessLogQueue {
    /// Empty once the log is closed, which also tells the writer to finish.
    entries: ArcSwapOption<SyncSender<Box<AccessLogEntry>>>,
    writer: Thread,
    /// Disconnected by the writer when it has finished. Nothing is ever sent.
    finished: Mutex<Receiver<()>>,
}

impl AccessLogQueue {
    fn start(
        sink: impl Write + Send + 'static,
        lines_max: usize,
        counts: &Arc<WriterCounts>,
    ) -> Result<AccessLogQueue, TelemetryError> {
        let (entries, incoming) = sync_channel(lines_max);
        let (finishing, finished) = sync_channel(0);
        let writer = AccessLogWriter::new(sink, Arc::clone(counts));
        let run = move || {
            writer.run(&incoming);
            drop(finishing);
        };
        let thread = thread::Builder::new().name("access-log".into()).spawn(run);
        Ok(AccessLogQueue {
            entries: ArcSwapOption::from_pointee(entries),
            writer: thread.map_err(TelemetryError::LogThread)?.thread().clone(),
            finished: Mutex::new(finished),
        })
    }

    /// An error returns the entry.
    fn push(&self, entry: Box<AccessLogEntry>) -> Result<(), TrySendError<Box<AccessLogEntry>>> {
        match &*self.entries.load() {
            Some(queue) => queue.try_send(entry),
            None => Err(TrySendError::Disconnected(entry)),
        }
    }

    fn close(&self) {
        if self.entries.swap(None).is_none() {
            return;
        }
        self.writer.unpark();
        // A log reader that never reads must not keep the program from stopping.
        let _ = self.finished.lock().recv_timeout(FINISH_MAX);
    }
}

impl Drop for AccessLogQueue {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AbortCause, Outcome, tests::record_of};
    use super::*;
    use seawall_manifest::Kind;

    #[derive(Clone, Default)]
    struct LogLines(Arc<Mutex<Vec<u8>>>);

    impl LogLines {
        fn lines(&self) -> Vec<serde_json::Value> {
            let text = String::from_utf8(self.0.lock().clone()).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    impl Write for LogLines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Blocks until the other end is dropped.
    struct BlockedWriter(Receiver<()>);

    impl Write for BlockedWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(sink: impl Write + Send + 'static, sample: u32, lines_max: usize) -> AccessLog {
        let counts = Arc::default();
        let queue = AccessLogQueue::start(sink, lines_max, &counts).unwrap();
        AccessLog {
            sample: AtomicU32::new(sample),
            queue: ArcSwapOption::from_pointee(queue),
            counts,
            settings: Mutex::default(),
        }
    }

    #[test]
    fn writes_every_line_before_drop_returns() {
        let output = LogLines::default();
        let log = log(output.clone(), 1, 1000);
        for _ in 0..1000 {
            log.write(&record_of(Outcome::Hit, Kind::Segment, 200));
        }
        drop(log);
        assert_eq!(output.lines().len(), 1000);
    }

    #[test]
    fn writes_everything_before_close_and_nothing_after() {
        let output = LogLines::default();
        let log = log(output.clone(), 1, 100);
        log.write(&record_of(Outcome::Hit, Kind::Segment, 200));
        log.close();
        assert_eq!(output.lines().len(), 1);
        log.write(&record_of(Outcome::Hit, Kind::Segment, 200));
        log.close();
        assert_eq!(log.counts.read(), (1, 1, 0));
    }

    #[test]
    fn logs_errors_outside_the_sample() {
        let output = LogLines::default();
        let log = log(output.clone(), u32::MAX, 100);
        log.write(&record_of(Outcome::Failed, Kind::Hls, 502));
        log.write(&RequestRecord {
            aborted_by: Some(AbortCause::Viewer),
            ..record_of(Outcome::Hit, Kind::Hls, 200)
        });
        log.write(&record_of(Outcome::Hit, Kind::Hls, 200));
        drop(log);
        let statuses: Vec<_> = output
            .lines()
            .iter()
            .map(|line| line["status"].clone())
            .collect();
        assert_eq!(statuses, [502, 200]);
    }

    #[test]
    fn sampled_lines_have_the_sample_rate_as_weight() {
        let output = LogLines::default();
        let log = log(output.clone(), 4, 10_000);
        for _ in 0..10_000 {
            log.write(&record_of(Outcome::Hit, Kind::Hls, 200));
        }
        drop(log);
        let lines = output.lines();
        // 2,500 expected, with nine standard deviations on either side.
        assert!((2100..2900).contains(&lines.len()), "{}", lines.len());
        assert!(lines.iter().all(|line| line["weight"] == 4));
    }

    #[test]
    fn drops_lines_without_blocking_when_the_reader_is_stuck() {
        let (release, stuck) = sync_channel(0);
        let log = log(BlockedWriter(stuck), 1, 4);
        // Enough lines to fill the writer's buffer and block the writer.
        for _ in 0..1000 {
            log.write(&record_of(Outcome::Hit, Kind::Segment, 200));
        }
        let counts = Arc::clone(&log.counts);
        drop(release);
        drop(log);
        let (written, dropped, errors) = counts.read();
        assert!(dropped > 0, "{written}");
        assert_eq!((written + dropped, errors), (1000, 0));
    }

    #[test]
    fn writes_nothing_when_disabled() {
        let log = AccessLog::open(&AccessLogSettings::default()).unwrap();
        assert!(!log.is_enabled());
        log.write(&record_of(Outcome::Failed, Kind::Hls, 502));
    }

    #[test]
    fn appends_to_a_file_and_names_one_that_cannot_be_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let settings = AccessLogSettings {
            enabled: true,
            sample: 0,
            path: Some(path.clone()),
        };
        let log = AccessLog::open(&settings).unwrap();
        assert!(log.is_enabled());
        log.write(&record_of(Outcome::Hit, Kind::Hls, 200));
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("before\n{") && text.ends_with("}\n"),
            "{text}"
        );

        let missing = directory.path().join("no/such/access.log");
        let settings = AccessLogSettings {
            path: Some(missing),
            ..settings
        };
        let error = AccessLog::open(&settings).err().unwrap().to_string();
        assert!(error.contains("no/such/access.log"), "{error}");
    }
}
