//! Is an endpoint well while nobody asks for anything? A task for each tries it from time to time.
//!
//! A check is asked like a viewer's request, with the same Host and headers, but on a connection of
//! its own, which it closes: whether the endpoint takes new ones is half of the question, and those
//! of the pool are for viewers. It takes no permit, since a busy group is not a sick one, and is
//! counted apart.

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

/// Between two checks at least, whatever the settings say.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// What origins' logs tell checks by.
const NAME: HeaderValue = HeaderValue::from_static("seawall-health-check");

/// The checks of a group.
pub(super) struct HealthChecks {
    check: Check,
    /// Somebody makes them.
    attended: AtomicBool,
}

/// Why a check did not go well.
#[derive(Debug)]
pub(super) enum CheckFailure {
    /// There was no whole answer.
    Failure(Failure),
    /// It had a status that is not expected.
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
    /// Starts checking, unless nothing is to be checked or that goes on already. The tasks end with
    /// the group.
    pub(super) fn attend(self: &Arc<Self>) {
        let Some(checkups) = &self.checkups else {
            return;
        };
        if checkups.attended.swap(true, Ordering::AcqRel) {
            return;
        }
        let attendance = Arc::new(CheckGuard(Arc::downgrade(self)));
        for site in &self.sites {
            let first = checkups.check.pace.first_check(now(), fastrand::f64());
            tokio::spawn(Arc::clone(&attendance).look_after(site.place, first.into()));
        }
    }

    async fn check(self: &Arc<Self>, check: &Check, site: &EndpointState) {
        let until = Instant::now() + check.timeout;
        let (leave, result) = match &check.kind {
            // That it takes connections does not tell a breaker what it answers.
            CheckKind::Tcp => (None, self.check_connecting(site, until).await.map(drop)),
            CheckKind::Http { path, expect } => {
                let leave = site.leave_to_probe(now());
                let asked = self.check_asking(site, path, until).await;
                (leave, asked.and_then(|status| judge(status, expect)))
            }
        };
        site.checked(result, leave);
    }

    async fn check_connecting(
        &self,
        site: &EndpointState,
        until: Instant,
    ) -> Result<UpstreamConnection, CheckFailure> {
        let connect_until = until.min(Instant::now() + self.deadlines.connect);
        let connecting = self.dial.line(site.place, true, connect_until);
        let mut line = connecting.await.map_err(CheckFailure::Failure)?;
        line.condemn();
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
            let asked = self.converse(line, &request, None).await;
            let (mut line, head) = asked.map_err(|broken| broken.failure)?;
            // Of a long one, the status must do.
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
        seal,
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

/// Held by the tasks that check; gone with the last of them.
struct CheckGuard(Weak<OriginGroup>);

impl CheckGuard {
    /// Checks one endpoint for as long as its group lives.
    async fn look_after(self: Arc<Self>, place: usize, first: Instant) {
        let mut next = first;
        loop {
            sleep_until(next).await;
            let Some(desk) = self.0.upgrade() else {
                return;
            };
            let Some(checkups) = &desk.checkups else {
                return;
            };
            let began = now();
            desk.check(&checkups.check, &desk.sites[place]).await;
            let due = checkups.check.pace.next_check(began, fastrand::f64());
            next = Instant::from_std(due).max(Instant::now() + PAUSE_MIN);
        }
    }
}

impl Drop for CheckGuard {
    fn drop(&mut self) {
        if let Some(desk) = self.0.upgrade()
            && let Some(checkups) = &desk.checkups
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
