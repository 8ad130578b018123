//! Who compresses texts? Threads of their own, so that no worker ever does: a 4 MiB playlist takes a tenth of a
//! second in brotli. Orders wait in two bounded queues, the short texts' and the long ones', each with its own
//! threads; what finds its queue full is not made.

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

use crate::cache::EncodedBodySet;
use crate::policy::encoding::ContentCoding;

/// A text up to this size is compressed in a few milliseconds: who asks first waits for it.
pub(super) const SHORT_BYTES_MAX: usize = 64 << 10;

/// Orders that wait at most: of short texts, and of long ones, which may hold 4 MiB each.
const SHORT_QUEUE_MAX: usize = 1024;
const LONG_QUEUE_MAX: usize = 32;
/// Threads for short texts at most; half the cores otherwise. Long texts have one.
const SHORT_THREADS_MAX: usize = 4;

/// How hard is tried: about where more takes much longer and makes texts hardly any smaller.
const GZIP_LEVEL: u32 = 4;
const BROTLI_QUALITY: i32 = 5;
const ZSTD_LEVEL: i32 = 3;

/// A text to be compressed.
struct CompressionJob {
    text: Bytes,
    coding: ContentCoding,
    bodies: Arc<EncodedBodySet>,
}

/// The threads, started with the first order.
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

/// What has been compressed, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodingStats {
    /// Texts compressed, by coding.
    pub made: [(ContentCoding, u64); ContentCoding::ALL.len()],
    /// Not compressed: too many waited.
    pub refused: u64,
    /// Waiting or being compressed now.
    pub queued: u64,
}

impl Compressor {
    /// Has a text compressed, some time soon.
    pub(super) fn order(&self, text: &Bytes, coding: ContentCoding, bodies: &Arc<EncodedBodySet>) {
        let queues = self
            .queues
            .get_or_init(|| CompressionQueues::start(&self.counts));
        let queue = if text.len() <= SHORT_BYTES_MAX {
            &queues.short
        } else {
            &queues.long
        };
        let order = CompressionJob {
            text: text.clone(),
            coding,
            bodies: Arc::clone(bodies),
        };
        self.counts.queued.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) =
            queue.try_send(order)
        {
            self.counts.queued.fetch_sub(1, Ordering::Relaxed);
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            order.bodies.cancel(order.coding);
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

/// A queue and its threads, which end when nobody can order any more.
fn queue(
    bound: usize,
    threads: usize,
    counts: &Arc<CompressionCounters>,
) -> SyncSender<CompressionJob> {
    let (orders, receiver) = sync_channel(bound);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..threads {
        let (receiver, counts) = (Arc::clone(&receiver), Arc::clone(counts));
        let named = thread::Builder::new().name("coding".to_owned());
        if let Err(error) = named.spawn(move || work(&receiver, &counts)) {
            tracing::error!(%error, "no thread to compress texts with: they go out as they are");
        }
    }
    orders
}

fn work(orders: &Mutex<Receiver<CompressionJob>>, counts: &CompressionCounters) {
    loop {
        // Held while waiting: one thread waits here, and the others for it.
        let Ok(order) = orders.lock().recv() else {
            return;
        };
        let body = catch_unwind(|| compress(&order.text, order.coding));
        let body = body.unwrap_or_else(|_| {
            tracing::error!(
                coding = order.coding.as_str(),
                "compressing a text panicked"
            );
            None
        });
        let smaller = body.filter(|body| body.len() < order.text.len());
        counts.made[order.coding as usize].fetch_add(1, Ordering::Relaxed);
        counts.queued.fetch_sub(1, Ordering::Relaxed);
        order.bodies.deliver(order.coding, smaller);
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
