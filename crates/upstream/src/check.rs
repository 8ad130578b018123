//! Active health checks: one task per endpoint.
//!
//! A check uses the same Host and headers as a viewer's request, but a new connection, which it
//! closes: whether the endpoint accepts connections is part of the check, and pooled ones are for
//! viewers. It takes no permit, since a busy group may be healthy, and is not counted as an
//! attempt.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::UpstreamConnection;
use super::endpoint::EndpointState;
use super::group::{OriginGroup, now};
use super::request::{AttemptRequest, PayloadSize};
use super::sign::RequestAuth;
use super::{Check, CheckKind, Failure, Priority, RequestClass, drain};

/// Minimum interval between two checks, whatever the settings say.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// `User-Agent` that identifies checks in the origin's logs.
const NAME: HeaderValue = HeaderValue::from_static("seawall-health-check");

/// The health checks of a group.
pub(super) struct HealthChecks {
    check: Check,
    /// The tasks are running.
    attended: AtomicBool,
}

/// Why a check failed.
#[derive(Debug)]
pub(super) enum CheckFailure {
    /// No complete response.
    Failure(Failure),
    /// An unexpected status.
    Status(StatusCode),
}

impl HealthChecks {
    pub(super) fn new(check: Check) -> HealthChecks {
        HealthChecks {
            check,
            attended: AtomicBool::new(false),
        }
    }
}

impl OriginGroup {
    /// Starts the check tasks, unless none are configured or they are running. They end with the
    /// group.
    pub(super) fn attend(self: &Arc<Self>) {
        let Some(checkups) = &self.health_checks else {
            return;
        };
        if checkups.attended.swap(true, Ordering::AcqRel) {
            return;
        }
        let attendance = Arc::new(CheckGuard(Arc::downgrade(self)));
        for site in &self.endpoints {
            let first = checkups.check.pace.first_check(now(), fastrand::f64());
            tokio::spawn(Arc::clone(&attendance).look_after(site.place, first.into()));
        }
    }

    async fn check(self: &Arc<Self>, check: &Check, site: &EndpointState) {
        let until = Instant::now() + check.timeout;
        let (leave, result) = match &check.kind {
            // An accepted connection does not tell the breaker about responses.
            CheckKind::Tcp => (None, self.check_connecting(site, until).await.map(drop)),
            CheckKind::Http { path, expect } => {
                let leave = site.acquire_probe_pass(now());
                let asked = self.check_asking(site, path, until).await;
                (leave, asked.and_then(|status| judge(status, expect)))
            }
        };
        site.record_check(result, leave);
    }

    async fn check_connecting(
        &self,
        site: &EndpointState,
        until: Instant,
    ) -> Result<UpstreamConnection, CheckFailure> {
        let connect_until = until.min(Instant::now() + self.deadlines.connect);
        let connecting = self.connector.acquire(site.place, true, connect_until);
        let mut line = connecting.await.map_err(CheckFailure::Failure)?;
        line.mark_unusable();
        Ok(line)
    }

    pub(super) async fn check_asking(
        &self,
        site: &EndpointState,
        path: &PathAndQuery,
        until: Instant,
    ) -> Result<StatusCode, CheckFailure> {
        let ready = self.signer.ready(until).await;
        ready.map_err(CheckFailure::Failure)?;
        let line = self.check_connecting(site, until).await?;
        let seal = self.signer.seal().map_err(CheckFailure::Failure)?;
        let request = request(path, seal).map_err(CheckFailure::Failure)?;
        let asking = async {
            let asked = self.send_on_connection(line, &request, None).await;
            let (mut line, head) = asked.map_err(|broken| broken.failure)?;
            // For a long body, the status is enough.
            drain::read(&mut line, head.framing).await?;
            Ok(head.status)
        };
        let asked = timeout_at(until, asking).await;
        asked
            .unwrap_or(Err(Failure::Timeout))
            .map_err(CheckFailure::Failure)
    }
}

fn request(path: &PathAndQuery, seal: RequestAuth) -> Result<AttemptRequest, Failure> {
    Ok(AttemptRequest {
        method: Method::GET,
        target: seal.target(path)?,
        host: None,
        headers: HeaderMap::from_iter([(USER_AGENT, NAME)]),
        payload: PayloadSize::Nothing,
        held_back: false,
        rank: Priority::Behind,
        class: RequestClass::Other,
        auth: seal,
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
struct CheckGuard(Weak<OriginGroup>);

impl CheckGuard {
    /// Checks one endpoint while its group lives.
    async fn look_after(self: Arc<Self>, place: usize, first: Instant) {
        let mut next = first;
        loop {
            sleep_until(next).await;
            let Some(desk) = self.0.upgrade() else {
                return;
            };
            let Some(checkups) = &desk.health_checks else {
                return;
            };
            let began = now();
            desk.check(&checkups.check, &desk.endpoints[place]).await;
            let due = checkups.check.pace.next_check(began, fastrand::f64());
            next = Instant::from_std(due).max(Instant::now() + PAUSE_MIN);
        }
    }
}

impl Drop for CheckGuard {
    fn drop(&mut self) {
        if let Some(desk) = self.0.upgrade()
            && let Some(checkups) = &desk.health_checks
        {
            checkups.attended.store(false, Ordering::Release);
        }
    }
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckFailure::Failure(failure) => failure.fmt(f),
            CheckFailure::Status(status) => write!(f, "status {}", status.as_u16()),
        }
    }
}
