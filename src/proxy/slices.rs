//! Serves objects too large for one fetch as slices. Each slice is an object of its own, with its
//! own fill. Its key contains the object's strong `ETag` and length, so a slice is fetched once
//! while these are unchanged, even if the object is revalidated or fetched again. A purge of the
//! object removes all its slices.

mod fetch;
mod respond;
mod warm;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Shield;
use super::body_bytes::bytes_of;
use super::clients::Client;
use super::race::{AVOIDED, BodyEvent};
use fetch::SliceBody;
use seawall_cache::{
    BodyTruncated, EpochToken, ExpiringMemo, FieldLines, Fill, FillControl, FillHead, Follower,
    JoinOutcome, KeyMemo, Lookup, Object, SharedBody, SliceSet, StoredHead, Verdict,
};
use seawall_policy::access::CacheRequest;
use seawall_policy::range::ByteSpan;
use seawall_policy::{EndpointAvoidance, EndpointSet, Key, Lifetime, Route};
use seawall_upstream::{CauseCounters, Priority};

/// Lifetime of a slice: the strong `ETag` in its key means that it cannot change.
const SLICE_KEPT: Duration = Duration::from_hours(30 * 24);
/// Maximum slices looked up to see whether a whole range is stored.
const STORED_LOOKED_UP_MAX: u64 = 1024;
/// A key whose origin does not answer range requests is remembered for this time.
const UNSLICEABLE_MEMORY: Duration = Duration::from_mins(10);
/// Maximum lookups of a slice; one is repeated when a fill ended in the meantime.
const LOOKUPS_MAX: usize = 3;

/// What all slices of one object share.
struct SliceContext {
    shield: Arc<Shield>,
    route: Arc<Route>,
    /// The lookup of the object, whose slot holds the memo of its slices.
    lookup: Lookup,
    target: PathAndQuery,
    host: Option<HeaderValue>,
    upstream_headers: HeaderMap,
    slice_set: Arc<SliceSet>,
    client: Client,
    /// Where its requests to the origin are counted, if there are classes of clients.
    cause: Option<Arc<CauseCounters>>,
    /// Of its requests to the origin.
    priority: Priority,
    /// Endpoints that stopped inside a slice; the next slices ask them last.
    failed_endpoints: Mutex<EndpointAvoidance>,
    /// Endpoints that had stopped when this response began: a new request would do no better there.
    failed_before: EndpointSet,
}

impl SliceContext {
    /// For slices that are wanted from now on.
    fn begin(
        shield: &Arc<Shield>,
        (request, headers): (&CacheRequest, &HeaderMap),
        lookup: &Lookup,
        slice_set: &Arc<SliceSet>,
        (client, priority): (Client, Priority),
    ) -> Arc<SliceContext> {
        Arc::new(SliceContext {
            shield: Arc::clone(shield),
            route: Arc::clone(&request.route),
            lookup: lookup.clone(),
            target: request.target.clone(),
            host: request.sent_host().cloned(),
            upstream_headers: shield.upstream_headers_for(headers, request),
            slice_set: Arc::clone(slice_set),
            client,
            cause: shield.cause_of(request),
            priority,
            failed_endpoints: Mutex::default(),
            failed_before: slice_set.avoided.at(Instant::now()),
        })
    }
}

/// Why a slice is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SliceError {
    /// The object has changed at the origin.
    Changed,
    /// The origin does not answer range requests for it.
    RangesIgnored,
    /// A failure, or no memory: the next attempt may succeed.
    Failed,
}

/// A slice: stored, or arriving.
enum Slice {
    Stored(Arc<Object>),
    Growing(Follower),
}

/// What the body waits for, or reads.
enum SliceStage {
    Fetch(SliceFetch),
    Read(Slice),
}

type SliceFetch = Pin<Box<dyn Future<Output = Result<Slice, BodyTruncated>> + Send>>;

/// A body made of slices.
pub struct SlicedBody {
    source: Arc<SliceContext>,
    at: u64,
    end: u64,
    stage: SliceStage,
    /// The shared body of the newest slice, until [`SlicedBody::new_body`] takes it.
    new_body: Option<Arc<SharedBody>>,
}

impl SlicedBody {
    /// `first`: the slice with the span's first byte, if it is available already.
    fn new(source: Arc<SliceContext>, span: ByteSpan, first: Option<Slice>) -> SlicedBody {
        let mut sliced = SlicedBody {
            stage: SliceStage::Fetch(fetch(&source, span.start)),
            source,
            at: span.start,
            end: span.end,
            new_body: None,
        };
        if let Some(first) = first {
            sliced.begin(first);
        }
        sliced
    }

    pub(super) fn remaining(&self) -> u64 {
        self.end - self.at
    }

    pub(super) fn new_body(&mut self) -> Option<Arc<SharedBody>> {
        self.new_body.take()
    }

    /// The end of the current slice's part of the body.
    fn end_here(&self) -> u64 {
        self.source.span(self.at).end.min(self.end)
    }

    fn begin(&mut self, mut slice: Slice) {
        if let Slice::Growing(follower) = &mut slice {
            let start = self.source.span(self.at).start;
            follower.set_range(self.at - start, self.end_here() - start);
        }
        self.new_body = match &mut slice {
            Slice::Stored(object) => object.shared_body().cloned(),
            Slice::Growing(follower) => follower.take_new_body(),
        };
        self.stage = SliceStage::Read(slice);
    }

    pub(super) fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyTruncated>>> {
        while self.at < self.end {
            let end = self.end_here();
            let bytes = match &mut self.stage {
                SliceStage::Fetch(fetch) => match ready!(fetch.as_mut().poll(cx)) {
                    Ok(slice) => {
                        self.begin(slice);
                        continue;
                    }
                    Err(cut) => Err(cut),
                },
                SliceStage::Read(Slice::Stored(object)) => {
                    let start = self.source.span(self.at).start;
                    let within = ByteSpan {
                        start: self.at - start,
                        end: end - start,
                    };
                    Ok(bytes_of(&object.body, within))
                }
                // The stream ends too early: a complete slice ends with the last byte, before this
                // is polled again.
                SliceStage::Read(Slice::Growing(follower)) => {
                    ready!(follower.poll_bytes(cx)).unwrap_or(Err(BodyTruncated::Origin))
                }
            };
            return Poll::Ready(Some(match bytes {
                Ok(bytes) => {
                    self.at += bytes.len() as u64;
                    if self.at == end && self.at < self.end {
                        self.stage = SliceStage::Fetch(fetch(&self.source, self.at));
                    }
                    Ok(bytes)
                }
                Err(cut) => {
                    self.end = self.at;
                    Err(cut)
                }
            }));
        }
        Poll::Ready(None)
    }
}

fn fetch(source: &Arc<SliceContext>, offset: u64) -> SliceFetch {
    let source = Arc::clone(source);
    Box::pin(async move { source.slice(offset).await })
}

impl SliceContext {
    /// At most half the object limit: a slice is stored like any object, with others beside it.
    fn size(&self) -> u64 {
        let room = self.shield.cache.object_bytes_max(self.lookup.kind);
        self.shield.settings.slice_bytes.min(room / 2).max(1)
    }

    /// The slice that contains `offset`.
    fn span(&self, offset: u64) -> ByteSpan {
        let size = self.size();
        let start = offset / size * size;
        ByteSpan {
            start,
            end: (start + size).min(self.slice_set.length),
        }
    }

    fn key(&self, span: ByteSpan) -> Key {
        Key::of(&[
            b"slice",
            self.lookup.slot.bytes(),
            self.slice_set.etag.as_bytes(),
            &self.slice_set.length.to_be_bytes(),
            &span.start.to_be_bytes(),
            &span.end.to_be_bytes(),
        ])
    }

    /// Every slice of the span is stored.
    fn has_stored(&self, span: ByteSpan) -> bool {
        let size = self.size();
        let slices = (span.end.saturating_sub(1) / size + 1).saturating_sub(span.start / size);
        let starts = (0..slices).map(|number| span.start / size * size + number * size);
        let now = Instant::now();
        let is_stored = |start| {
            let key = self.key(self.span(start));
            let kind = self.lookup.kind;
            let lookup = self.shield.cache.lookup(&key, kind, now, HeaderMap::new);
            lookup.object.is_some()
        };
        slices <= STORED_LOOKED_UP_MAX && starts.into_iter().all(is_stored)
    }

    async fn slice(self: &Arc<Self>, offset: u64) -> Result<Slice, BodyTruncated> {
        self.slice_with_permit(offset, None).await
    }

    /// The fill holds the permit until its end, even if nobody follows it any more.
    async fn slice_with_permit(
        self: &Arc<Self>,
        offset: u64,
        mut permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Slice, BodyTruncated> {
        let span = self.span(offset);
        let key = self.key(span);
        let cache = &self.shield.cache;
        for _ in 0..LOOKUPS_MAX {
            let kind = self.lookup.kind;
            let lookup = cache.lookup(&key, kind, Instant::now(), HeaderMap::new);
            if let Some(object) = lookup.object {
                return Ok(Slice::Stored(object));
            }
            let mut follower = match cache.join(&lookup, &self.upstream_headers) {
                JoinOutcome::Stored(object) => return Ok(Slice::Stored(object)),
                JoinOutcome::Retry => continue,
                JoinOutcome::Crowded => return Err(BodyTruncated::Origin),
                JoinOutcome::Follow(follower) => follower,
                JoinOutcome::Lead(fill, follower) => {
                    let (filling, permit) = (Arc::clone(self).fill(fill, span), permit.take());
                    tokio::spawn(async move {
                        filling.await;
                        drop(permit);
                    });
                    follower
                }
            };
            let wait_max = self.shield.settings.wait_max;
            return match timeout(wait_max, follower.wait_for_head()).await {
                Ok(FillHead::Growing(_)) => Ok(Slice::Growing(follower)),
                Ok(FillHead::Settled(Verdict::Object(object))) => Ok(Slice::Stored(object)),
                _ => Err(BodyTruncated::Origin),
            };
        }
        Err(BodyTruncated::Origin)
    }

    /// The fill of one slice. Followers get each chunk as it arrives.
    async fn fill(self: Arc<Self>, fill: Fill, span: ByteSpan) {
        fill.set_epoch(&self.epoch_token());
        if let Some(body) = self.given_slice(&fill, span).await {
            fill.begin(Arc::new(self.slice_head(span)));
            return match fill.push(body).await {
                FillControl::Continue => fill.finish().await,
                FillControl::Stop => fill.cut(),
            };
        }
        let client_fetch = self.shield.clients.begin_fetch(self.client);
        let fetched = tokio::select! {
            fetched = self.fetch(&fill, span) => fetched,
            () = client_fetch.wait_until_abandoned(&fill, true) => return fill.cut(),
        };
        let response = match fetched {
            Ok(response) => response,
            Err(error) => {
                self.record_error(error);
                return fill.settle(Verdict::Lost);
            }
        };
        let (mut upstream_body, mut race) =
            (response.body, fetch::begin_race(span, response.endpoint));
        fill.begin(Arc::new(self.slice_head(span)));
        let body = SliceBody {
            source: &self,
            fill: &fill,
            span,
        };
        loop {
            let abandoned = client_fetch.wait_until_abandoned(&fill, true);
            let bytes = match race.next(&mut upstream_body, &body, abandoned).await {
                BodyEvent::Abandoned => return fill.cut(),
                BodyEvent::Received(None) => break,
                BodyEvent::Received(Some(Err(_))) => {
                    self.avoid_endpoint(race.endpoint());
                    return fill.cut();
                }
                BodyEvent::Received(Some(Ok(bytes))) => bytes,
                BodyEvent::TakenOver(other) => {
                    let until = Instant::now() + AVOIDED;
                    self.failed_endpoints.lock().avoid(race.endpoint(), until);
                    race.move_to(other.endpoint);
                    std::mem::replace(&mut upstream_body, other.body).fail_overtaken();
                    continue;
                }
            };
            if race.received() > span.length() {
                return fill.cut();
            }
            let began = Instant::now();
            if upstream_body.wait_for_viewer(fill.push(bytes)).await != Some(FillControl::Continue)
            {
                return fill.cut();
            }
            race.pause(began.elapsed());
        }
        if race.received() == span.length() {
            fill.finish().await;
        } else {
            fill.cut();
        }
    }

    /// Stores what a missing slice shows about the object.
    fn record_error(&self, error: SliceError) {
        let cache = &self.shield.cache;
        match error {
            SliceError::Failed => {}
            // Stored slices stay: another endpoint may still have this object.
            SliceError::Changed => cache.erase_memo(&self.lookup),
            SliceError::RangesIgnored => cache.write_memo(
                &self.lookup,
                ExpiringMemo {
                    until: Instant::now() + UNSLICEABLE_MEMORY,
                    memo: KeyMemo::Unsliceable,
                },
            ),
        }
    }

    fn epoch_token(&self) -> EpochToken {
        let epoch_token = self.slice_set.head.epoch_token.clone().unwrap_or_default();
        epoch_token.of_slice(&self.slice_set.epoch_token)
    }

    fn slice_head(&self, span: ByteSpan) -> StoredHead {
        StoredHead {
            headers: FieldLines::default(),
            targeted: None,
            epoch_token: Some(self.epoch_token()),
            length: Some(span.length()),
            lifetime: Lifetime {
                fresh_for: SLICE_KEPT,
                ..Lifetime::none(Instant::now())
            },
            ..self.slice_set.head.clone()
        }
    }
}
