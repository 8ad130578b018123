//! Ends fills that have nothing to store: failures, refusals and responses for one viewer alone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{StatusCode, header};
use tokio::time::timeout;

use super::manifest::FetchedManifest;
use super::{FillTask, FillTrigger};
use crate::live::RejectReason;
use crate::proxy::pass_through_response::PassThroughResponse;
use crate::proxy::read_whole::read_whole;
use crate::proxy::rejections;
use seawall_cache::{ExpiringMemo, KeyMemo, Object, Verdict};
use seawall_manifest::Kind;
use seawall_policy::lifetime::{UncacheableReason, is_origin_failure};
use seawall_policy::missing_manifest::{is_absence, is_conclusive, remaining_stale_window};
use seawall_policy::{EndpointSet, Lifetime};
use seawall_upstream::{Failure, UpstreamResponse};

/// Maximum size of an origin's error page that is sent on.
const ERROR_BODY_BYTES_MAX: u64 = 64 << 10;

/// Maximum wait for an error page: players need only its status.
const ERROR_BODY_WAIT_MAX: Duration = Duration::from_secs(1);

/// A key whose object is too large to store, and is not served in slices, is remembered for this
/// time.
const TOO_LARGE_MEMORY: Duration = Duration::from_mins(10);

impl FillTask {
    /// The origin answered with an error: all followers get it, the stored object stays, and the
    /// key backs off.
    pub(super) async fn fail_with_response(
        self,
        response: UpstreamResponse,
        retry_after: Option<Duration>,
        is_shareable: bool,
    ) {
        let error_object = if is_shareable {
            self.origin_response(response).await
        } else {
            let header = response.headers.get(header::RETRY_AFTER).cloned();
            rejections::own_error_object(response.status, header)
        };
        let error_object = Arc::new(error_object);
        self.back_off(retry_after, &error_object);
        self.fill.settle(Verdict::Failed(error_object));
    }

    /// The same, for as long as the origin's response is fresh. The stored object stays and is
    /// served instead.
    pub(super) async fn fail_while_fresh(self, response: UpstreamResponse, lifetime: Lifetime) {
        let remaining = lifetime.fresh_remaining(Instant::now());
        let error_object = Arc::new(self.read_small_response(response, lifetime).await);
        let backoff = self.shield.settings.failure_backoff;
        self.back_off(Some(remaining.max(backoff)), &error_object);
        self.fill.settle(Verdict::Failed(error_object));
    }

    /// The object no longer exists: the stored object is removed, and all followers get the
    /// response.
    pub(super) async fn handle_gone(self, response: UpstreamResponse) {
        let error_object = Arc::new(self.origin_response(response).await);
        self.fill.remove_previous();
        self.fill.settle(Verdict::Object(error_object));
    }

    /// Stores a cacheable error. If its page is late, viewers get the status alone, and it is not
    /// stored.
    pub(super) async fn store_error(
        self,
        mut response: UpstreamResponse,
        kind: Kind,
        lifetime: Lifetime,
    ) {
        let reading = async {
            while response.body.ahead_bytes() < ERROR_BODY_BYTES_MAX {
                match response.body.read_ahead().await {
                    Some(Ok(())) => {}
                    Some(Err(failure)) => return Err(failure),
                    None => break,
                }
            }
            Ok(())
        };
        let has_arrived = matches!(timeout(ERROR_BODY_WAIT_MAX, reading).await, Ok(Ok(())));
        if has_arrived {
            let lifetime = self.limit_unlisted_lifetime(lifetime);
            return self.stream_response(response, kind, lifetime).await;
        }
        let none = Lifetime::none(Instant::now());
        let head = self.head(response.status, response.headers, kind, none, false);
        let error_object = Arc::new(Object::new(head, Bytes::new()));
        let backoff = self.shield.settings.failure_backoff;
        self.back_off(Some(lifetime.fresh_for.min(backoff)), &error_object);
        self.fill.remove_previous();
        self.fill.settle(Verdict::Object(error_object));
    }

    /// The origin refused this request; other requests may get another answer.
    pub(super) async fn handle_refused(self, response: UpstreamResponse) {
        let error_object = Arc::new(self.origin_response(response).await);
        self.fill.settle(Verdict::Refused(error_object));
    }

    /// Time for which a manifest's absence is still doubted: a version is stored, and the route
    /// allows it. A 403 to a viewer's own credentials is not doubted.
    pub(super) fn time_to_doubt_absence(&self, status: StatusCode) -> Option<Duration> {
        let is_refused_by_credentials = status == StatusCode::FORBIDDEN && self.is_authorized();
        if !is_absence(status) || is_refused_by_credentials {
            return None;
        }
        let head = &self.stored_object()?.head;
        if !head.kind.is_manifest() {
            return None;
        }
        let window = self.request.route.lifetimes.manifest_stale_if_missing;
        remaining_stale_window(&head.lifetime, window, Instant::now())
    }

    /// The status makes no sense for a manifest of which a servable version is stored. Not if
    /// unkeyed headers may have caused it.
    pub(super) fn is_implausible_status(&self, response: &UpstreamResponse) -> bool {
        let is_manifest = |stored: &Arc<Object>| stored.head.kind.is_manifest();
        let has_location = response.headers.contains_key(header::LOCATION);
        self.unkeyed_memo_key.is_none()
            && !is_origin_failure(response.status)
            && !is_conclusive(response.status, has_location)
            && self.has_servable_object()
            && self.stored_object().is_some_and(is_manifest)
    }

    /// Treats a doubted absence of a manifest as a failure.
    pub(super) async fn fail_doubted_absence(
        self,
        mut response: UpstreamResponse,
        remaining: Duration,
    ) {
        let error_object = Arc::new(rejections::own_error_object(response.status, None));
        let wait = self.shield.settings.failure_backoff.min(remaining);
        self.back_off(Some(wait), &error_object);
        self.fill.settle(Verdict::Failed(error_object));
        // No viewer waits for the rest of the body; reading it lets the connection be reused.
        let _ = read_whole(&mut response.body, ERROR_BODY_BYTES_MAX, |_| true).await;
    }

    /// The request got no usable response.
    pub(super) fn handle_failure(self, failure: Failure) {
        let why = failure.to_string();
        let live = &self.shield.live;
        live.record_failure(&self.request, &why, SystemTime::now());
        let is_object_stored = self.fill.lookup().object.is_some();
        let error_object = Arc::new(rejections::failure_object(failure, is_object_stored));
        match failure {
            // A local limit, not the origin: the next viewer may try.
            Failure::Busy | Failure::BreakerOpen => {}
            Failure::Exhausted => return self.fill.settle(Verdict::Exhausted(error_object)),
            Failure::Truncated => self.back_off_unless_first(&error_object),
            Failure::Resolve
            | Failure::Connect
            | Failure::Tls
            | Failure::Timeout
            | Failure::Reset => self.back_off_until_reachable(&error_object),
            _ => self.back_off(None, &error_object),
        }
        self.fill.settle(Verdict::Failed(error_object));
    }

    /// The body broke off while it was sent to the followers.
    pub(super) fn handle_truncation(self, failure: Failure, endpoint: usize) {
        let origin = self.origin();
        let now = Instant::now();
        let memo = self.memo_for(now);
        let failed_endpoints = match memo {
            Some(KeyMemo::Avoid(avoided)) => avoided.at(now),
            _ => EndpointSet::default(),
        };
        if origin.has_another_in_good_standing(failed_endpoints.with(endpoint)) {
            // That endpoint answers new requests, and followers that have received nothing yet.
            self.avoid_endpoint(endpoint);
            return self.fill.cut();
        }
        let is_object_stored = self.fill.lookup().object.is_some();
        let error_object = Arc::new(rejections::failure_object(failure, is_object_stored));
        self.back_off_unless_first(&error_object);
        self.fill.truncate(error_object);
    }

    /// An origin whose body broke off does answer: viewers without a servable object may retry
    /// immediately, but only once. With a servable object, the key backs off.
    fn back_off_unless_first(&self, error_object: &Arc<Object>) {
        let backoff = self.shield.settings.failure_backoff;
        let now = Instant::now();
        let is_second = matches!(
            self.memo_for(now),
            Some(KeyMemo::Truncated | KeyMemo::Avoid(_))
        );
        if is_second || self.has_servable_object() {
            self.back_off(None, error_object);
        } else if !backoff.is_zero() {
            self.write_memo(ExpiringMemo {
                until: now + backoff,
                memo: KeyMemo::Truncated,
            });
        }
    }

    fn memo_for(&self, now: Instant) -> Option<KeyMemo> {
        let slot = self
            .unkeyed_memo_key
            .as_ref()
            .unwrap_or(&self.fill.lookup().slot);
        self.shield.cache.memo(slot, now)
    }

    pub(super) fn back_off(&self, wait: Option<Duration>, error_object: &Arc<Object>) {
        let wait = wait.unwrap_or(self.shield.settings.failure_backoff);
        if !wait.is_zero() {
            self.write_memo(ExpiringMemo {
                until: Instant::now() + wait,
                memo: KeyMemo::Failed(Arc::clone(error_object)),
            });
        }
    }

    /// The same, but ends earlier: when an endpoint answers to which no connection was possible.
    fn back_off_until_reachable(&self, error_object: &Arc<Object>) {
        let (wait, now) = (self.shield.settings.failure_backoff, Instant::now());
        if !wait.is_zero() {
            self.write_memo(ExpiringMemo {
                until: now + wait,
                memo: KeyMemo::Unreachable(Arc::clone(error_object), now),
            });
        }
    }

    /// Stores a memo of the key, or of requests with the same unkeyed headers.
    fn write_memo(&self, memo: ExpiringMemo) {
        match &self.unkeyed_memo_key {
            Some(unkeyed_memo_key) => self.fill.write_memo_for(unkeyed_memo_key, memo),
            None => self.fill.write_memo(memo),
        }
    }

    /// An error that unkeyed headers may have caused: the stored object stays, and only requests
    /// with the same headers share the error.
    pub(super) async fn settle_unkeyed_error(self, response: UpstreamResponse, lasting: Duration) {
        let error_object = Arc::new(self.origin_response(response).await);
        if !lasting.is_zero() {
            self.back_off(Some(lasting), &error_object);
        }
        self.fill.settle(Verdict::Refused(error_object));
    }

    /// The origin's small response, read whole, never fresh; without body if that is late.
    async fn origin_response(&self, response: UpstreamResponse) -> Object {
        self.read_small_response(response, Lifetime::none(Instant::now()))
            .await
    }

    async fn read_small_response(
        &self,
        mut response: UpstreamResponse,
        lifetime: Lifetime,
    ) -> Object {
        let reading = read_whole(&mut response.body, ERROR_BODY_BYTES_MAX, |_| true);
        let body = timeout(ERROR_BODY_WAIT_MAX, reading).await;
        let body = body.ok().and_then(Result::ok);
        let head = self.head(
            response.status,
            response.headers,
            self.request.kind,
            lifetime,
            false,
        );
        Object::new(head, body.unwrap_or_default())
    }

    /// Passes the response to the leader alone: not stored, not shared.
    pub(super) fn pass_to_leader(self, response: UpstreamResponse, reason: UncacheableReason) {
        let name = &self.shield.rules.name;
        let passed = PassThroughResponse::of(response, Some(reason), false, name);
        self.hand_over(passed, reason);
    }

    /// Gives the response to the leader. An uncacheable key is remembered, so that its viewers do
    /// not queue behind one another; a response to one unusual request is not.
    pub(super) fn hand_over(self, mut passed: PassThroughResponse, reason: UncacheableReason) {
        let ttl = self.shield.settings.uncacheable_ttl;
        let remembered_for = match reason {
            // This rarely changes, and to find out costs an aborted fetch.
            UncacheableReason::TooLarge => ttl.max(TOO_LARGE_MEMORY),
            _ => ttl,
        };
        if passed.status == StatusCode::OK && reason != UncacheableReason::Partial {
            if self.unkeyed_memo_key.is_none() {
                self.fill.remove_previous();
            }
            self.write_memo(ExpiringMemo {
                until: Instant::now() + remembered_for,
                memo: KeyMemo::Pass,
            });
        }
        // If the receiver has left, this drops the response and closes its connection.
        match self.trigger {
            FillTrigger::Viewer(viewer, client_fetch) => {
                passed.private_fetch = Some(client_fetch.hand_over());
                let _ = viewer.send(passed);
            }
            FillTrigger::Prefetch(_, Some(operator)) => {
                let _ = operator.send(passed);
            }
            FillTrigger::Prefetch(_, None) | FillTrigger::Refresh => {}
        }
        self.fill.settle(Verdict::Pass);
    }

    /// A manifest that cannot be decoded is not stored: no tracker could refresh it.
    pub(super) fn hand_over_unread(self, fetched: FetchedManifest) {
        self.shield.live.count_rejection(RejectReason::Coded);
        let path = self.request.target.path();
        let coding = fetched.response.headers.get(header::CONTENT_ENCODING);
        let coding = coding.map(|coding| String::from_utf8_lossy(coding.as_bytes()));
        tracing::warn!(
            path,
            endpoint = fetched.response.endpoint,
            coding = coding.as_deref(),
            "manifest has an unsupported content coding: it is passed on and not stored"
        );
        self.hand_over_manifest(fetched, UncacheableReason::Coding);
    }

    /// The same for a manifest, which has been read completely.
    pub(super) fn hand_over_manifest(self, fetched: FetchedManifest, reason: UncacheableReason) {
        if let Some(manifest) = &fetched.manifest {
            let what = (&self.request, fetched.variant);
            self.shield
                .record_unstored(what, manifest, fetched.current_at);
        }
        let name = &self.shield.rules.name;
        let passed = PassThroughResponse::whole(fetched.response, fetched.body, reason, name);
        self.hand_over(passed, reason);
    }
}
