//! Fetches one object ahead of viewers, because an operator wants it stored: at the priority of
//! prefetches, and only while the origin, the memory of fills and a limit have room. What a
//! manifest names is listed for the caller, who decides what to fetch next.
//!
//! While no endpoint of the origin may get prefetches, it sends no request but the probes that the
//! guards of the endpoints allow, and says after a moment which endpoint is out.

mod listing;
mod unstored;

use std::fmt::Write;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout_at};

use super::Shield;
use super::fill::FillTrigger;
use super::pass_through_response::PassThroughResponse;
use crate::live::{PrefetchSource, PrefetchedObject};
use listing::{ListOutcome, ManifestBody};
use seawall_cache::{FillHead, Follower, KeyMemo, Object, StoredHead, Verdict};
use seawall_manifest::Kind;
use seawall_policy::access::{AccessRejection, Admission, CacheRequest};
use seawall_policy::encoding::is_requested_uncoded;
use seawall_policy::freshness::{Freshness, freshness};
use seawall_upstream::{Priority, UpstreamRequest};

pub use listing::{ListedObjects, WarmBatch, WarmTarget};

/// How often it looks whether there is room for a fetch.
pub(super) const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// How often it looks whether an endpoint that is out is due for a probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// How long it waits for an endpoint before it says that all are out. The caller asks again.
const OUTAGE_WAIT: Duration = Duration::from_secs(2);

/// What became of one object.
#[derive(Clone, Debug)]
pub struct WarmedObject {
    /// Whether it is stored now.
    pub outcome: WarmOutcome,
    /// Its kind.
    pub kind: Kind,
    /// The status of the response, if there is one.
    pub status: Option<StatusCode>,
    /// The length of its body, as far as it is stored or was fetched.
    pub bytes: u64,
    /// How much of it was requested from the origin now.
    pub received: u64,
    /// Why it failed, or what it waits for, where the outcome does not say it.
    pub reason: Option<String>,
    /// What it names, if it is a manifest.
    pub listed: ListedObjects,
}

/// How a warm fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmOutcome {
    /// It was stored already, and may be served without a request to the origin.
    Held,
    /// It was fetched and stored.
    Fetched,
    /// It was fetched and may not be stored.
    Uncacheable,
    /// The origin failed, or does not have it.
    Failed,
    /// There was no room for the fetch in time, or it has not ended yet.
    Busy,
    /// No endpoint of the origin may get it.
    Unavailable,
}

impl WarmOutcome {
    /// Its name in the answer.
    pub fn as_str(self) -> &'static str {
        match self {
            WarmOutcome::Held => "held",
            WarmOutcome::Fetched => "fetched",
            WarmOutcome::Uncacheable => "uncacheable",
            WarmOutcome::Failed => "failed",
            WarmOutcome::Busy => "busy",
            WarmOutcome::Unavailable => "unavailable",
        }
    }
}

impl WarmedObject {
    /// It may be the origin's fault that the object is not stored.
    fn may_be_an_outage(&self) -> bool {
        match self.outcome {
            WarmOutcome::Failed => self.status.is_none_or(|status| status.is_server_error()),
            WarmOutcome::Busy => true,
            _ => false,
        }
    }
}

/// One step towards the object.
enum WarmStep {
    Done(WarmedObject),
    /// Look again after a moment.
    Wait,
}

impl Shield {
    /// Sees to it that the object of a URL is stored, until the deadline of the batch.
    ///
    /// # Errors
    ///
    /// Why no route serves the URL.
    pub async fn warm(
        self: &Arc<Self>,
        url: &Uri,
        batch: &WarmBatch,
    ) -> Result<WarmedObject, &'static str> {
        let request = self.request_to_warm(url)?;
        let mut headers = HeaderMap::new();
        if !is_requested_uncoded(request.kind, request.target.path()) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let (mut received, mut outage_until) = (0, None);
        loop {
            let warmed = match self.warm_step(&request, &headers, batch).await {
                WarmStep::Done(warmed) => Some(warmed),
                WarmStep::Wait => None,
            };
            received += warmed.as_ref().map_or(0, |warmed| warmed.received);
            let is_done = |warmed: &WarmedObject| !warmed.may_be_an_outage();
            let outage = (!warmed.as_ref().is_some_and(is_done))
                .then(|| self.outage(&request))
                .flatten();
            let now = Instant::now();
            let (until, interval) = match (&outage, warmed) {
                (None, Some(warmed)) => return Ok(WarmedObject { received, ..warmed }),
                (None, None) => {
                    outage_until = None;
                    (batch.deadline, ROOM_INTERVAL)
                }
                (Some(_), _) => {
                    self.probe(&request, &headers);
                    let until = *outage_until.get_or_insert(now + OUTAGE_WAIT);
                    (until.min(batch.deadline), PROBE_INTERVAL)
                }
            };
            if now + interval >= until {
                let outcome = outage
                    .as_ref()
                    .map_or(WarmOutcome::Busy, |_| WarmOutcome::Unavailable);
                return Ok(WarmedObject {
                    received,
                    reason: outage,
                    ..ended(&request, outcome)
                });
            }
            sleep(interval).await;
        }
    }

    fn request_to_warm(&self, url: &Uri) -> Result<CacheRequest, &'static str> {
        match self.admit_url(url) {
            Admission::Cache(request) => Ok(request),
            Admission::Reject(rejection) => Err(rejection.why),
            Admission::Redirect(..) => Err(AccessRejection::redirected().why),
            // Only other methods lead here.
            Admission::Pass(_) | Admission::Preflight(_) => Err(AccessRejection::not_served().why),
        }
    }

    /// Why no endpoint of the request's origin may get prefetches.
    pub(super) fn outage(&self, request: &CacheRequest) -> Option<String> {
        let origin = self.origin_of(&request.route);
        let mut text = format!("origin \"{}\":", origin.name());
        for (number, outage) in origin.outage()?.into_iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let _ = write!(text, "{comma} {} is {}", outage.endpoint, outage.reason);
        }
        Some(text)
    }

    /// Probes endpoints that are due for it.
    fn probe(&self, request: &CacheRequest, headers: &HeaderMap) {
        let upstream_request = self.unstored_request(request, headers);
        self.origin_of(&request.route)
            .probe_in_background(upstream_request);
    }

    /// A request for what is not stored.
    fn unstored_request(&self, request: &CacheRequest, headers: &HeaderMap) -> UpstreamRequest {
        UpstreamRequest {
            class: self.live.kind_of(request).into(),
            ..UpstreamRequest::get(
                request.target.clone(),
                request.sent_host().cloned(),
                self.upstream_headers_for(headers, request),
                Priority::Prefetch,
            )
        }
    }

    async fn warm_step(
        self: &Arc<Self>,
        request: &CacheRequest,
        headers: &HeaderMap,
        batch: &WarmBatch,
    ) -> WarmStep {
        let now = Instant::now();
        let upstream_headers = || self.upstream_headers_for(headers, request);
        let lookup = self
            .cache
            .lookup(&request.key, request.kind, now, upstream_headers);
        if let Some(object) = &lookup.object
            && freshness(&object.head.lifetime, now) == Freshness::Fresh
        {
            let held = self.held(request, object, WarmOutcome::Held, batch);
            return WarmStep::Done(held.await);
        }
        match self.memo_for(&lookup, headers, request, now) {
            Some(KeyMemo::Failed(error_object)) => {
                return WarmStep::Done(failed(request, &error_object.head));
            }
            Some(KeyMemo::Pass) => return self.warm_unstored(request, headers, batch).await,
            Some(KeyMemo::Sliced(slice_set)) => {
                let warmed = self.warm_slices(request, &lookup, slice_set, headers, batch);
                let warmed = warmed.await;
                return WarmStep::Done(WarmedObject {
                    bytes: warmed.stored,
                    received: warmed.received,
                    ..ended(request, warmed.outcome)
                });
            }
            _ => {}
        }
        let Some(permit) =
            self.prefetch_permit(request, PrefetchedObject::Exists, PrefetchSource::Warm)
        else {
            return WarmStep::Wait;
        };
        let Some(fill) = self.cache.lead(&lookup, upstream_headers) else {
            return WarmStep::Wait;
        };
        let limits = &self.live.prefetch_limits;
        let prefetch = limits.begin(permit, PrefetchSource::Warm, now);
        let follower = fill.follower();
        let (pass_sender, passed) = oneshot::channel();
        self.spawn_fill(
            request,
            fill,
            FillTrigger::Prefetch(prefetch, Some(pass_sender)),
        );
        self.follow_warm(request, follower, passed, batch).await
    }

    async fn follow_warm(
        &self,
        request: &CacheRequest,
        mut follower: Follower,
        mut passed: oneshot::Receiver<PassThroughResponse>,
        batch: &WarmBatch,
    ) -> WarmStep {
        let deadline = batch.deadline;
        let head = timeout_at(deadline.into(), follower.wait_for_head()).await;
        let verdict = match head {
            Err(_) => return WarmStep::Done(ended(request, WarmOutcome::Busy)),
            Ok(FillHead::Settled(verdict)) => verdict,
            Ok(FillHead::Growing(head)) => {
                let mut bytes = 0;
                let read = read_to_end(&mut follower, &mut bytes);
                let outcome = match timeout_at(deadline.into(), read).await {
                    // It goes on, and is counted now: no later step fetches it.
                    Err(_) => {
                        bytes = head.length.unwrap_or(bytes);
                        WarmOutcome::Busy
                    }
                    Ok(false) => WarmOutcome::Failed,
                    Ok(true) if head.will_be_stored => WarmOutcome::Fetched,
                    Ok(true) => WarmOutcome::Uncacheable,
                };
                return WarmStep::Done(WarmedObject {
                    status: Some(head.status),
                    bytes,
                    received: bytes,
                    ..ended(request, outcome)
                });
            }
        };
        match verdict {
            Verdict::Object(object) | Verdict::Revalidated(object) => {
                let outcome = if object.head.will_be_stored {
                    WarmOutcome::Fetched
                } else {
                    WarmOutcome::Uncacheable
                };
                let held = self.held(request, &object, outcome, batch).await;
                WarmStep::Done(WarmedObject {
                    received: held.bytes,
                    ..held
                })
            }
            Verdict::Failed(object) | Verdict::Exhausted(object) | Verdict::Refused(object) => {
                WarmStep::Done(failed(request, &object.head))
            }
            Verdict::Pass => WarmStep::Done(match passed.try_recv() {
                Ok(passed) => self.warm_passed(request, passed, batch).await,
                Err(_) => ended(request, WarmOutcome::Uncacheable),
            }),
            // Its memo says how to fetch it, or it is revalidated next.
            Verdict::Sliced | Verdict::StoredStale => WarmStep::Wait,
            Verdict::Lost => WarmStep::Done(ended(request, WarmOutcome::Failed)),
        }
    }

    /// An object that is in memory, with what it names.
    async fn held(
        &self,
        request: &CacheRequest,
        object: &Arc<Object>,
        outcome: WarmOutcome,
        batch: &WarmBatch,
    ) -> WarmedObject {
        let head = &object.head;
        let held = WarmedObject {
            kind: head.kind,
            status: Some(head.status),
            bytes: object.body.len() as u64,
            ..ended(request, outcome)
        };
        if head.status != StatusCode::OK {
            return WarmedObject {
                outcome: WarmOutcome::Failed,
                ..held
            };
        }
        if !head.kind.is_manifest() {
            return held;
        }
        let manifest = ManifestBody {
            kind: head.kind,
            headers: head.headers.to_map(),
            body: object.body.clone(),
        };
        self.with_names(request, held, manifest, batch).await
    }

    /// The same, with what its body names.
    async fn with_names(
        &self,
        request: &CacheRequest,
        warmed: WarmedObject,
        manifest: ManifestBody,
        batch: &WarmBatch,
    ) -> WarmedObject {
        match self.list(request, manifest, batch).await {
            ListOutcome::Listed(listed) => WarmedObject { listed, ..warmed },
            ListOutcome::Unreadable => WarmedObject {
                outcome: WarmOutcome::Failed,
                reason: Some("cannot be decoded: what it names is not known".to_owned()),
                ..warmed
            },
            ListOutcome::Busy => WarmedObject {
                outcome: WarmOutcome::Busy,
                ..warmed
            },
        }
    }
}

/// An outcome without a response.
fn ended(request: &CacheRequest, outcome: WarmOutcome) -> WarmedObject {
    WarmedObject {
        outcome,
        kind: request.kind,
        status: None,
        bytes: 0,
        received: 0,
        reason: None,
        listed: ListedObjects::default(),
    }
}

/// The origin failed with this response.
fn failed(request: &CacheRequest, head: &StoredHead) -> WarmedObject {
    WarmedObject {
        status: Some(head.status),
        ..ended(request, WarmOutcome::Failed)
    }
}

/// Reads a body as it arrives, and counts it. False: it was truncated.
pub(super) async fn read_to_end(follower: &mut Follower, length: &mut u64) -> bool {
    while let Some(bytes) = poll_fn(|cx| follower.poll_bytes(cx)).await {
        let Ok(bytes) = bytes else {
            return false;
        };
        *length += bytes.len() as u64;
    }
    true
}
