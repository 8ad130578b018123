//! Active health checks: one task per endpoint.
//!
//! A check uses the same Host and headers as a viewer's request, but a new connection, which it
//! closes: whether the endpoint accepts connections is part of the check, and pooled ones are for
//! viewers. It takes no permit, since a busy group may be healthy, and is not counted as an
//! attempt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::attempt::EndpointClient;
use super::connection::{AttemptRequest, PayloadSize, drain};
use super::endpoint::{CheckFailure, EndpointState, std_now};
use super::sign::{RequestAuth, Signer};
use super::{Check, CheckKind, Failure, Priority, RequestClass};

/// Minimum interval between two checks, whatever the settings say.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// `User-Agent` that identifies checks in the origin's logs.
const NAME: HeaderValue = HeaderValue::from_static("seawall-health-check");

/// The health checks of a group.
pub(super) struct HealthChecks {
    check: Check,
    client: Arc<EndpointClient>,
    signer: Arc<Signer>,
    endpoints: Vec<Arc<EndpointState>>,
    /// The tasks are running.
    is_running: AtomicBool,
    /// Another group checks the endpoints now.
    is_retired: AtomicBool,
}

impl HealthChecks {
    pub(super) fn new(
        check: Check,
        client: &Arc<EndpointClient>,
        signer: &Arc<Signer>,
        endpoints: &[Arc<EndpointState>],
    ) -> HealthChecks {
        HealthChecks {
            check,
            client: Arc::clone(client),
            signer: Arc::clone(signer),
            endpoints: endpoints.to_vec(),
            is_running: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
        }
    }

    /// Makes no check any more, although requests may still hold the group.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Starts the check tasks, unless they are running. They end when the health checks are
    /// retired or dropped.
    pub(super) fn start(self: &Arc<Self>) {
        if self.is_retired() || self.is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        let tasks = Arc::new(CheckTasks(Arc::downgrade(self)));
        for endpoint in &self.endpoints {
            let first = self.check.schedule.first_check(std_now(), fastrand::f64());
            tokio::spawn(Arc::clone(&tasks).run(endpoint.index, first.into()));
        }
    }

    async fn check(&self, endpoint: &EndpointState) {
        let until = Instant::now() + self.check.timeout;
        let (admission, result) = match &self.check.kind {
            // An accepted connection does not tell the breaker about responses.
            CheckKind::Tcp => {
                let connected = self.client.connect_for_check(endpoint, until).await;
                (None, connected.map(drop).map_err(CheckFailure::Failure))
            }
            CheckKind::Http { path, expect } => {
                let admission = endpoint.admit_probe(std_now());
                let status = self.request(endpoint, path, until).await;
                let status = status.map_err(CheckFailure::Failure);
                (admission, status.and_then(|status| judge(status, expect)))
            }
        };
        endpoint.record_check(result, admission);
    }

    /// Requests `path` on a new connection.
    pub(super) async fn request(
        &self,
        endpoint: &EndpointState,
        path: &PathAndQuery,
        until: Instant,
    ) -> Result<StatusCode, Failure> {
        self.signer.wait_for_credentials(until).await?;
        let connection = self.client.connect_for_check(endpoint, until).await?;
        let request = check_request(path, self.signer.request_auth()?)?;
        let exchange = async {
            let answered = self.client.send(connection, &request, None).await;
            let mut answered = answered.map_err(|broken| broken.failure)?;
            // For a long body, the status is enough.
            drain(&mut answered.connection, answered.head.framing).await?;
            Ok(answered.head.status)
        };
        timeout_at(until, exchange)
            .await
            .unwrap_or(Err(Failure::Timeout))
    }
}

fn check_request(path: &PathAndQuery, auth: RequestAuth) -> Result<AttemptRequest, Failure> {
    Ok(AttemptRequest {
        method: Method::GET,
        target: auth.target(path)?,
        host: None,
        headers: HeaderMap::from_iter([(USER_AGENT, NAME)]),
        payload: PayloadSize::Nothing,
        is_blocking: false,
        priority: Priority::Refresh,
        class: RequestClass::Other,
        auth,
    })
}

fn judge(status: StatusCode, expect: &[StatusCode]) -> Result<(), CheckFailure> {
    let good = if expect.is_empty() {
        status.is_success() || status.is_redirection()
    } else {
        expect.contains(&status)
    };
    good.then_some(()).ok_or(CheckFailure::Status(status))
}

/// Held by the check tasks; its drop allows them to start again.
struct CheckTasks(Weak<HealthChecks>);

impl CheckTasks {
    /// Checks one endpoint while its group lives.
    async fn run(self: Arc<Self>, endpoint: usize, first: Instant) {
        let mut next = first;
        loop {
            sleep_until(next).await;
            let Some(checks) = self.0.upgrade().filter(|checks| !checks.is_retired()) else {
                return;
            };
            let started = std_now();
            checks.check(&checks.endpoints[endpoint]).await;
            let due = checks.check.schedule.next_check(started, fastrand::f64());
            next = Instant::from_std(due).max(Instant::now() + PAUSE_MIN);
        }
    }
}

impl Drop for CheckTasks {
    fn drop(&mut self) {
        if let Some(checks) = self.0.upgrade() {
            checks.is_running.store(false, Ordering::Release);
        }
    }
}
