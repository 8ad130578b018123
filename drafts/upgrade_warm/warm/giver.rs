//! The old process: gives what it has stored and fresh.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use seawall_cache::{EpochToken, Object};
use seawall_manifest::{Kind, ManifestInfo};
use seawall_policy::Key;
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::wire::{self, GivenHead, ObjectQuestion};
use crate::proxy::{ActiveShield, Shield};

/// An object that is fresh for less is not worth the way.
const FRESH_MIN: Duration = Duration::from_secs(2);

/// The new process takes a body within this time.
const SEND_MAX: Duration = Duration::from_secs(5);

/// Without a question for this long, the new process has what its viewers want.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Gives objects to the process that serves now. Dropping it ends that.
pub struct WarmGiver {
    connections: JoinSet<()>,
    asked_at: Arc<Mutex<Instant>>,
}

impl WarmGiver {
    /// Answers questions on these connections.
    pub fn start(shield: &Arc<ActiveShield>, connections: Vec<StdUnixStream>) -> WarmGiver {
        let asked_at = Arc::new(Mutex::new(Instant::now()));
        let mut giver = WarmGiver {
            connections: JoinSet::new(),
            asked_at: asked_at.clone(),
        };
        for connection in connections {
            let (shield, asked_at) = (shield.clone(), asked_at.clone());
            let registered = connection
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(connection));
            match registered {
                Ok(stream) => drop(giver.connections.spawn(answer_all(shield, stream, asked_at))),
                Err(error) => tracing::warn!(%error, "cannot give objects: {error}"),
            }
        }
        giver
    }

    /// Waits until the new process asks no more: it says so, or has not asked for a while; at most
    /// until the end of this time.
    pub async fn wait_until_unused(&mut self, until: tokio::time::Instant) {
        loop {
            let idle_at = tokio::time::Instant::from_std(*self.asked_at.lock() + IDLE_MAX);
            if tokio::time::Instant::now() >= idle_at.min(until) {
                return;
            }
            tokio::select! {
                ended = self.connections.join_next() => if ended.is_none() {
                    return;
                },
                () = sleep_until(idle_at.min(until)) => {}
            }
        }
    }
}

async fn answer_all(
    shield: Arc<ActiveShield>,
    mut stream: UnixStream,
    asked_at: Arc<Mutex<Instant>>,
) {
    // The other process ends it.
    while let Ok(question) = wire::receive::<ObjectQuestion>(&mut stream).await {
        let now = Instant::now();
        *asked_at.lock() = now;
        let given = shield.current().object_for_successor(question, now);
        let sending = async {
            let Some(object) = given else {
                return wire::send(&mut stream, &None::<GivenHead>).await;
            };
            wire::send(&mut stream, &Some(given_head(&object, now))).await?;
            stream.write_all(&object.body).await
        };
        if !matches!(timeout(SEND_MAX, sending).await, Ok(Ok(()))) {
            return;
        }
    }
}

impl Shield {
    /// A stored object that the next process may store too.
    fn object_for_successor(&self, question: ObjectQuestion, now: Instant) -> Option<Arc<Object>> {
        let kinds = Kind::ALL.into_iter();
        let kind = { kinds }.find(|kind| kind.as_str() == question.kind)?;
        let key = Key::from_bytes(&question.key);
        let headers = || wire::headers_of(question.fields);
        let object = self.cache.lookup(&key, kind, now, headers).object?;
        let head = &object.head;
        let info = head.manifest_info.as_deref();
        let is_live = info.is_some_and(ManifestInfo::is_live);
        let may_be_given = head.status == StatusCode::OK
            && !is_live
            && head.is_valid()
            && head.lifetime.fresh_remaining(now) >= FRESH_MIN;
        may_be_given.then_some(object)
    }
}

fn given_head(object: &Object, now: Instant) -> GivenHead {
    let head = &object.head;
    let mut fields = wire::fields_of(&head.headers.to_map());
    if let Some(targeted) = &head.targeted {
        fields.extend(wire::fields_of(&targeted.to_map()));
    }
    let tags = head.epoch_token.as_ref().map(EpochToken::tag_keys);
    let tags = tags.unwrap_or_default();
    GivenHead {
        fields,
        age_millis: head.lifetime.age(now).as_millis().try_into().unwrap_or(u64::MAX),
        tags: tags.iter().map(|key| key.bytes().to_vec()).collect(),
        length: object.body.len() as u64,
    }
}
