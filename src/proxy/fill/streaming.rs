//! Sends a response to all followers chunk by chunk, stores it, and hands objects too large for one
//! fetch to slices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::FillTask;
use super::delivery::{self, Delivery};
use super::empty::has_bytes;
use crate::live::Availability;
use crate::proxy::race::{AVOIDED, BodyEvent, ExpectedBody};
use seawall_cache::{ExpiringMemo, FillControl, KeyMemo, SliceSet, Verdict};
use seawall_manifest::Kind;
use seawall_policy::lifetime::UncacheableReason;
use seawall_policy::vary::Vary;
use seawall_policy::{EndpointAvoidance, Lifetime, Now};
use seawall_upstream::{Failure, Framing, UpstreamBody, UpstreamResponse};

/// A key whose object is too large for one fetch is remembered for at most this time.
const LARGE_MEMORY_MAX: Duration = Duration::from_hours(1);

/// The first chunks of a body, before viewers have any.
#[derive(Default)]
struct HeldBack {
    pieces: Vec<Bytes>,
    /// The event after these chunks, if it has happened already.
    end: Option<BodyEvent>,
}

impl FillTask {
    /// Sends each chunk to all followers as it arrives, and stores the complete object.
    pub(super) async fn stream(mut self, reply: UpstreamResponse, kind: Kind, lifetime: Lifetime) {
        if let Framing::Length(length) = reply.framing {
            let settings = &self.shield.settings;
            let place = self.fill.lookup().kind;
            let whole_max = self.shield.cache.object_bytes_max(place);
            if length > settings.whole_fetch_max.min(whole_max)
                && let Some(etag) = self.sliceable(&reply, &lifetime)
            {
                return self.slice(reply, kind, lifetime, length, etag);
            }
            if !self.fill.fits(length) {
                return self.pass(reply, UncacheableReason::TooLarge);
            }
        }
        let has_bytes = has_bytes(kind, reply.status);
        if has_bytes && reply.framing == Framing::Length(0) {
            return self.empty(reply.endpoint).await;
        }
        let has_others = self.origin().has_others();
        let expected = self.expected(kind, delivery::length(reply.framing));
        let left = self.left.clone();
        let mut delivery = Delivery::new(&reply, left, has_others, expected);
        let mut upstream_body = reply.body;
        let is_doubtful = has_bytes && delivery.progress.length.is_none();
        let mut held = if delivery.race.may_move() || is_doubtful {
            self.hold(&mut upstream_body, &mut delivery).await
        } else {
            HeldBack::default()
        };
        match held.end.take() {
            Some(BodyEvent::Deserted) => return self.fill.cut(),
            Some(BodyEvent::Received(Some(Err(failure)))) => return self.failed(failure),
            Some(BodyEvent::Received(None)) if has_bytes && held.pieces.is_empty() => {
                return self.empty(delivery.race.endpoint()).await;
            }
            Some(BodyEvent::TakenOver(other)) => {
                upstream_body.fail_overtaken();
                self.left = delivery.race.left();
                return Box::pin(self.handle_response(other)).await;
            }
            end => held.end = end,
        }
        self.fill.set_vary(self.vary(&reply.headers));
        let mut head = self.head(reply.status, reply.headers, kind, lifetime, true);
        head.length = delivery.progress.length;
        let length = head.length.unwrap_or_default();
        head.will_be_stored = self.fill.will_have_room(&head, length);
        self.fill.begin(Arc::new(head));
        delivery.show();
        self.send_body(upstream_body, delivery, held).await;
    }

    /// Collects the first chunks until the body is fast enough: another endpoint can replace the
    /// response only until viewers have its head.
    async fn hold(&self, upstream_body: &mut UpstreamBody, delivery: &mut Delivery) -> HeldBack {
        let mut held = HeldBack::default();
        loop {
            match self.next_chunk(upstream_body, delivery).await {
                BodyEvent::Received(Some(Ok(bytes))) => held.pieces.push(bytes),
                end => {
                    held.end = Some(end);
                    return held;
                }
            }
            if !delivery.is_held() {
                return held;
            }
        }
    }

    /// Sends the body on, from this endpoint or from one that takes over.
    async fn send_body(
        self,
        mut upstream_body: UpstreamBody,
        mut delivery: Delivery,
        held: HeldBack,
    ) {
        for bytes in held.pieces {
            if !self.send_chunk(bytes, &upstream_body, &mut delivery).await {
                return self.fill.cut();
            }
        }
        let mut end = held.end;
        loop {
            let piece = match end.take() {
                Some(end) => end,
                None => self.next_chunk(&mut upstream_body, &mut delivery).await,
            };
            let endpoint = delivery.race.endpoint();
            match piece {
                BodyEvent::Deserted => return self.fill.cut(),
                BodyEvent::Received(None) if delivery.is_whole() => {
                    return self.fill.finish().await;
                }
                BodyEvent::Received(None) => return self.broke_off(Failure::Truncated, endpoint),
                BodyEvent::Received(Some(Err(failure))) => {
                    return self.broke_off(failure, endpoint);
                }
                BodyEvent::Received(Some(Ok(bytes))) => {
                    if delivery.is_too_long() {
                        return self.broke_off(Failure::Truncated, endpoint);
                    }
                    if !self.send_chunk(bytes, &upstream_body, &mut delivery).await {
                        return self.fill.cut();
                    }
                }
                BodyEvent::TakenOver(other) => {
                    delivery.move_to(&other);
                    std::mem::replace(&mut upstream_body, other.body).fail_overtaken();
                }
            }
        }
    }

    /// Sends a chunk to all followers; false when no follower is left.
    async fn send_chunk(
        &self,
        bytes: Bytes,
        upstream_body: &UpstreamBody,
        delivery: &mut Delivery,
    ) -> bool {
        let began = Instant::now();
        let pushed = upstream_body.wait_for_viewer(self.fill.push(bytes)).await;
        delivery.race.pause(began.elapsed());
        pushed == Some(FillControl::Continue)
    }

    /// What is known of a body before it arrives, and whether every endpoint that has it has all of
    /// it.
    fn expected(&self, kind: Kind, length: Option<u64>) -> (ExpectedBody, bool) {
        let listing = self.shield.live.trackers_listing(&self.entry);
        let mut listed = listing.iter().filter_map(|tracker| {
            let (duration, is_segment) = tracker.listed_for(&self.entry)?;
            // An MPD may list a segment that is still being produced; a playlist lists only
            // complete segments.
            Some((duration, is_segment && tracker.request.kind == Kind::Hls))
        });
        let listed = listed.next();
        let is_small = matches!(kind, Kind::Init | Kind::Key);
        let duration = match listed {
            _ if is_small => Some(Duration::ZERO),
            Some((duration, _)) => Some(duration),
            // An object that no manifest lists is a segment only if an MPD predicts it.
            None => match self.availability() {
                Some(
                    Availability::DueIn(_, tracker) | Availability::AvailableSince(_, tracker),
                ) => Some(tracker.segment_duration()),
                Some(Availability::Listed(_)) | None => None,
            },
        };
        let end_is_known = is_small || listed.is_some_and(|(_, whole)| whole);
        let is_complete = || self.shield.live.is_complete(&self.entry, Now::read());
        let expected = ExpectedBody {
            length,
            duration: duration.filter(|duration| is_small || !duration.is_zero()),
            is_complete: length.is_some() || end_is_known || is_complete(),
        };
        (expected, end_is_known)
    }

    /// Slices need ranges, a strong validator to tie them together, and a lifetime. Variants are
    /// never sliced, nor is an object whose slicing failed a moment ago.
    fn sliceable(&self, reply: &UpstreamResponse, lifetime: &Lifetime) -> Option<HeaderValue> {
        let now = Instant::now();
        let lookup = self.fill.lookup();
        let known = self.shield.cache.memo(&lookup.slot, now);
        let ranges = reply.headers.get(header::ACCEPT_RANGES)?;
        let etag = reply.headers.get(header::ETAG)?;
        let sliceable = ranges == "bytes"
            && etag.as_bytes().starts_with(b"\"")
            && reply.status == StatusCode::OK
            && Vary::of(&reply.headers) == Vary::Nothing
            && !lookup.has_variants()
            && !lifetime.fresh_left(now).is_zero()
            && !matches!(known, Some(KeyMemo::Unsliceable));
        // A copy: the value is kept for long, and must not keep the response's read buffer alive.
        let etag = HeaderValue::from_bytes(etag.as_bytes()).ok()?;
        sliceable.then_some(etag)
    }

    /// Cancels this fetch of a large object; slices replace it.
    fn slice(
        self,
        reply: UpstreamResponse,
        kind: Kind,
        lifetime: Lifetime,
        length: u64,
        etag: HeaderValue,
    ) {
        let now = Instant::now();
        let memory = lifetime.fresh_left(now).min(LARGE_MEMORY_MAX);
        let mut head = self.head(reply.status, reply.headers, kind, lifetime, true);
        head.length = Some(length);
        let slice_set = SliceSet {
            head,
            length,
            etag,
            epoch_token: self.shield.cache.bind_slices(&self.fill.lookup().key),
            avoided: EndpointAvoidance::of(
                self.left_before(now).unwrap_or_default(),
                now + AVOIDED,
            ),
        };
        self.fill.remove_previous();
        self.fill.write_memo(ExpiringMemo {
            until: now + memory,
            what: KeyMemo::Sliced(Arc::new(slice_set)),
        });
        self.fill.settle(Verdict::Sliced);
    }
}
