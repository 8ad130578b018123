//! The new process: asks the old one for an object. It gives up early, because an origin is there
//! too: after a deadline for one object, and after a few of these altogether.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use seawall_policy::lifetime::StorageDecision;
use seawall_policy::{Key, Lifetime};
use tokio::io::{AsyncReadExt, copy, sink};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::HandoverStats;
use super::wire::{self, GivenHead, ObjectQuestion};

/// Longest wait for a connection and the head of an object.
const HEAD_MAX: Duration = Duration::from_millis(250);

/// Longest wait for the whole object after that.
const BODY_MAX: Duration = Duration::from_secs(2);

/// After as many late answers in a row the old process is not asked any more: it hangs.
const LATE_MAX: u32 = 3;

/// The process that served before this one, as a source of objects.
pub struct ObjectSource {
    idle: Mutex<Vec<UnixStream>>,
    /// One for each connection.
    permits: Semaphore,
    has_ended: AtomicBool,
    late_in_a_row: AtomicU32,
    /// Connections that are still of use.
    open: AtomicUsize,
    questions: [AtomicU64; QuestionResult::ALL.len()],
    bytes: AtomicU64,
}

/// An object of another process, as a response of the origin.
pub(in crate::proxy) struct GivenObject {
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) headers: HeaderMap,
    pub(in crate::proxy) body: Bytes,
    /// It is stored in slices, and has this length.
    pub(in crate::proxy) sliced_length: Option<u64>,
    pub(in crate::proxy) age: Duration,
    pub(in crate::proxy) terms: GivenTerms,
}

/// What bound an object where it comes from.
pub(in crate::proxy) struct GivenTerms {
    pub(in crate::proxy) tags: Vec<Key>,
    fresh_for: Duration,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuestionResult {
    Given,
    Absent,
    Late,
    Failed,
}

impl QuestionResult {
    const ALL: [QuestionResult; 4] = [
        QuestionResult::Given,
        QuestionResult::Absent,
        QuestionResult::Late,
        QuestionResult::Failed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            QuestionResult::Given => "given",
            QuestionResult::Absent => "absent",
            QuestionResult::Late => "late",
            QuestionResult::Failed => "failed",
        }
    }
}

/// All results with a number each.
pub(super) fn results_of(number: impl Fn(usize) -> u64) -> [(&'static str, u64); 4] {
    QuestionResult::ALL.map(|result| (result.as_str(), number(result as usize)))
}

impl ObjectSource {
    /// A source behind these connections. Call it inside a tokio runtime that outlives it.
    pub fn new(connections: Vec<StdUnixStream>) -> io::Result<ObjectSource> {
        let connections = connections.into_iter().map(|connection| {
            connection.set_nonblocking(true)?;
            UnixStream::from_std(connection)
        });
        let idle = connections.collect::<io::Result<Vec<_>>>()?;
        Ok(ObjectSource {
            permits: Semaphore::new(idle.len()),
            has_ended: AtomicBool::new(idle.is_empty()),
            open: AtomicUsize::new(idle.len()),
            idle: Mutex::new(idle),
            late_in_a_row: AtomicU32::new(0),
            questions: Default::default(),
            bytes: AtomicU64::new(0),
        })
    }

    /// Asks no more.
    pub(in crate::proxy) fn end(&self, why: &'static str) {
        if self.has_ended.swap(true, Ordering::AcqRel) {
            return;
        }
        // Whoever waits for a connection goes on without it.
        self.permits.close();
        self.idle.lock().clear();
        let HandoverStats {
            questions, bytes, ..
        } = self.stats();
        let [(_, objects), ..] = questions;
        tracing::info!(
            why,
            objects,
            bytes,
            ?questions,
            "{objects} objects ({bytes} bytes) came from the process before; it is not asked any \
             more: {why}"
        );
    }

    pub(in crate::proxy) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Numbers for metrics.
    pub(super) fn stats(&self) -> HandoverStats {
        HandoverStats {
            questions: results_of(|result| self.questions[result].load(Ordering::Relaxed)),
            bytes: self.bytes.load(Ordering::Relaxed),
            connections: if self.has_ended() {
                0
            } else {
                self.open.load(Ordering::Relaxed)
            },
        }
    }

    /// The object, if the other process has it and `reserve` grants memory for its body.
    pub(super) async fn ask(
        &self,
        question: &ObjectQuestion,
        reserve: impl Fn(u64) -> bool,
    ) -> Option<(GivenHead, Bytes)> {
        let began = Instant::now();
        let deadline = began + HEAD_MAX;
        let permit = match timeout_at(deadline, self.permits.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return None,
            Err(_) => {
                self.count(QuestionResult::Late);
                return None;
            }
        };
        let mut stream = self.idle.lock().pop()?;
        let exchanged = exchange(&mut stream, question, deadline, reserve).await;
        // A purge may have come meanwhile.
        if self.has_ended() {
            return None;
        }
        match exchanged {
            Ok(given) => {
                self.idle.lock().push(stream);
                // It may have ended between the two: nobody takes the connection then.
                drop(permit);
                self.late_in_a_row.store(0, Ordering::Relaxed);
                let Some((mut head, body)) = given else {
                    self.count(QuestionResult::Absent);
                    return None;
                };
                self.count(QuestionResult::Given);
                self.bytes.fetch_add(head.length, Ordering::Relaxed);
                let waited = began.elapsed().as_millis();
                let waited = u64::try_from(waited).unwrap_or(u64::MAX);
                head.age_millis = head.age_millis.saturating_add(waited);
                Some((head, body))
            }
            Err(error) => {
                // Its answer may still come: the connection is not used again.
                permit.forget();
                self.open.fetch_sub(1, Ordering::Relaxed);
                self.record_failure(&error);
                None
            }
        }
    }

    /// The object as a response of the origin.
    pub(in crate::proxy) async fn ask_for_response(
        &self,
        question: &ObjectQuestion,
        reserve: impl Fn(u64) -> bool,
    ) -> Option<GivenObject> {
        let (head, body) = self.ask(question, reserve).await?;
        let millis = Duration::from_millis;
        Some(GivenObject {
            status: StatusCode::from_u16(head.status).ok()?,
            headers: wire::headers_of(head.fields),
            body,
            sliced_length: head.sliced_length,
            age: millis(head.age_millis),
            terms: GivenTerms {
                tags: head.tags.iter().map(|key| Key::from_bytes(key)).collect(),
                fresh_for: millis(head.fresh_for_millis),
                stale_while_revalidate: millis(head.stale_while_revalidate_millis),
                stale_if_error: millis(head.stale_if_error_millis),
            },
        })
    }

    fn record_failure(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::TimedOut {
            self.count(QuestionResult::Failed);
            // Its other connections are closed, too.
            return self.end("it has ended");
        }
        self.count(QuestionResult::Late);
        let late = self.late_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if late >= LATE_MAX {
            self.end("it does not answer in time");
        }
    }

    fn count(&self, result: QuestionResult) {
        self.questions[result as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks on a connection. After an error the connection is of no use any more.
async fn exchange(
    stream: &mut UnixStream,
    question: &ObjectQuestion,
    deadline: Instant,
    reserve: impl Fn(u64) -> bool,
) -> io::Result<Option<(GivenHead, Bytes)>> {
    let asking = async {
        wire::send(stream, question).await?;
        wire::receive::<Option<GivenHead>>(stream).await
    };
    let Some(head) = timeout_at(deadline, asking).await?? else {
        return Ok(None);
    };
    let deadline = Instant::now() + BODY_MAX;
    if head.length > question.length_max {
        return Err(io::Error::other("the object is longer than asked for"));
    }
    if !reserve(head.length) {
        let mut rest = stream.take(head.length);
        timeout_at(deadline, copy(&mut rest, &mut sink())).await??;
        return Ok(None);
    }
    let length = usize::try_from(head.length).map_err(io::Error::other)?;
    let mut body = vec![0; length];
    timeout_at(deadline, stream.read_exact(&mut body)).await??;
    Ok(Some((head, body.into())))
}

impl GivenTerms {
    /// It lives no longer than where it comes from: there may be a reason that is not known here.
    pub(in crate::proxy) fn limit(&self, decision: StorageDecision) -> StorageDecision {
        match decision {
            StorageDecision::Store(lifetime) => StorageDecision::Store(Lifetime {
                fresh_for: lifetime.fresh_for.min(self.fresh_for),
                stale_while_revalidate: { lifetime.stale_while_revalidate }
                    .min(self.stale_while_revalidate),
                stale_if_error: lifetime.stale_if_error.min(self.stale_if_error),
                ..lifetime
            }),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
