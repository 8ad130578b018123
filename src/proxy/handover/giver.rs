//! The old process: gives what it has stored. What it has not, it asks of the process before it, if
//! that is still there.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use seawall_cache::{EpochToken, KeyMemo, StoredHead};
use seawall_manifest::Kind;
use seawall_policy::lifetime::Rule;
use seawall_policy::{Key, headers};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::wire::{self, GivenHead, ObjectQuestion};
use crate::proxy::{ActiveShield, Shield};

/// The new process takes an object within this time.
const SEND_MAX: Duration = Duration::from_secs(5);

/// When it has been given nothing for as long, it has what its viewers request. What it lacks then
/// costs the origin less than one request in this time.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Gives objects to the process that serves now. Dropping it ends that.
pub struct ObjectGiver {
    shield: Arc<ActiveShield>,
    connections: JoinSet<()>,
    progress: Arc<Mutex<GivingProgress>>,
}

/// What was given.
#[derive(Clone, Copy, Debug, Default)]
pub struct GivenCount {
    /// Questions.
    pub questions: u64,
    /// Objects given.
    pub objects: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

struct GivingProgress {
    given_at: Instant,
    count: GivenCount,
}

impl ObjectGiver {
    /// Answers questions on these connections. Call it inside a tokio runtime that outlives it.
    pub fn start(shield: &Arc<ActiveShield>, connections: Vec<StdUnixStream>) -> ObjectGiver {
        let mut giver = ObjectGiver {
            shield: shield.clone(),
            connections: JoinSet::new(),
            progress: Arc::new(Mutex::new(GivingProgress {
                given_at: Instant::now(),
                count: GivenCount::default(),
            })),
        };
        for connection in connections {
            let registered = connection
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(connection));
            match registered {
                Ok(stream) => {
                    let answering = answer_all(shield.clone(), stream, giver.progress.clone());
                    giver.connections.spawn(answering);
                }
                Err(error) => tracing::warn!(%error, "cannot hand objects over: {error}"),
            }
        }
        giver
    }

    /// What was given so far.
    pub fn count(&self) -> GivenCount {
        self.progress.lock().count
    }

    /// Waits until the new process takes no more: it has closed its connections, or was given
    /// nothing for a while; at most until this time.
    pub async fn wait_until_unused(&mut self, until: Instant) {
        while self.has_objects() {
            let end = until.min(self.progress.lock().given_at + IDLE_MAX);
            if Instant::now() >= end {
                return;
            }
            tokio::select! {
                ended = self.connections.join_next() => if ended.is_none() {
                    return;
                },
                () = sleep_until(end) => {}
            }
        }
    }

    fn has_objects(&self) -> bool {
        let shield = self.shield.load();
        shield.cache.stats().objects > 0 || shield.handover.source().is_some()
    }
}

async fn answer_all(
    shield: Arc<ActiveShield>,
    mut stream: UnixStream,
    progress: Arc<Mutex<GivingProgress>>,
) {
    // The other process ends it.
    while let Ok(question) = wire::receive::<ObjectQuestion>(&mut stream).await {
        progress.lock().count.questions += 1;
        let given = object_for(&shield.current(), question).await;
        let sending = timeout(SEND_MAX, send(&mut stream, given.as_ref())).await;
        if !matches!(sending, Ok(Ok(()))) {
            return;
        }
        if let Some((head, _)) = given {
            let mut progress = progress.lock();
            progress.given_at = Instant::now();
            progress.count.objects += 1;
            progress.count.bytes += head.length;
        }
    }
}

async fn send(stream: &mut UnixStream, given: Option<&(GivenHead, Bytes)>) -> io::Result<()> {
    wire::send(stream, &given.map(|(head, _)| head)).await?;
    match given {
        Some((_, body)) => stream.write_all(body).await,
        None => Ok(()),
    }
}

/// The object, stored here or in the process before.
async fn object_for(shield: &Shield, question: ObjectQuestion) -> Option<(GivenHead, Bytes)> {
    if let Some(given) = shield.object_for_successor(&question) {
        return Some(given);
    }
    let source = shield.handover.source()?;
    source.ask(&question, |_| true).await
}

impl Shield {
    /// A stored object that the next process may have, or the head of one that has slices.
    fn object_for_successor(&self, question: &ObjectQuestion) -> Option<(GivenHead, Bytes)> {
        let kinds = Kind::ALL.into_iter();
        let kind = { kinds }.find(|kind| kind.as_str() == question.kind)?;
        // It may be stored without what kept it private, which the next process may heed.
        if self
            .rules
            .routes
            .iter()
            .any(|route| route.store_private.contains(&kind))
        {
            return None;
        }
        let key = Key::from_bytes(&question.key);
        let headers = || wire::headers_of(question.fields.clone());
        let now = std::time::Instant::now();
        let lookup = self.cache.lookup(&key, kind, now, headers);
        let (head, body) = match lookup.object {
            Some(object) => {
                let head = given_head(&object.head, object.body.len() as u64, &self.rules.name);
                (
                    may_be_given(&object.head).then_some(head)?,
                    object.body.clone(),
                )
            }
            None => match self.cache.memo(&lookup.slot, now)? {
                KeyMemo::Sliced(slice_set) if may_be_given(&slice_set.head) => {
                    let head = given_head(&slice_set.head, 0, &self.rules.name);
                    let sliced_length = Some(slice_set.length);
                    let head = GivenHead {
                        sliced_length,
                        ..head
                    };
                    (head, Bytes::new())
                }
                _ => return None,
            },
        };
        (head.length <= question.length_max).then_some((head, body))
    }
}

/// An error says something of its moment. After a soft purge the origin has the last word.
fn may_be_given(head: &StoredHead) -> bool {
    (head.status.is_success() || head.status.is_redirection())
        && head.is_valid()
        && head.lifetime.rule != Rule::SoftPurge
}

fn given_head(head: &StoredHead, length: u64, name: &str) -> GivenHead {
    let targeted = head.targeted.as_ref().map(|targeted| targeted.to_map());
    let received = headers::as_received(head.headers.to_map(), targeted.as_ref(), name);
    let tags = head.epoch_token.as_ref().map(EpochToken::tag_keys);
    let tags = tags.unwrap_or_default();
    let lifetime = &head.lifetime;
    GivenHead {
        status: head.status.as_u16(),
        fields: wire::fields_of(&received),
        tags: tags.iter().map(|key| key.bytes().to_vec()).collect(),
        length,
        sliced_length: None,
        age_millis: millis(lifetime.age(std::time::Instant::now())),
        fresh_for_millis: millis(lifetime.fresh_for),
        stale_while_revalidate_millis: millis(lifetime.stale_while_revalidate),
        stale_if_error_millis: millis(lifetime.stale_if_error),
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
