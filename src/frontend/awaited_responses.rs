//! Remembers which responses viewers of this worker wait for, so that others that send the same
//! request wait for the same response: see [`SharedWait`].

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};
use hashbrown::HashTable;

use super::request_key::{COPIED_BODY_MAX, RequestKey};
use crate::proxy::{
    ByteMeter, RequestLimiter, ResponseBody, SharedWait, ViewerResponse, admit_repeat,
};
use crate::telemetry::{RequestRecord, viewer_hash};
use seawall_cache::{AwaitedFill, Follower, Object};
use seawall_policy::ViewerAddress;

/// Viewers join a wait for this time, then a new one begins: its deadline is that of its first
/// viewer, which must not be much earlier than their own.
const JOIN_TIME_MAX: Duration = Duration::from_millis(500);

/// A response for several viewers.
pub(super) struct SharedResponse<H> {
    head: H,
    body: Bytes,
    /// The stored object whose body this response sends.
    object: Option<Arc<Object>>,
    record: RequestRecord,
}

impl<H> SharedResponse<H> {
    /// `None` if the body cannot be sent several times.
    pub(super) fn of(response: ViewerResponse, head: H, is_empty: bool) -> Option<Self> {
        let (body, object) = match response.body {
            _ if is_empty => (Bytes::new(), None),
            ResponseBody::Empty => (Bytes::new(), None),
            ResponseBody::Whole(Some(body)) => {
                // This worker's own copy: a clone of the stored body would move a reference count
                // from core to core.
                let body = if body.len() <= COPIED_BODY_MAX {
                    Bytes::copy_from_slice(&body)
                } else {
                    body
                };
                (body, response.stored.or(response.part_of))
            }
            _ => return None,
        };
        Some(SharedResponse {
            head,
            body,
            object,
            record: response.record,
        })
    }

    pub(super) fn head(&self) -> &H {
        &self.head
    }

    pub(super) fn body(&self) -> ResponseBody {
        ResponseBody::whole(self.body.clone())
    }

    pub(super) fn object(&self) -> Option<&Arc<Object>> {
        self.object.as_ref()
    }

    /// The record of a viewer whose request arrived at this time.
    pub(super) fn record(&self, arrived: Instant, has_joined: bool) -> RequestRecord {
        let waited = self.record.origin_time;
        RequestRecord {
            arrived,
            is_repeated: has_joined,
            origin_time: waited.map(|waited| waited.min(arrived.elapsed())),
            ..self.record.clone()
        }
    }
}

type ResponseFuture<H> = Pin<Box<dyn Future<Output = Option<Arc<SharedResponse<H>>>> + Send>>;

/// One viewer that waits for a shared response.
pub(super) struct SharedWaiter<H> {
    /// The response; `None` if the viewer's request must be handled by itself.
    pub(super) response: Shared<ResponseFuture<H>>,
    /// Counts a viewer that joined as one that waits for the fill. The response's own future does
    /// that for the first one.
    follower: Option<Follower>,
    /// What to record if the viewer leaves.
    pub(super) record: RequestRecord,
    /// Takes the bytes of this viewer's response, if a rate limit counts them.
    pub(super) meter: Option<ByteMeter>,
    /// What decides whether a viewer that joined may wait, if a rate limit does.
    limiter: Option<Arc<RequestLimiter>>,
}

impl<H> SharedWaiter<H> {
    /// Takes the request of a viewer that joined from its rate limits. `None`: it may not wait.
    pub(super) fn admit(
        mut self,
        viewer: impl Fn() -> ViewerAddress,
        now: Instant,
    ) -> Option<SharedWaiter<H>> {
        self.record.viewer_hash = viewer_hash(viewer().viewer);
        self.meter = admit_repeat(self.limiter.as_ref(), viewer, now).ok()?;
        Some(self)
    }

    /// Whether others waited for the response before.
    pub(super) fn has_joined(&self) -> bool {
        self.follower.is_some()
    }
}

/// A response for which viewers of this worker wait.
struct AwaitedResponse<H> {
    key: RequestKey,
    fill: AwaitedFill,
    response: WeakShared<ResponseFuture<H>>,
    record: RequestRecord,
    /// What decides whether another viewer may wait, if a rate limit does.
    limiter: Option<Arc<RequestLimiter>>,
    join_until: Instant,
}

impl<H> AwaitedResponse<H> {
    fn join(&self, now: Instant) -> Option<SharedWaiter<H>> {
        let response = self.response.upgrade().filter(|_| now < self.join_until)?;
        Some(SharedWaiter {
            follower: Some(self.fill.join()?),
            response,
            record: self.record.clone(),
            meter: None,
            limiter: self.limiter.clone(),
        })
    }

    fn has_waiters(&self) -> bool {
        self.response.upgrade().is_some()
    }
}

/// The responses for which viewers of one worker wait: at most as many as viewers, and those whose
/// wait ended since the last sweep.
pub(super) struct AwaitedResponses<H> {
    entries: HashTable<AwaitedResponse<H>>,
}

impl<H> Default for AwaitedResponses<H> {
    fn default() -> AwaitedResponses<H> {
        AwaitedResponses {
            entries: HashTable::new(),
        }
    }
}

impl<H: 'static> AwaitedResponses<H> {
    /// Joins the viewers that wait for the response to this request.
    pub(super) fn join(&self, hash: u64, bytes: &[u8], now: Instant) -> Option<SharedWaiter<H>> {
        let entry = self
            .entries
            .find(hash, |entry| entry.key.is_of(hash, bytes))?;
        entry.join(now)
    }

    /// Begins a wait that other viewers may join, if `may_be_joined`. `share` makes of the response
    /// what all can send.
    pub(super) fn insert(
        &mut self,
        key: RequestKey,
        wait: SharedWait,
        (now, may_be_joined): (Instant, bool),
        share: fn(ViewerResponse) -> Option<SharedResponse<H>>,
    ) -> SharedWaiter<H> {
        // A panic must not reach all that wait: each request is then handled by itself.
        let pending = AssertUnwindSafe(wait.response).catch_unwind();
        let response: ResponseFuture<H> = Box::pin(async move {
            let response = pending.await.ok().flatten();
            response.and_then(share).map(Arc::new)
        });
        let response = response.shared();
        let hash = key.hash();
        if let Some(response) = response.downgrade().filter(|_| may_be_joined) {
            if let Ok(previous) = self.entries.find_entry(hash, |entry| entry.key == key) {
                previous.remove();
            }
            let join_until = now + JOIN_TIME_MAX;
            let entry = AwaitedResponse {
                key,
                fill: wait.fill,
                response,
                record: wait.record.clone(),
                limiter: wait.limiter,
                join_until: wait
                    .join_until
                    .map_or(join_until, |end| end.min(join_until)),
            };
            self.entries
                .insert_unique(hash, entry, |entry| entry.key.hash());
        }
        SharedWaiter {
            response,
            follower: None,
            record: wait.record,
            meter: wait.meter,
            limiter: None,
        }
    }

    /// Forgets the responses for which no viewer waits any more.
    pub(super) fn sweep(&mut self) {
        self.entries.retain(|entry| entry.has_waiters());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::repeated_responses::{RepeatLookup, RepeatedResponses};
    use crate::frontend::test_support;
    use http::HeaderMap;
    use seawall_cache::{Cache, Fill, JoinOutcome, Settings};
    use seawall_manifest::Kind;
    use seawall_policy::Key;

    struct Fields;

    impl crate::frontend::repeated_responses::RepeatedHead for Fields {
        fn bytes(&self) -> usize {
            0
        }
    }

    /// Whether a viewer that arrives now may wait with others.
    fn may_join(table: &mut RepeatedResponses<Fields>, now: Instant) -> bool {
        let lookup = table.look_up(now, |_, key| key.extend_from_slice(b"/a"));
        matches!(lookup, RepeatLookup::Awaited(_))
    }

    /// A fill, and the wait of a first viewer for its response.
    fn first_wait(
        table: &mut RepeatedResponses<Fields>,
        now: Instant,
        response: impl Future<Output = Option<ViewerResponse>> + Send + 'static,
    ) -> (Fill, Follower, SharedWaiter<Fields>) {
        let cache = Cache::new(Settings::default());
        let lookup = cache.lookup(&Key::of(&[b"/a"]), Kind::Segment, now, HeaderMap::new);
        let JoinOutcome::Lead(fill, leader) = cache.join(&lookup, &HeaderMap::new()) else {
            panic!("nothing is in progress")
        };
        assert!(!may_join(table, now));
        let lookup_again = table.look_up(now, |_, key| key.extend_from_slice(b"/a"));
        let RepeatLookup::SeenBefore(key) = lookup_again else {
            panic!("it came before")
        };
        let wait = SharedWait {
            generation: 0,
            fill: cache.awaited_fill(&lookup).unwrap(),
            join_until: None,
            response: Box::pin(response),
            record: test_support::record(now),
            meter: None,
            limiter: None,
        };
        let waiter = table.awaited.insert(key, wait, (now, true), |_| None);
        (fill, leader, waiter)
    }

    #[tokio::test]
    async fn viewers_join_for_half_a_second_and_while_one_waits() {
        let (mut table, now) = (RepeatedResponses::default(), Instant::now());
        let (_fill, _leader, first) = first_wait(&mut table, now, std::future::pending());
        let half = Duration::from_millis(500);
        assert!(may_join(&mut table, now + half.mul_f32(0.9)));
        assert!(!may_join(&mut table, now + half));
        drop(first);
        assert!(!may_join(&mut table, now), "no viewer waits");
    }

    #[tokio::test]
    async fn no_viewer_joins_a_fill_that_has_ended() {
        let (mut table, now) = (RepeatedResponses::default(), Instant::now());
        let (fill, _leader, _first) = first_wait(&mut table, now, std::future::pending());
        assert!(may_join(&mut table, now));
        drop(fill);
        assert!(!may_join(&mut table, now));
    }

    #[tokio::test]
    async fn panic_lets_each_request_be_handled_by_itself() {
        let (mut table, now) = (RepeatedResponses::default(), Instant::now());
        let response = async { panic!("a bug") };
        let (_fill, _leader, first) = first_wait(&mut table, now, response);
        assert!(first.response.await.is_none());
    }
}
