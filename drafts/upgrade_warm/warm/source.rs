//! The new process: asks the old one for an object before it asks the origin.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use seawall_cache::Lookup;
use seawall_policy::Key;
use seawall_upstream::{Framing, UpstreamBody, UpstreamResponse};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::wire::{self, GivenHead, ObjectQuestion};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};

/// Longest wait for a connection and the head of an object: the origin is not much slower.
const HEAD_MAX: Duration = Duration::from_millis(250);

/// Longest wait for a whole object after that.
const BODY_MAX: Duration = Duration::from_secs(2);

/// The process that served before this one, as a source of objects.
pub struct WarmSource {
    idle: Mutex<Vec<UnixStream>>,
    /// One for each connection.
    permits: Semaphore,
    is_ended: AtomicBool,
    counts: [AtomicU64; 3],
}

/// An object from the old process.
pub(in crate::proxy) struct WarmObject {
    pub(in crate::proxy) response: UpstreamResponse,
    pub(in crate::proxy) tags: Vec<Key>,
}

/// How a question ended.
#[derive(Clone, Copy)]
enum Ended {
    Given,
    Absent,
    Late,
}

/// Questions so far, by result.
#[derive(Clone, Debug, Default)]
pub struct WarmStats([u64; 3]);

const RESULTS: [&str; 3] = ["given", "absent", "late"];

impl WarmSource {
    /// A source behind these connections. Call it inside a tokio runtime that outlives it.
    pub fn new(connections: Vec<StdUnixStream>) -> io::Result<WarmSource> {
        let connections = connections.into_iter().map(|connection| {
            connection.set_nonblocking(true)?;
            UnixStream::from_std(connection)
        });
        let idle = connections.collect::<io::Result<Vec<_>>>()?;
        Ok(WarmSource {
            permits: Semaphore::new(idle.len()),
            is_ended: AtomicBool::new(idle.is_empty()),
            idle: Mutex::new(idle),
            counts: Default::default(),
        })
    }

    /// Asks no more: after a purge the old process may have what must not come back.
    pub(in crate::proxy) fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        self.idle.lock().clear();
    }

    pub(in crate::proxy) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// Questions so far.
    pub fn stats(&self) -> WarmStats {
        WarmStats([0, 1, 2].map(|result: usize| self.counts[result].load(Ordering::Relaxed)))
    }

    /// The object, if the old process has it.
    pub(in crate::proxy) async fn ask(
        &self,
        lookup: &Lookup,
        upstream_headers: &HeaderMap,
    ) -> Option<WarmObject> {
        let began = Instant::now();
        let deadline = began + HEAD_MAX;
        let Ok(Ok(_permit)) = timeout_at(deadline, self.permits.acquire()).await else {
            self.count(Ended::Late);
            return None;
        };
        let mut stream = self.idle.lock().pop()?;
        let question = ObjectQuestion {
            key: lookup.key.bytes().to_vec(),
            kind: lookup.kind.as_str().to_owned(),
            fields: wire::fields_of(upstream_headers),
        };
        let asking = async {
            wire::send(&mut stream, &question).await?;
            wire::receive::<Option<GivenHead>>(&mut stream).await
        };
        let head = match timeout_at(deadline, asking).await {
            Ok(Ok(head)) => head,
            // The other process is gone. Its other connections are, too.
            Ok(Err(_)) => {
                self.end();
                return None;
            }
            Err(_) => {
                self.lose_connection();
                return None;
            }
        };
        let Some(head) = head else {
            self.count(Ended::Absent);
            self.idle.lock().push(stream);
            return None;
        };
        let Ok(length) = usize::try_from(head.length) else {
            self.lose_connection();
            return None;
        };
        let mut body = vec![0; length];
        let reading = stream.read_exact(&mut body);
        if !matches!(timeout_at(Instant::now() + BODY_MAX, reading).await, Ok(Ok(_))) {
            self.lose_connection();
            return None;
        }
        // A purge may have come meanwhile.
        if self.is_ended() {
            return None;
        }
        self.idle.lock().push(stream);
        self.count(Ended::Given);
        Some(given(head, body.into(), began.elapsed()))
    }

    /// A connection that does not answer in time is not used again.
    fn lose_connection(&self) {
        self.count(Ended::Late);
        self.permits.forget_permits(1);
    }

    fn count(&self, ended: Ended) {
        self.counts[ended as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn given(head: GivenHead, body: Bytes, waited: Duration) -> WarmObject {
    let mut headers = wire::headers_of(head.fields);
    // Rounded up: it must not live longer here than there.
    headers.insert(header::AGE, HeaderValue::from(head.age_millis.div_ceil(1000)));
    WarmObject {
        tags: head.tags.iter().map(|key| Key::from_bytes(key)).collect(),
        response: UpstreamResponse {
            status: StatusCode::OK,
            headers,
            framing: Framing::Length(head.length),
            body: UpstreamBody::received(body),
            waited,
            endpoint: 0,
            endpoint_to_avoid: None,
        },
    }
}

const RESULT: MetricLabel = MetricLabel {
    name: "result",
    values: LabelValues::Fixed(|| RESULTS.to_vec()),
};

/// The metrics of objects from the process before.
pub static WARM_METRICS: [CollectedMetric<WarmStats>; 1] = [Metric {
    name: "seawall_upgrade_objects_total",
    kind: MetricKind::Counter,
    unit: "objects",
    labels: &[RESULT],
    help: "Objects for which the process before an upgrade was asked before the origin, by result: \
           given, absent (it has no fresh one), late (no answer in 0.25 s). Increments when the \
           answer has arrived, or would be too late.",
    remedy: "If late rises, the machine is too busy for two processes: upgrade when there is less \
             load.",
}
.collected(|stats, samples| {
    for (result, count) in RESULTS.into_iter().zip(stats.0) {
        samples.add(&[result], count);
    }
})];
