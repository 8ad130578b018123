//! Sends a request to a group: acquires a permit, makes attempts at its endpoints, and builds the
//! response.

mod attempt_sequence;
mod evaluate;
mod hedge;
mod next_step;

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::attempt::{
    AttemptDeadlines, AttemptResponse, EndpointClient, UpstreamUpload, read_ahead,
};
use super::body::{BodyState, UpstreamBody};
use super::check::HealthChecks;
use super::connection::{self, AttemptRequest, EndpointConnector, GroupHeaders, ResponseHead};
use super::endpoint::{EndpointRecord, EndpointRecords, EndpointState, std_now};
use super::group_limits::GroupLimits;
use super::response_value::ResponseExpectation;
use super::selection::{EndpointSelection, EndpointSelector, ExtraRequests, RequestProfile};
use super::sign::Signer;
use super::slow_viewers::RequestPermits;
use super::{
    BudgetUse, Deadlines, EndpointOutage, Failure, Priority, PriorityRaise, Rejection, Resolver,
    Retry, Settings, SetupError, Stats, UpstreamRequest, UpstreamResponse,
};

use attempt_sequence::AttemptSequence;
use hedge::{HedgedSender, may_hedge};

/// Total deadline of a request with a body: each step has its own deadline, and `frontend` limits
/// the sender, so a slow upload that progresses may continue.
const UPLOAD_MAX: Duration = Duration::from_hours(24);

/// One origin group. A request passes its parts in the order of the fields: `signer` adds the
/// credentials, `limits` grants a permit, `selector` chooses an endpoint, `client` sends it there.
pub(super) struct OriginGroup {
    pub(super) signer: Arc<Signer>,
    pub(super) limits: Arc<GroupLimits>,
    pub(super) selector: EndpointSelector,
    pub(super) client: Arc<EndpointClient>,
    pub(super) connector: Arc<EndpointConnector>,
    pub(super) health_checks: Option<Arc<HealthChecks>>,
    pub(super) deadlines: Deadlines,
    retry: Retry,
    settings: Settings,
    records: EndpointRecords,
    /// The group that this one succeeds; taken when this one takes effect.
    former: Mutex<Option<Weak<OriginGroup>>>,
}

/// The parts that a group may share with the one it succeeds.
struct SharedParts {
    signer: Arc<Signer>,
    connector: EndpointConnector,
    limits: Arc<GroupLimits>,
    extra_requests: Arc<ExtraRequests>,
    records: EndpointRecords,
    /// The record of each endpoint, in the order of the settings.
    endpoints: Vec<Arc<EndpointRecord>>,
}

/// Deadlines of one request.
#[derive(Clone, Copy)]
struct RequestDeadlines {
    /// For a permit of the group and a slot at an endpoint.
    queue: Instant,
    /// For everything up to the response head.
    total: Instant,
}

impl OriginGroup {
    pub(super) fn new(settings: Settings, lookup: Resolver) -> Result<OriginGroup, SetupError> {
        let limits = Arc::new(GroupLimits::new(&settings));
        let (records, endpoints) = EndpointRecords::default().succeed(&settings);
        let parts = SharedParts {
            signer: Signer::new(&settings, &lookup)?,
            connector: EndpointConnector::new(&settings, lookup)?,
            extra_requests: Arc::new(ExtraRequests::new(
                settings.retry.budget,
                Arc::clone(&limits),
            )),
            limits,
            records,
            endpoints,
        };
        OriginGroup::with(settings, parts, None)
    }

    /// See [`super::Origin::succeed`]. `None`: nothing changed.
    pub(super) fn succeed(
        self: &Arc<Self>,
        settings: Settings,
        lookup: &Resolver,
    ) -> Result<Option<OriginGroup>, SetupError> {
        let connector = self.connector.succeed(&settings, lookup)?;
        if settings == self.settings && connector.shares_pool(&self.connector) {
            return Ok(None);
        }
        let (records, endpoints) = self.records.succeed(&settings);
        let parts = SharedParts {
            signer: self.signer.succeed(&self.settings, &settings, lookup)?,
            connector,
            limits: Arc::clone(&self.limits),
            extra_requests: Arc::clone(&self.selector.extra_requests),
            records,
            endpoints,
        };
        OriginGroup::with(settings, parts, Some(Arc::downgrade(self))).map(Some)
    }

    fn with(
        settings: Settings,
        parts: SharedParts,
        former: Option<Weak<OriginGroup>>,
    ) -> Result<OriginGroup, SetupError> {
        let SharedParts {
            signer,
            connector,
            limits,
            extra_requests,
            records,
            endpoints,
        } = parts;
        let connector = Arc::new(connector);
        let client = Arc::new(EndpointClient::new(
            Arc::clone(&connector),
            GroupHeaders::new(&settings)?,
            settings.deadlines,
        ));
        let selector = EndpointSelector::new(
            &settings,
            Arc::clone(&connector),
            Arc::clone(&limits),
            &endpoints,
            extra_requests,
        );
        let health_checks = settings.health.clone().map(|check| {
            Arc::new(HealthChecks::new(
                check,
                &client,
                &signer,
                &selector.endpoints,
            ))
        });
        Ok(OriginGroup {
            signer,
            limits,
            selector,
            client,
            connector,
            health_checks,
            deadlines: settings.deadlines,
            retry: settings.retry.clone(),
            settings,
            records,
            former: Mutex::new(former),
        })
    }

    /// See [`super::Origin::take_effect`].
    pub(super) fn take_effect(&self) {
        let Some(former) = self.former.lock().take() else {
            return;
        };
        if let Some(former) = former.upgrade() {
            former.retire();
        }
        let settings = &self.settings;
        self.limits.apply(settings);
        self.selector
            .extra_requests
            .set_budget(settings.retry.budget);
        for endpoint in &self.selector.endpoints {
            endpoint.apply(&settings.endpoints[endpoint.index], settings);
        }
    }

    /// Ends the health checks and the DNS lookups. Requests in progress go on.
    pub(super) fn retire(&self) {
        if let Some(checks) = &self.health_checks {
            checks.retire();
        }
        self.connector.retire();
    }

    pub(super) async fn fetch(
        self: &Arc<Self>,
        mut request: UpstreamRequest,
    ) -> Result<UpstreamResponse, Failure> {
        if let Some(body) = request.body.take() {
            request.body = Some(read_ahead(body).await?);
        }
        let started = Instant::now();
        let deadlines = self.request_deadlines(&request, started);
        // A request that every breaker would refuse must not wait or use up the rate limit.
        let subject = connection::subject(&request.path_and_query, request.host.as_ref());
        if self.selector.is_refused(subject) {
            return Err(Failure::BreakerOpen);
        }
        // Wait for credentials before taking a permit: others can proceed.
        let ready = self.signer.wait_for_credentials(deadlines.queue).await;
        ready.inspect_err(|&failure| self.count_unsent(failure))?;
        let queue_timeout = deadlines.queue.saturating_duration_since(Instant::now());
        let permits = self.limits.acquire(&mut request, queue_timeout).await?;
        let response = self.run_attempts(request, &permits, deadlines).await?;
        Ok(self.build_response(response, permits, started))
    }

    fn request_deadlines(&self, request: &UpstreamRequest, started: Instant) -> RequestDeadlines {
        let total = match request.body {
            Some(_) => UPLOAD_MAX,
            None => self.deadlines.total,
        };
        RequestDeadlines {
            queue: started + self.deadlines.queue.min(self.deadlines.total),
            total: started + total,
        }
    }

    /// No endpoint was contacted; the failure is counted for the first one.
    fn count_unsent(&self, failure: Failure) {
        self.selector.endpoints[0].counters.record_unsent(failure);
    }

    /// Sends the request to the endpoints of the group until one gives a usable response.
    async fn run_attempts(
        self: &Arc<Self>,
        mut request: UpstreamRequest,
        permits: &Arc<RequestPermits>,
        deadlines: RequestDeadlines,
    ) -> Result<AttemptResponse, Failure> {
        let priority_raise = request.priority_raise.take();
        let cause = request.cause.take();
        let UpstreamRequest {
            avoided,
            excluded,
            late_after,
            has_fallback,
            budget,
            ..
        } = request;
        let expectation = ResponseExpectation::of(&request);
        let (signed, body) = self.sign(request).inspect_err(|&failure| {
            self.count_unsent(failure);
        })?;
        if budget == BudgetUse::Earns {
            self.selector.extra_requests.record_request();
        }
        self.selector.update_standing();
        let order = self.selector.choose_order(&signed, avoided, excluded);
        if order.preferred_count > 0 {
            self.probe_endpoints_in_doubt(&signed);
        }
        let profile = RequestProfile {
            late_after: late_after.filter(|_| signed.is_repeatable()),
            cause,
            ..self.request_profile(&signed, expectation, priority_raise, deadlines)
        };
        let sequence = AttemptSequence {
            sender: HedgedSender {
                selector: &self.selector,
                client: &self.client,
                retry: &self.retry,
                connect_timeout: self.deadlines.connect,
                request: &signed,
            },
            upload: body.map(|body| UpstreamUpload::of(body, permits)),
            selection: EndpointSelection::new(order, profile),
            has_fallback,
        };
        sequence.run().await
    }

    /// What decides which endpoints the request may go to, and when.
    fn request_profile(
        &self,
        signed: &AttemptRequest,
        expectation: ResponseExpectation,
        priority_raise: Option<PriorityRaise>,
        deadlines: RequestDeadlines,
    ) -> RequestProfile {
        let raised = priority_raise.as_ref().map(|raise| raise.priority);
        let final_priority = raised.unwrap_or(signed.priority);
        RequestProfile {
            priority: signed.priority,
            priority_raise,
            subject: signed.subject(),
            class: signed.class,
            expectation,
            is_blocking: signed.is_blocking,
            late_after: None,
            is_hedged: may_hedge(&self.retry, final_priority, signed),
            queue_until: deadlines.queue,
            until: deadlines.total,
            cause: None,
        }
    }

    /// Adds the credentials, and splits the request into its head and its body.
    fn sign(
        &self,
        request: UpstreamRequest,
    ) -> Result<(AttemptRequest, Option<super::RequestBody>), Failure> {
        AttemptRequest::of(request, self.signer.request_auth()?)
    }

    /// Sends each endpoint that is due for a probe a HEAD of this request, in the background. For
    /// requests that another endpoint answers, and for callers that send none before one is back.
    fn probe_endpoints_in_doubt(&self, request: &AttemptRequest) {
        for endpoint in self.selector.claim_probes() {
            let Some(guard) = self.selector.start_probe(endpoint, request) else {
                continue;
            };
            let (client, request) = (Arc::clone(&self.client), request.head_only());
            let connect_timeout = self.deadlines.connect;
            let head_timeout = request.head_timeout(&self.deadlines);
            tokio::spawn(async move {
                let connect = Instant::now() + connect_timeout;
                let deadlines = AttemptDeadlines {
                    connect,
                    total: connect + head_timeout,
                };
                if let Ok(response) = client
                    .send_attempt(guard, &request, &mut None, deadlines)
                    .await
                {
                    response.discard();
                }
            });
        }
    }

    /// See [`super::Origin::probe_in_background`].
    pub(super) fn probe_in_background(&self, request: UpstreamRequest) {
        self.selector.update_standing();
        // Without credentials no probe says anything: the next request waits for them.
        if let Ok((signed, _)) = self.sign(request) {
            self.probe_endpoints_in_doubt(&signed);
        }
    }

    /// See [`super::Origin::outage`].
    pub(super) fn outage(&self) -> Option<Vec<EndpointOutage>> {
        if self.has_endpoint_in_good_standing() {
            return None;
        }
        let endpoints = self.selector.endpoints.iter();
        let outage = |endpoint: &Arc<EndpointState>| EndpointOutage {
            endpoint: endpoint.url(),
            reason: endpoint.doubt(self.connector.is_reachable(endpoint.index), std_now()),
        };
        Some(endpoints.map(outage).collect())
    }

    /// Builds the response: its body follows and holds the permits.
    fn build_response(
        &self,
        response: AttemptResponse,
        permits: Arc<RequestPermits>,
        started: Instant,
    ) -> UpstreamResponse {
        let AttemptResponse {
            connection,
            head,
            mut guard,
            endpoint_to_avoid,
        } = response;
        if let permit @ Some(_) = guard.endpoint_permit() {
            permits.set_endpoint_permit(permit);
        }
        let idle_timeout = head.idle_timeout();
        let endpoint = guard.endpoint().number;
        let ResponseHead {
            status,
            headers,
            framing,
        } = head;
        let body = UpstreamBody::new(BodyState {
            connection,
            permits,
            guard,
            status,
            framing,
            idle_timeout,
            chunk_timeout: self.deadlines.between_bytes,
            slack: self.deadlines.total,
            waited: Duration::ZERO,
            received: 0,
        });
        UpstreamResponse {
            status,
            headers,
            framing,
            body,
            waited: started.elapsed(),
            endpoint,
            endpoint_to_avoid: endpoint_to_avoid.map(|index| self.selector.endpoints[index].number),
        }
    }

    /// Starts the health checks, if configured.
    pub(super) fn start_health_checks(&self) {
        if let Some(checks) = &self.health_checks {
            checks.start();
        }
    }

    /// An endpoint is in good standing.
    pub(super) fn has_endpoint_in_good_standing(&self) -> bool {
        let now = std_now();
        let mut endpoints = self.selector.endpoints.iter();
        endpoints.any(|endpoint| self.selector.is_in_good_standing(endpoint, now))
    }

    pub(super) fn stats(&self, name: &Arc<str>) -> Stats {
        let counts = self.limits.counts();
        // A request that waits for an endpoint also counts as waiting for the group: one queue to
        // monitor.
        let mut waits = counts.requests;
        waits.add_waits(&counts.blocking);
        self.records.add_waits(&mut waits);
        let read = |endpoint: &Arc<EndpointState>| {
            endpoint.read(self.connector.is_reachable(endpoint.index))
        };
        let endpoints: Vec<_> = self.selector.endpoints.iter().map(read).collect();
        Stats {
            name: Arc::clone(name),
            total: self.records.attempts(),
            endpoints,
            in_flight: waits.in_flight,
            blocking: counts.blocking.in_flight,
            slow_viewers: counts.slow_viewers,
            slow_viewers_cut: counts.slow_viewers_cut,
            queued: waits.queued.iter().sum(),
            queued_by_priority: Priority::ALL
                .map(|priority| (priority, waits.queued[priority.index()])),
            queue_full: waits.rejected(Rejection::QueueFull) + waits.rejected(Rejection::Displaced),
            rejected: Rejection::ALL.map(|reason| (reason, waits.rejected(reason))),
        }
    }
}
