//! Runs the one fill of a key: a detached task that requests the object, decides about the
//! response, and feeds all followers. It does not depend on any viewer.

mod blocking;
mod delivery;
mod disposition;
mod empty;
mod failure;
mod given;
mod manifest;
mod publish;
mod request;
mod revalidation;
mod settle;
mod streaming;
mod takeover;
mod version;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::oneshot;

use super::Shield;
use super::clients::ClientFetch;
use super::handover::GivenTerms;
use super::pass_through_response::PassThroughResponse;
use super::purge::tag_scope;
use crate::live::{Location, ManifestTracker, Prefetch, UNLISTED_FOR};
use seawall_cache::{EpochToken, Fill, StoredHead, TagKeys, Verdict};
use seawall_manifest::{Kind, ManifestInfo, is_plain_text};
use seawall_policy::access::CacheRequest;
use seawall_policy::lifetime::{ManifestContext, ResponseFacts, StorageDecision, storage};
use seawall_policy::{EndpointAvoidance, Key, Lifetime, Now, headers, tags};
use seawall_upstream::{Failure, Framing, UpstreamResponse};

/// What started a fill, and who besides the followers waits for it.
pub(super) enum FillTrigger {
    /// A viewer; it gets the response alone if the response may not be shared.
    Viewer(oneshot::Sender<PassThroughResponse>, ClientFetch),
    /// A background refresh; viewers are served the stored object.
    Refresh,
    /// A prefetch for coming viewers; it holds its permit among the prefetches. An operator gets
    /// the response if it may not be shared.
    Prefetch(Prefetch, Option<oneshot::Sender<PassThroughResponse>>),
}

/// The work of one fill.
pub(super) struct FillTask {
    shield: Arc<Shield>,
    fill: Fill,
    trigger: FillTrigger,
    request: CacheRequest,
    /// The epoch at the time of the request. A manifest belongs only to the epoch of its URL, a
    /// version of a playlist that was requested by number to its own.
    epoch_token: Option<EpochToken>,
    /// Key for memos that the request's unkeyed headers may have caused.
    unkeyed_memo_key: Option<Key>,
    /// The object may be left over from before a restart of the stream.
    may_be_left_over: bool,
    /// The origin may block the request until the object exists.
    may_be_blocking: bool,
    /// Endpoints from which another one has taken over.
    failed_endpoints: EndpointAvoidance,
    /// Number of responses without any byte.
    empty_responses: u8,
    /// The response comes from the process before an upgrade.
    given: Option<Box<GivenTerms>>,
}

/// Under which key a response is stored. The answer to a request that names a version of an LL-HLS
/// playlist by number can be stored under both.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StoredAs {
    /// As the newest version, under the URL without delivery directives. The next one replaces it.
    Newest,
    /// Under the requested key: as the requested version, which never changes, if it is that one,
    /// else as the newest.
    UnderRequestedKey,
}

/// The origin's response, and how it was requested.
struct OriginOutcome {
    response: UpstreamResponse,
    /// The request was a revalidation of the stored object.
    conditional: bool,
}

impl FillTask {
    pub(super) fn new(
        shield: Arc<Shield>,
        request: &CacheRequest,
        fill: Fill,
        trigger: FillTrigger,
    ) -> FillTask {
        let location = if request.has_delivery_directives() {
            Location::only(request.playlist_epoch_key())
        } else if request.kind.is_manifest() {
            Location::default()
        } else {
            shield.live.location_of(request)
        };
        // Read before `may_be_left_over`: a restart in between ends this epoch.
        let mut epoch_token = shield.epoch_token(request, &location);
        let now = Now::read();
        let may_be_left_over = shield.live.is_left_over(&shield.rules, request, now);
        if may_be_left_over {
            epoch_token = shield.epoch_token(request, &location.unlisted());
        }
        if let Some(epoch_token) = &epoch_token {
            fill.set_epoch(epoch_token);
        }
        if !request.kind.is_manifest()
            && let Some(position) = shield.live.live_position(&shield.rules, request, now)
        {
            fill.set_live_position(position);
        }
        FillTask {
            epoch_token,
            may_be_left_over,
            unkeyed_memo_key: shield.unkeyed_memo_key(
                fill.lookup(),
                fill.upstream_headers(),
                request,
            ),
            may_be_blocking: shield.live.may_be_blocking(request, Instant::now()),
            failed_endpoints: EndpointAvoidance::default(),
            empty_responses: 0,
            given: None,
            shield,
            fill,
            request: CacheRequest {
                class: match trigger {
                    FillTrigger::Viewer(..) => request.class.clone(),
                    FillTrigger::Refresh | FillTrigger::Prefetch(..) => None,
                },
                ..request.clone()
            },
            trigger,
        }
    }

    pub(super) async fn run(mut self) {
        self.await_availability().await;
        if self.shield.handover.source().is_some() {
            // Boxed: a fill keeps no room for what there is only after an upgrade.
            match Box::pin(self.take_over_object()).await {
                Some(task) => self = task,
                None => return,
            }
        }
        let stored = self.fill.lookup().object.clone();
        let outcome = tokio::select! {
            outcome = self.request_object() => outcome,
            newest = self.wait_for_newer_version() => return self.fill.settle(Verdict::Object(newest)),
        };
        let OriginOutcome {
            response,
            conditional,
        } = match outcome {
            // All viewers have left. Dropping the fill releases its key.
            None => return,
            Some(Err(failure)) => return self.handle_failure(failure),
            Some(Ok(outcome)) => outcome,
        };
        if response.status != StatusCode::NOT_MODIFIED {
            return self.handle_response(response).await;
        }
        match stored.filter(|_| conditional) {
            Some(stored) => self.apply_not_modified(&response, &stored),
            // It confirms nothing.
            None => self.handle_failure(Failure::Protocol),
        }
    }

    /// Resolves when the fill should be cancelled: all viewers have left, and either it must not
    /// continue without them or too many such fills run. The refresh of a stored object may
    /// continue. A blocking request may not: it would take one of the `blocking_max` places from
    /// others.
    async fn wait_until_cancelled(&self, may_be_blocking: bool) {
        let has_stored_object = self.fill.lookup().object.is_some();
        let may_continue = self.shield.settings.finish_abandoned || has_stored_object;
        match &self.trigger {
            FillTrigger::Viewer(_, client_fetch) => {
                client_fetch
                    .wait_until_abandoned(&self.fill, may_continue && !may_be_blocking)
                    .await;
            }
            FillTrigger::Refresh | FillTrigger::Prefetch(..) => std::future::pending().await,
        }
    }

    /// The kind of a response with these headers.
    fn kind(&self, status: StatusCode, headers: &HeaderMap) -> Kind {
        let kind = self.shield.live.kind_of(&self.request);
        let content_type = headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        // An error page has another type than the object, and a manifest's listing says more than
        // `text/plain`.
        if !status.is_success() || (is_plain_text(content_type) && self.is_new()) {
            return kind;
        }
        kind.refined(content_type)
    }

    /// Decides whether, and for how long, a response may be stored.
    fn decide_storage(
        &self,
        response: &UpstreamResponse,
        kind: Kind,
        info: Option<&ManifestInfo>,
        stored_as: StoredAs,
    ) -> StorageDecision {
        let facts_of_200 = self.facts_of_200(response, &response.headers, kind, info, stored_as);
        let response_facts = ResponseFacts {
            status: response.status,
            end_is_proven: response.framing != Framing::UntilClose,
            due_in: self.due_in(response.status),
            ..facts_of_200
        };
        let decision = storage(&response_facts, &self.request.route, Now::read());
        match &self.given {
            Some(terms) => terms.limit(decision),
            None => decision,
        }
    }

    /// The facts of a complete 200 response with these headers.
    fn facts_of_200<'a>(
        &self,
        response: &UpstreamResponse,
        headers: &'a HeaderMap,
        kind: Kind,
        info: Option<&'a ManifestInfo>,
        stored_as: StoredAs,
    ) -> ResponseFacts<'a> {
        let multivariant = info.filter(|info| info.is_multivariant());
        let children =
            multivariant.and_then(|_| self.shield.live.target_duration(&self.request.key));
        ResponseFacts {
            status: StatusCode::OK,
            headers,
            kind,
            info,
            end_is_proven: true,
            authorized: self.is_authorized(),
            delay: self.delay(response),
            context: info.map_or(ManifestContext::CurrentVersion, |info| {
                self.manifest_context(info, stored_as)
            }),
            child_target_duration: children,
            due_in: None,
        }
    }

    fn manifest_context(&self, info: &ManifestInfo, stored_as: StoredAs) -> ManifestContext {
        if stored_as == StoredAs::UnderRequestedKey && self.is_requested_version(info) {
            ManifestContext::RequestedVersion
        } else if self.has_just_ended(info) {
            ManifestContext::JustEnded
        } else {
            ManifestContext::CurrentVersion
        }
    }

    /// The manifest says that a stream has ended that was live within the last two minutes.
    fn has_just_ended(&self, info: &ManifestInfo) -> bool {
        let was_live = |tracker: Arc<ManifestTracker>| tracker.was_live_recently(Instant::now());
        !info.is_live() && self.tracker().is_some_and(was_live)
    }

    /// Time the response was under way. The response to a blocking request was produced when it
    /// arrived.
    fn delay(&self, response: &UpstreamResponse) -> Duration {
        if self.may_be_blocking {
            Duration::ZERO
        } else {
            response.waited
        }
    }

    fn is_authorized(&self) -> bool {
        self.fill
            .upstream_headers()
            .contains_key(header::AUTHORIZATION)
    }

    /// Stores, passes on or shares the response, as the caching rules say. An implausible response
    /// is replaced: by that to another request, or by a failure. Boxed are the rare ways, so that a
    /// fill keeps no room for them.
    async fn handle_response(mut self, response: UpstreamResponse) {
        let response = match self.confirm_absence(response).await {
            Some(Ok(response)) => response,
            Some(Err(failure)) => return self.handle_failure(failure),
            None => return,
        };
        if let Some(remaining) = self.time_to_doubt_absence(response.status) {
            return self.fail_doubted_absence(response, remaining).await;
        }
        if self.is_implausible_status(&response) {
            return self.handle_failure(Failure::Protocol);
        }
        if self.is_endpoint_behind(response.status) {
            return Box::pin(self.retry_elsewhere(response)).await;
        }
        let (live, rules) = (&self.shield.live, &self.shield.rules);
        live.record_presence(rules, &self.request, response.status, Now::read());
        let kind = self.kind(response.status, &response.headers);
        if let Some(endpoint) = response.endpoint_to_avoid.filter(|_| !kind.is_manifest()) {
            self.avoid_for_media(endpoint, "late, or without a listed object");
        }
        if response.status == StatusCode::OK && kind.is_manifest() {
            return Box::pin(self.handle_manifest(response)).await;
        }
        match self.decide_storage(&response, kind, None, StoredAs::Newest) {
            StorageDecision::Pass(reason) => self.pass_to_leader(response, reason),
            StorageDecision::Store(lifetime) if !is_error(response.status) => {
                let lifetime = self.limit_unlisted_lifetime(lifetime);
                self.stream_response(response, kind, lifetime).await;
            }
            error => Box::pin(self.handle_error(response, kind, error)).await,
        }
    }

    /// Shares an error with all followers, or only with requests that have the same unkeyed headers
    /// if these may have caused it.
    async fn handle_error(self, response: UpstreamResponse, kind: Kind, decision: StorageDecision) {
        if response.status.is_server_error() {
            let why = format!("the origin answered {}", response.status.as_u16());
            let live = &self.shield.live;
            live.record_failure(&self.request, &why, SystemTime::now());
        }
        let is_unkeyed = self.unkeyed_memo_key.is_some();
        match decision {
            StorageDecision::Failure {
                retry_after,
                is_shareable,
            } => {
                self.fail_with_response(response, retry_after, is_shareable)
                    .await;
            }
            StorageDecision::CacheableFailure(lifetime) => {
                self.fail_while_fresh(response, lifetime).await;
            }
            StorageDecision::Store(lifetime) if is_unkeyed => {
                self.settle_unkeyed_error(response, lifetime.fresh_for)
                    .await;
            }
            StorageDecision::Store(lifetime) => {
                self.store_error(response, kind, lifetime).await;
            }
            StorageDecision::Gone if is_unkeyed => {
                self.settle_unkeyed_error(response, Duration::ZERO).await;
            }
            StorageDecision::Gone => self.handle_gone(response).await,
            StorageDecision::Refused => self.handle_refused(response).await,
            StorageDecision::Pass(reason) => self.pass_to_leader(response, reason),
        }
    }

    /// Before a 404 or 410 replaces a stored object, the origin is asked again without unkeyed
    /// headers. `None` as in [`FillTask::fetch`].
    async fn confirm_absence(
        &mut self,
        response: UpstreamResponse,
    ) -> Option<Result<UpstreamResponse, Failure>> {
        let gone = matches!(response.status, StatusCode::NOT_FOUND | StatusCode::GONE);
        let doubted = gone && self.unkeyed_memo_key.is_some() && self.stored_object().is_some();
        if !doubted {
            return Some(Ok(response));
        }
        let (route, name) = (&self.request.route, &self.shield.rules.name);
        let plain = headers::without_unkeyed_values(self.fill.upstream_headers(), route, name);
        let response = Box::pin(self.fetch(plain, self.avoided())).await?;
        self.unkeyed_memo_key = None;
        Some(response)
    }

    /// Shortens the lifetime of an object that no manifest has listed since the restart.
    pub(super) fn limit_unlisted_lifetime(&self, lifetime: Lifetime) -> Lifetime {
        if !self.may_be_left_over {
            return lifetime;
        }
        Lifetime {
            fresh_for: lifetime.fresh_for.min(lifetime.age_received + UNLISTED_FOR),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            ..lifetime
        }
    }

    /// The epoch of a stored object. A manifest belongs only to that of its URL.
    fn epoch_token_of(&self, kind: Kind) -> Option<EpochToken> {
        let epoch_token = self.epoch_token.as_ref()?;
        if kind.is_manifest() && !self.request.has_delivery_directives() {
            epoch_token.to_url()
        } else {
            Some(epoch_token.clone())
        }
    }

    /// Binds a response to the tags in its headers, if there are any.
    fn bind_tags(&self, token: Option<EpochToken>, origin: &HeaderMap) -> Option<EpochToken> {
        let scope = tag_scope(&self.request);
        // The fields with its tags may be gone from an object that another process gives.
        let given = self.given.as_ref().filter(|given| !given.tags.is_empty());
        let given = given.map(|given| given.tags.clone());
        let Some(keys) = given.or_else(|| tags::tag_keys(origin, scope)) else {
            return token;
        };
        let overflow = scope.overflow();
        Some(self.fill.bind_tags(token, &TagKeys { keys, overflow }))
    }

    /// The origin's headers as they are stored and sent.
    fn downstream(&self, origin: HeaderMap) -> HeaderMap {
        let mut headers = headers::downstream(origin, &self.shield.rules.name);
        if !self.request.route.show_tags {
            tags::remove_tags(&mut headers);
        }
        headers
    }

    /// The head under which a response is stored and sent.
    fn head(
        &self,
        status: StatusCode,
        origin: HeaderMap,
        kind: Kind,
        lifetime: Lifetime,
        will_be_stored: bool,
    ) -> StoredHead {
        let targeted = headers::targeted(&origin).map(|fields| Box::new((*fields).into()));
        let epoch_token = self.bind_tags(self.epoch_token_of(kind), &origin);
        let mut headers = self.downstream(origin);
        if status == StatusCode::OK {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        StoredHead {
            status,
            headers: headers.into(),
            targeted,
            kind,
            lifetime,
            manifest_info: None,
            length: None,
            will_be_stored,
            is_own: false,
            stream: self.shield.live.stream_number(&self.request),
            epoch_token,
            access_tracker: match &self.trigger {
                FillTrigger::Prefetch(prefetch, _) => Some(Arc::clone(&prefetch.access_tracker)),
                _ => None,
            },
        }
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
