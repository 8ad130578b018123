//! Writes queued entries to the file or pipe: one thread, in batches, with a buffer that is flushed
//! when the queue is empty. It does not know where the bytes go.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use super::line::AccessLogEntry;

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 64 << 10;

/// Maximum entries between two flushes, also under constant load.
const BATCH_LINES_MAX: usize = 8192;

/// Pause after a batch, so that a busy server wakes the writer 100 times per second and not once
/// per request. The queue takes 800,000 lines per second before lines are dropped.
const BATCH_PAUSE: Duration = Duration::from_millis(10);

/// Counts of written and dropped lines, and of failed writes.
#[derive(Default)]
pub(super) struct WriterCounts {
    written: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
}

impl WriterCounts {
    /// Lines written, lines dropped, failed writes.
    pub(super) fn read(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.written), read(&self.dropped), read(&self.errors))
    }

    /// Counts a line that was dropped because the queue was full.
    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The writer thread's state.
pub(super) struct AccessLogWriter<W: Write> {
    out: BufWriter<W>,
    /// The current line. Kept to reuse its allocation.
    text: Vec<u8>,
    counts: Arc<WriterCounts>,
    /// The last write failed. Only the first of several failures is logged.
    failing: bool,
}

impl<W: Write> AccessLogWriter<W> {
    pub(super) fn new(sink: W, counts: Arc<WriterCounts>) -> AccessLogWriter<W> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, sink);
        AccessLogWriter {
            out,
            text: Vec::new(),
            counts,
            failing: false,
        }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self, entries: &Receiver<Box<AccessLogEntry>>) {
        while let Ok(first) = entries.recv() {
            self.write_entry(&first);
            for entry in entries.try_iter().take(BATCH_LINES_MAX) {
                self.write_entry(&entry);
            }
            let flushed = self.out.flush();
            self.record_result(flushed);
            thread::park_timeout(BATCH_PAUSE);
        }
    }

    fn write_entry(&mut self, entry: &AccessLogEntry) {
        self.text.clear();
        entry.write_line(&mut self.text);
        let written = self.out.write_all(&self.text);
        let counter = if written.is_ok() {
            &self.counts.written
        } else {
            &self.counts.dropped
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.record_result(written);
    }

    fn record_result(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                if !self.failing {
                    tracing::warn!(%error, "access log cannot be written");
                }
                self.failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::SystemTime;

    use super::super::super::{Outcome, tests::record_of};
    use super::*;
    use seawall_manifest::Kind;

    /// Fails this many times, then accepts everything.
    struct Failing(usize);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Ok(bytes.len());
            }
            self.0 -= 1;
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn failed_writes_are_counted_and_do_not_end_the_log() {
        let (queue, entries) = sync_channel(1000);
        for _ in 0..1000 {
            let record = record_of(Outcome::Hit, Kind::Hls, 200);
            queue
                .send(Box::new(AccessLogEntry::of(&record, 1, SystemTime::now())))
                .unwrap();
        }
        drop(queue);
        let counts = Arc::new(WriterCounts::default());
        AccessLogWriter::new(Failing(2), Arc::clone(&counts)).run(&entries);
        assert_eq!(counts.read(), (998, 2, 2));
    }
}
