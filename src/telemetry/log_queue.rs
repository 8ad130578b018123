//! Writes the lines of the program's own log to a file or pipe, without blocking the threads that
//! log.
//!
//! A thread that logs copies a line into a bounded queue; one thread writes. When the reader of the
//! log is slow or stops, the queue fills, and further lines are dropped and counted. Messages that
//! repeat too often are dropped and counted too: see [`LogRateLimit`]. The queue does not know what
//! a line says.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};

/// Maximum lines and bytes that wait for the writer thread.
const QUEUE_LINES_MAX: usize = 8192;
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// A longer line is truncated: only input from outside can make it long.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Bytes gathered for one write.
const BATCH_BYTES: usize = 64 << 10;

/// Minimum interval between two reports of dropped lines.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Retry interval for a writer that would block (another process made the pipe non-blocking).
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Maximum wait for the last lines when the program stops.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// Counts of dropped lines, by reason.
#[derive(Debug, Default)]
pub struct LogCounts {
    overflowed: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
}

impl LogCounts {
    /// Counts a message that was dropped because it repeats too often.
    pub fn count_repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines that found the queue full, repeated too often, or could not be written.
    pub fn read(&self) -> [(&'static str, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("queue_full", read(&self.overflowed)),
            ("repeated", read(&self.repeated)),
            ("write_failed", read(&self.failed)),
        ]
    }
}

const REASON: MetricLabel = MetricLabel {
    name: "reason",
    values: LabelValues::Fixed(|| {
        LogCounts::default()
            .read()
            .map(|(reason, _)| reason)
            .to_vec()
    }),
};

/// The metrics of the program's own log.
pub static LOG_METRICS: [CollectedMetric<Arc<LogCounts>>; 1] = [Metric {
    name: "seawall_log_lines_dropped_total",
    kind: MetricKind::Counter,
    unit: "lines",
    labels: &[REASON],
    help: "Lines of the program's own log that were dropped. Increments when a line finds the queue \
           full (queue_full), when a message repeats too often (repeated), or when a write to \
           standard error fails (write_failed).",
    remedy: "queue_full: the reader of standard error is too slow. repeated: read the log for the \
             message. write_failed: check the pipe or disk behind standard error.",
}
.collected(|counts, samples| {
    for (reason, lines) in counts.read() {
        samples.add(&[reason], lines);
    }
})];

/// The queue to the writer thread. All clones lead to the same thread.
#[derive(Clone)]
pub struct LogQueue {
    lines: SyncSender<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    counts: Arc<LogCounts>,
}

/// Waits for the last lines for a limited time when it is dropped.
pub struct LogGuard {
    closing: SyncSender<Vec<u8>>,
    finished: Receiver<()>,
}

impl LogQueue {
    /// Starts the writer thread. It calls `report` at intervals when lines were dropped; `report`
    /// may log.
    pub fn start(
        sink: impl Write + Send + 'static,
        counts: Arc<LogCounts>,
        report: fn(&LogCounts),
    ) -> io::Result<(LogQueue, LogGuard)> {
        let (lines, incoming) = sync_channel(QUEUE_LINES_MAX);
        let (finishing, finished) = sync_channel(1);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let writer = LogWriter {
            sink,
            queued_bytes: Arc::clone(&queued_bytes),
            counts: Arc::clone(&counts),
            reported: counts.read(),
            report,
        };
        thread::Builder::new()
            .name("seawall log".into())
            .spawn(move || {
                writer.run(&incoming);
                // The receiver is gone if the program continues without its log.
                let _ = finishing.try_send(());
            })?;
        let guard = LogGuard {
            closing: lines.clone(),
            finished,
        };
        let queue = LogQueue {
            lines,
            queued_bytes,
            counts,
        };
        Ok((queue, guard))
    }

    /// Queues one line with its newline, or drops and counts it. Never blocks.
    pub fn push(&self, mut line: Vec<u8>) {
        if line.is_empty() {
            // An empty line is the signal to finish, see [`LogGuard`].
            return;
        }
        if line.len() > LINE_BYTES_MAX {
            line.truncate(LINE_BYTES_MAX - 1);
            line.push(b'\n');
        }
        let bytes = line.len();
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent = if queued + bytes > QUEUE_BYTES_MAX {
            Err(TrySendError::Full(line))
        } else {
            self.lines.try_send(line)
        };
        if sent.is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A writer for one line.
    pub fn line_writer(&self) -> LogLineWriter {
        LogLineWriter {
            queue: self.clone(),
            line: Vec::new(),
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // An empty line tells the writer to finish. If the queue is full, the writer is blocked
        // anyway.
        if self.closing.try_send(Vec::new()).is_ok() {
            let _ = self.finished.recv_timeout(FINISH_MAX);
        }
    }
}

/// Collects one line and queues it when dropped.
pub struct LogLineWriter {
    queue: LogQueue,
    line: Vec<u8>,
}

impl Write for LogLineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLineWriter {
    fn drop(&mut self) {
        self.queue.push(std::mem::take(&mut self.line));
    }
}

/// The writer thread's state.
struct LogWriter<W> {
    sink: W,
    queued_bytes: Arc<AtomicUsize>,
    counts: Arc<LogCounts>,
    reported: [(&'static str, u64); 3],
    report: fn(&LogCounts),
}

impl<W: Write> LogWriter<W> {
    fn run(mut self, incoming: &Receiver<Vec<u8>>) {
        let mut batch = Vec::new();
        let mut report_due = Instant::now() + REPORT_EVERY;
        loop {
            let mut finish = false;
            match incoming.recv_timeout(REPORT_EVERY) {
                Ok(line) => finish = self.gather(&line, &mut batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while !finish && batch.len() < BATCH_BYTES {
                let Ok(line) = incoming.try_recv() else { break };
                finish = self.gather(&line, &mut batch);
            }
            self.write(&batch);
            batch.clear();
            if finish {
                return;
            }
            let now = Instant::now();
            if now >= report_due && self.reported != self.counts.read() {
                report_due = now + REPORT_EVERY;
                self.reported = self.counts.read();
                (self.report)(&self.counts);
            }
        }
    }

    /// True if the line is the signal to finish.
    fn gather(&mut self, line: &[u8], batch: &mut Vec<u8>) -> bool {
        self.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        batch.extend_from_slice(line);
        line.is_empty()
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Ok(count @ 1..) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::park_timeout(RETRY_AFTER);
                }
                Ok(0) | Err(_) => {
                    let dropped_lines = bytes.split(|byte| *byte == b'\n').count() - 1;
                    self.counts
                        .failed
                        .fetch_add(dropped_lines as u64, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

/// Limits how often one message is logged: a burst, then a low rate. A message is identified by the
/// place in the code that logs it, so the size of the table is limited by the size of the program.
pub struct LogRateLimit<P> {
    budgets: HashMap<P, MessageBudget>,
}

struct MessageBudget {
    tokens: f64,
    filled: Instant,
}

/// Lines per place in a burst, and lines per second after it.
const BURST: f64 = 50.0;
const LINES_PER_SECOND: f64 = 2.0;

impl<P: Eq + Hash> LogRateLimit<P> {
    /// A limit with full budgets.
    pub fn new() -> LogRateLimit<P> {
        LogRateLimit {
            budgets: HashMap::new(),
        }
    }

    /// Whether this place in the code may log a line now.
    pub fn admit(&mut self, call_site: P, now: Instant) -> bool {
        let budget = self.budgets.entry(call_site).or_insert(MessageBudget {
            tokens: BURST,
            filled: now,
        });
        let waited = now.saturating_duration_since(budget.filled).as_secs_f64();
        budget.tokens = (budget.tokens + waited * LINES_PER_SECOND).min(BURST);
        budget.filled = now;
        let admitted = budget.tokens >= 1.0;
        if admitted {
            budget.tokens -= 1.0;
        }
        admitted
    }
}

impl<P: Eq + Hash> Default for LogRateLimit<P> {
    fn default() -> LogRateLimit<P> {
        LogRateLimit::new()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Blocks until the other end is dropped.
    struct StuckWriter(Receiver<()>);

    impl Write for StuckWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn dropped(counts: &LogCounts) -> u64 {
        counts.read().iter().map(|(_, lines)| lines).sum()
    }

    #[test]
    fn dropping_the_guard_writes_every_line() {
        let (output, counts) = (SharedBuffer::default(), Arc::new(LogCounts::default()));
        let (queue, guard) = LogQueue::start(output.clone(), counts.clone(), |_| {}).unwrap();
        for number in 0..1000 {
            writeln!(queue.line_writer(), "line {number}").unwrap();
        }
        drop(guard);
        let text = String::from_utf8(output.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert_eq!(text.lines().last(), Some("line 999"));
        assert_eq!(dropped(&counts), 0);
    }

    #[test]
    fn drops_and_counts_lines_while_the_reader_is_stuck() {
        let (release, stuck) = sync_channel(0);
        let counts = Arc::new(LogCounts::default());
        let (queue, guard) = LogQueue::start(StuckWriter(stuck), counts.clone(), |_| {}).unwrap();
        // The writer takes a batch before it is stuck, of two bytes a line.
        for _ in 0..=BATCH_BYTES / 2 + QUEUE_LINES_MAX {
            queue.push(b"x\n".to_vec());
        }
        assert!(dropped(&counts) > 0);
        for _ in 0..QUEUE_BYTES_MAX / LINE_BYTES_MAX {
            queue.push(vec![b'x'; 2 * LINE_BYTES_MAX]);
        }
        assert!(queue.queued_bytes.load(Ordering::Relaxed) <= QUEUE_BYTES_MAX);
        drop(release);
        drop(guard);
    }

    #[test]
    fn limits_each_call_site_separately_and_recovers() {
        let (mut limit, now) = (LogRateLimit::new(), Instant::now());
        let admitted = (0..1000).filter(|_| limit.admit("a", now)).count();
        assert_eq!(admitted, 50);
        assert!(limit.admit("b", now));
        assert!(limit.admit("a", now + Duration::from_secs(1)));
        let later = now + Duration::from_mins(10);
        let admitted = (0..1000).filter(|_| limit.admit("a", later)).count();
        assert_eq!(admitted, 50);
    }
}
