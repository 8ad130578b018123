//! Compresses texts on threads of its own, so that no worker thread does it: brotli needs about 0.1
//! s for a 4 MiB playlist. Short and long texts have a bounded queue and threads each. A job that
//! finds its queue full is dropped.

use std::io::Write;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

use seawall_cache::EncodedBodySet;
use seawall_policy::encoding::ContentCoding;

/// A text up to this size takes a few milliseconds to compress; the first request waits for it.
pub(super) const SHORT_BYTES_MAX: usize = 64 << 10;

/// Maximum jobs in the queue of short texts, and of long texts (up to 4 MiB each).
const SHORT_QUEUE_MAX: usize = 1024;
const LONG_QUEUE_MAX: usize = 32;
/// Maximum threads for short texts, if half the cores are more. Long texts have one thread.
const SHORT_THREADS_MAX: usize = 4;

/// Compression levels: higher ones take much longer and save little.
const GZIP_LEVEL: u32 = 4;
const BROTLI_QUALITY: i32 = 5;
const ZSTD_LEVEL: i32 = 3;

/// A text to compress.
struct CompressionJob {
    text: Bytes,
    coding: ContentCoding,
    bodies: Arc<EncodedBodySet>,
}

/// The compressor threads, started with the first job.
#[derive(Default)]
pub(in crate::proxy) struct Compressor {
    queues: OnceLock<CompressionQueues>,
    counts: Arc<CompressionCounters>,
}

struct CompressionQueues {
    short: SyncSender<CompressionJob>,
    long: SyncSender<CompressionJob>,
}

#[derive(Default)]
struct CompressionCounters {
    queued: AtomicU64,
    made: [AtomicU64; ContentCoding::ALL.len()],
    refused: AtomicU64,
}

/// Compression counters since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodingStats {
    /// Texts compressed, by coding.
    pub made: [(ContentCoding, u64); ContentCoding::ALL.len()],
    /// Texts not compressed because the queue was full.
    pub refused: u64,
    /// Texts in the queue or being compressed.
    pub queued: u64,
}

impl Compressor {
    /// Queues a text for compression.
    pub(super) fn enqueue(
        &self,
        text: &Bytes,
        coding: ContentCoding,
        bodies: &Arc<EncodedBodySet>,
    ) {
        let queues = self
            .queues
            .get_or_init(|| CompressionQueues::start(&self.counts));
        let queue = if text.len() <= SHORT_BYTES_MAX {
            &queues.short
        } else {
            &queues.long
        };
        let job = CompressionJob {
            text: text.clone(),
            coding,
            bodies: Arc::clone(bodies),
        };
        self.counts.queued.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = queue.try_send(job)
        {
            self.counts.queued.fetch_sub(1, Ordering::Relaxed);
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            job.bodies.cancel(job.coding);
        }
    }

    pub(in crate::proxy) fn read(&self) -> CodingStats {
        let made = |coding| self.counts.made[coding as usize].load(Ordering::Relaxed);
        CodingStats {
            made: ContentCoding::ALL.map(|coding| (coding, made(coding))),
            refused: self.counts.refused.load(Ordering::Relaxed),
            queued: self.counts.queued.load(Ordering::Relaxed),
        }
    }
}

impl CompressionQueues {
    fn start(counts: &Arc<CompressionCounters>) -> CompressionQueues {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / 2).clamp(1, SHORT_THREADS_MAX);
        CompressionQueues {
            short: queue(SHORT_QUEUE_MAX, threads, counts),
            long: queue(LONG_QUEUE_MAX, 1, counts),
        }
    }
}

/// Starts a queue with its threads, which end when the sender is dropped.
fn queue(
    bound: usize,
    threads: usize,
    counts: &Arc<CompressionCounters>,
) -> SyncSender<CompressionJob> {
    let (jobs, receiver) = sync_channel(bound);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..threads {
        let (receiver, counts) = (Arc::clone(&receiver), Arc::clone(counts));
        let named = thread::Builder::new().name("coding".to_owned());
        if let Err(error) = named.spawn(move || work(&receiver, &counts)) {
            tracing::error!(%error, "cannot start a compressor thread: texts go uncompressed");
        }
    }
    jobs
}

fn work(jobs: &Mutex<Receiver<CompressionJob>>, counts: &CompressionCounters) {
    loop {
        // The lock is held while waiting: one thread waits here, the others wait for the lock.
        let Ok(job) = jobs.lock().recv() else {
            return;
        };
        let body = catch_unwind(|| compress(&job.text, job.coding));
        let body = body.unwrap_or_else(|_| {
            tracing::error!(coding = job.coding.as_str(), "compressing a text panicked");
            None
        });
        let smaller = body.filter(|body| body.len() < job.text.len());
        counts.made[job.coding as usize].fetch_add(1, Ordering::Relaxed);
        counts.queued.fetch_sub(1, Ordering::Relaxed);
        job.bodies.set_made(job.coding, smaller);
    }
}

pub(super) fn compress(body: &[u8], coding: ContentCoding) -> Option<Bytes> {
    let room = Vec::with_capacity(body.len() / 4);
    let mut coded = match coding {
        ContentCoding::Gzip => {
            let mut coder = GzEncoder::new(room, Compression::new(GZIP_LEVEL));
            coder.write_all(body).ok()?;
            coder.finish().ok()?
        }
        ContentCoding::Brotli => {
            let parameters = BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                size_hint: body.len(),
                ..BrotliEncoderParams::default()
            };
            let mut coded = room;
            brotli::BrotliCompress(&mut &body[..], &mut coded, &parameters).ok()?;
            coded
        }
        ContentCoding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL).ok()?,
    };
    coded.shrink_to_fit();
    Some(coded.into())
}
