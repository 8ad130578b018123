//! Sends a response to all followers chunk by chunk, stores it, and hands objects too large for one
//! fetch to slices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::FillTask;
use super::delivery::{self, BodyForecast, Delivery};
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

/// An object that a manifest lists.
struct ListedBody {
    duration: Duration,
    is_whole_segment: bool,
}

/// The first chunks of a body, before viewers have any.
#[derive(Default)]
struct BufferedChunks {
    pieces: Vec<Bytes>,
    /// The event after these chunks, if it has happened already.
    end: Option<BodyEvent>,
}

impl FillTask {
    /// Sends each chunk to all followers as it arrives, and stores the complete object.
    pub(super) async fn stream_response(
        mut self,
        response: UpstreamResponse,
        kind: Kind,
        lifetime: Lifetime,
    ) {
        if let Framing::Length(length) = response.framing {
            if self.is_sliced(length)
                && let Some(etag) = self.slice_etag(&response, &lifetime)
            {
                return self.hand_to_slices(response, kind, lifetime, length, etag);
            }
            if !self.fill.fits(length) {
                return self.pass_to_leader(response, UncacheableReason::TooLarge);
            }
        }
        let has_bytes = has_bytes(kind, response.status);
        if has_bytes && response.framing == Framing::Length(0) {
            return Box::pin(self.handle_empty_body(response.endpoint)).await;
        }
        let has_others = self.origin().has_several_endpoints();
        let forecast = self.forecast_body(kind, delivery::length(response.framing));
        let failed_endpoints = self.failed_endpoints.clone();
        let mut delivery = Delivery::new(&response, failed_endpoints, has_others, forecast);
        let mut upstream_body = response.body;
        let is_doubtful = has_bytes && delivery.progress.length.is_none();
        let mut buffered = if delivery.race.may_take_over() || is_doubtful {
            self.buffer_first_chunks(&mut upstream_body, &mut delivery)
                .await
        } else {
            BufferedChunks::default()
        };
        match buffered.end.take() {
            Some(BodyEvent::Abandoned) => return self.fill.cut(),
            Some(BodyEvent::Received(Some(Err(failure)))) => return self.handle_failure(failure),
            Some(BodyEvent::Received(None)) if has_bytes && buffered.pieces.is_empty() => {
                return Box::pin(self.handle_empty_body(delivery.race.endpoint())).await;
            }
            Some(BodyEvent::TakenOver(mut other)) => {
                self.apply_route(&mut other);
                upstream_body.fail_overtaken();
                self.failed_endpoints = delivery.race.used_endpoints();
                return Box::pin(self.handle_response(other)).await;
            }
            end => buffered.end = end,
        }
        self.fill.set_vary(self.vary(&response.headers));
        let mut head = self.head(response.status, response.headers, kind, lifetime, true);
        head.length = delivery.progress.length;
        let length = head.length.unwrap_or_default();
        head.will_be_stored = self.fill.will_have_room(&head, length);
        self.fill.begin(Arc::new(head));
        delivery.mark_sent_to_viewers();
        self.send_body(upstream_body, delivery, buffered).await;
    }

    /// Collects the first chunks until the body is fast enough: another endpoint can replace the
    /// response only until viewers have its head.
    async fn buffer_first_chunks(
        &self,
        upstream_body: &mut UpstreamBody,
        delivery: &mut Delivery,
    ) -> BufferedChunks {
        let mut buffered = BufferedChunks::default();
        loop {
            match self.next_chunk(upstream_body, delivery).await {
                BodyEvent::Received(Some(Ok(bytes))) => buffered.pieces.push(bytes),
                end => {
                    buffered.end = Some(end);
                    return buffered;
                }
            }
            if !delivery.is_buffered() {
                return buffered;
            }
        }
    }

    /// Sends the body on, from this endpoint or from one that takes over.
    async fn send_body(
        self,
        mut upstream_body: UpstreamBody,
        mut delivery: Delivery,
        buffered: BufferedChunks,
    ) {
        for bytes in buffered.pieces {
            if !self.send_chunk(bytes, &upstream_body, &mut delivery).await {
                return self.fill.cut();
            }
        }
        let mut end = buffered.end;
        loop {
            let event = match end.take() {
                Some(end) => end,
                None => self.next_chunk(&mut upstream_body, &mut delivery).await,
            };
            let endpoint = delivery.race.endpoint();
            match event {
                BodyEvent::Abandoned => return self.fill.cut(),
                BodyEvent::Received(None) if delivery.is_whole() => {
                    return self.fill.finish().await;
                }
                BodyEvent::Received(None) => {
                    return self.handle_truncation(Failure::Truncated, endpoint);
                }
                BodyEvent::Received(Some(Err(failure))) => {
                    return self.handle_truncation(failure, endpoint);
                }
                BodyEvent::Received(Some(Ok(bytes))) => {
                    if delivery.is_too_long() {
                        return self.handle_truncation(Failure::Truncated, endpoint);
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

    /// What is known of a body before it arrives.
    fn forecast_body(&self, kind: Kind, length: Option<u64>) -> BodyForecast {
        let is_small = matches!(kind, Kind::Init | Kind::DecryptionKey);
        let listed = self.listed_body();
        let duration = if is_small {
            Some(Duration::ZERO)
        } else {
            let listed_duration = listed.as_ref().map(|listed| listed.duration);
            let duration = listed_duration.or_else(|| self.predicted_duration());
            duration.filter(|duration| !duration.is_zero())
        };
        let end_is_known =
            length.is_some() || is_small || listed.is_some_and(|listed| listed.is_whole_segment);
        let is_complete = || {
            let (live, rules) = (&self.shield.live, &self.shield.rules);
            live.is_complete(rules, &self.request, Now::read())
        };
        BodyForecast {
            expected: ExpectedBody {
                length,
                duration,
                is_complete: end_is_known || is_complete(),
            },
            end_is_known,
        }
    }

    /// What a manifest beside the object says of it. `None`: no manifest lists it.
    fn listed_body(&self) -> Option<ListedBody> {
        let trackers = self.shield.live.trackers_beside(&self.request);
        trackers.iter().find_map(|tracker| {
            let listed = tracker.listed_object(&self.request)?;
            Some(ListedBody {
                duration: listed.duration,
                // An MPD may list a segment that is still being produced; a playlist lists only
                // complete segments.
                is_whole_segment: listed.is_segment && tracker.request.kind == Kind::Hls,
            })
        })
    }

    /// The duration of an object that no manifest lists. It is a segment only if an MPD predicts
    /// it.
    fn predicted_duration(&self) -> Option<Duration> {
        match self.availability()? {
            Availability::DueIn(_, tracker) | Availability::AvailableSince(_, tracker) => {
                Some(tracker.segment_duration())
            }
            Availability::NextVersionIn(_) => None,
        }
    }

    /// Whether an object of this length is too large for one fetch.
    pub(super) fn is_sliced(&self, length: u64) -> bool {
        let whole_max = self.shield.cache.object_bytes_max(self.fill.lookup().kind);
        length > self.shield.settings.whole_fetch_max.min(whole_max)
    }

    /// Slices need ranges, a strong validator to tie them together, and a lifetime. Variants are
    /// never sliced, nor is an object whose slicing failed a moment ago.
    pub(super) fn slice_etag(
        &self,
        response: &UpstreamResponse,
        lifetime: &Lifetime,
    ) -> Option<HeaderValue> {
        let now = Instant::now();
        let lookup = self.fill.lookup();
        let memo = self.shield.cache.memo(&lookup.slot, now);
        let ranges = response.headers.get(header::ACCEPT_RANGES)?;
        let etag = response.headers.get(header::ETAG)?;
        let sliceable = ranges == "bytes"
            && etag.as_bytes().starts_with(b"\"")
            && response.status == StatusCode::OK
            && Vary::of(&response.headers) == Vary::Nothing
            && !lookup.has_variants()
            && !lifetime.fresh_remaining(now).is_zero()
            && !matches!(memo, Some(KeyMemo::Unsliceable));
        // A copy: the value is kept for long, and must not keep the response's read buffer alive.
        let etag = HeaderValue::from_bytes(etag.as_bytes()).ok()?;
        sliceable.then_some(etag)
    }

    /// Cancels this fetch of a large object; slices replace it.
    pub(super) fn hand_to_slices(
        self,
        response: UpstreamResponse,
        kind: Kind,
        lifetime: Lifetime,
        length: u64,
        etag: HeaderValue,
    ) {
        let now = Instant::now();
        let memory = lifetime.fresh_remaining(now).min(LARGE_MEMORY_MAX);
        let mut head = self.head(response.status, response.headers, kind, lifetime, true);
        head.length = Some(length);
        let slice_set = SliceSet {
            head,
            length,
            etag,
            epoch_token: self.shield.cache.bind_slices(&self.fill.lookup().key),
            avoided: EndpointAvoidance::of(
                self.failed_before(now).unwrap_or_default(),
                now + AVOIDED,
            ),
        };
        self.fill.remove_previous();
        self.fill.write_memo(ExpiringMemo {
            until: now + memory,
            memo: KeyMemo::Sliced(Arc::new(slice_set)),
        });
        self.fill.settle(Verdict::Sliced);
    }
}
