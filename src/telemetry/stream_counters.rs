//! Counts requests by the stream that their object belongs to, and estimates how many viewers it
//! has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use thread_local::ThreadLocal;

use super::RequestRecord;
use super::viewer_sketch::{self, ViewerSketch};
use seawall_policy::{STREAMS_MAX, StreamNumber};

/// Viewers are those of one to two windows: a player asks for a playlist or a segment at least
/// every few seconds.
const WINDOW: Duration = Duration::from_secs(10);

/// What has been counted for a stream since its number was first given to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Requests from viewers.
    pub requests: u64,
    /// Body bytes sent to them.
    pub bytes: u64,
    /// About how many addresses these come from in the last 10 to 20 s.
    pub viewers: u64,
}

/// What one thread counts for one stream. Aligned, so that two threads never share a cache line.
#[derive(Default)]
#[repr(align(64))]
struct OneStream {
    requests: AtomicU64,
    bytes: AtomicU64,
    /// Of even windows and of odd ones.
    sketches: [ViewerSketch; 2],
}

/// The counters of all streams. Each thread writes to memory of its own: half a megabyte.
pub struct StreamCounters {
    started_at: Instant,
    threads: ThreadLocal<Box<[OneStream]>>,
}

impl Default for StreamCounters {
    fn default() -> StreamCounters {
        StreamCounters {
            started_at: Instant::now(),
            threads: ThreadLocal::new(),
        }
    }
}

impl StreamCounters {
    /// Counts one finished request.
    pub fn count(&self, stream: StreamNumber, record: &RequestRecord) {
        let empty = || (0..STREAMS_MAX).map(|_| OneStream::default()).collect();
        let own = &self.threads.get_or(empty)[usize::from(stream.index())];
        // A plain load and store: no other thread writes these.
        let add = |counter: &AtomicU64, count: u64| {
            let before = counter.load(Ordering::Relaxed);
            counter.store(before.wrapping_add(count), Ordering::Relaxed);
        };
        add(&own.requests, 1);
        add(&own.bytes, record.bytes);
        let window = self.window(record.arrived);
        own.sketches[usize::from(window % 2 == 1)].add(window, record.viewer_hash);
    }

    /// What all threads have counted for a stream.
    pub fn counts(&self, stream: StreamNumber, now: Instant) -> StreamCounts {
        let index = usize::from(stream.index());
        let threads = || self.threads.iter().map(|streams| &streams[index]);
        let sum = |counter: fn(&OneStream) -> &AtomicU64| {
            let counters = threads().map(|own| counter(own).load(Ordering::Relaxed));
            counters.fold(0, u64::wrapping_add)
        };
        let sketches = threads().flat_map(|own| &own.sketches);
        StreamCounts {
            requests: sum(|own| &own.requests),
            bytes: sum(|own| &own.bytes),
            viewers: viewer_sketch::viewers(sketches, self.window(now) - 1),
        }
    }

    /// The number of the window that this moment is in; the first is 2.
    fn window(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.started_at);
        2 + since.as_secs() / WINDOW.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::viewer_hash;
    use super::*;

    #[test]
    fn counts_requests_bytes_and_viewers_by_stream() {
        let counters = StreamCounters::default();
        let [one, other] = [0, STREAMS_MAX - 1].map(|index| StreamNumber::of_index(index).unwrap());
        let start = counters.started_at;
        let request = |stream, last: u8, after| {
            let record = RequestRecord {
                status: StatusCode::OK,
                bytes: 100,
                viewer_hash: viewer_hash(Some([192, 0, 2, last].into())),
                ..RequestRecord::begin(start + after)
            };
            counters.count(stream, &record);
        };
        request(one, 1, Duration::ZERO);
        request(one, 1, WINDOW);
        std::thread::scope(|scope| {
            scope.spawn(|| request(one, 2, WINDOW));
        });
        request(other, 3, WINDOW);
        let of_one = |viewers| StreamCounts {
            requests: 3,
            bytes: 300,
            viewers,
        };
        assert_eq!(counters.counts(one, start + WINDOW), of_one(2));
        assert_eq!(counters.counts(other, start + WINDOW).viewers, 1);
        assert_eq!(counters.counts(one, start + 3 * WINDOW), of_one(0));
    }
}
