//! Caches the credentials for signing and renews them in the background before they expire.
//!
//! One task tries the sources in order. A request waits only if no valid credentials are cached,
//! and not for long. A failure is logged once, not at every attempt.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

use super::Credentials;
use super::background_task::SingleTask;
use super::credential_provider::CredentialProvider;
use super::source::CredentialSource;
use crate::{Failure, Resolver, SetupError};

/// How long a request waits for the first valid credentials.
const RENEWAL_WAIT_MAX: Duration = Duration::from_secs(1);
/// Maximum number of waiting requests; more are refused.
const WAITING_MAX: usize = 4096;
/// Renewal before expiry, plus up to this jitter, so that a fleet does not renew at once.
const AHEAD: Duration = Duration::from_mins(5);
const AHEAD_JITTER: Duration = Duration::from_mins(1);
/// Credentials without an expiry may still be replaced at their source.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// Minimum time between two rounds; and maximum, if they fail and no request asks.
const GAP_MIN: Duration = Duration::from_secs(1);
const GAP_MAX: Duration = Duration::from_secs(30);
/// Deadline of one round through all sources.
const ROUND_MAX: Duration = Duration::from_secs(15);

/// The credentials of one origin group.
pub(super) struct CredentialCache {
    /// The group's name, for logs.
    owner: Arc<str>,
    issuers: Vec<CredentialProvider>,
    held: RwLock<Option<Credentials>>,
    renewal: SingleTask,
    /// A request found no valid credentials.
    wanted: Arc<Notify>,
    /// Number of finished rounds.
    rounds: watch::Sender<u64>,
    /// Permits for waiting requests.
    waiting: Semaphore,
    told: Mutex<Option<LoggedOutcome>>,
}

/// The logged result of the last round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoggedOutcome {
    /// Credentials came from this source.
    Fine(&'static str),
    /// It failed; the cached credentials are still valid.
    NotRenewed,
    /// It failed, and no valid credentials are cached.
    Nothing,
}

impl CredentialCache {
    pub(super) fn new(
        owner: &Arc<str>,
        sources: &[CredentialSource],
        lookup: &Resolver,
    ) -> Result<Arc<CredentialCache>, SetupError> {
        let sources = sources.iter().cloned();
        let issuers = sources.map(|source| CredentialProvider::new(source, lookup));
        Ok(Arc::new(CredentialCache {
            owner: Arc::clone(owner),
            issuers: issuers.collect::<Result<_, _>>()?,
            held: RwLock::default(),
            renewal: SingleTask::default(),
            wanted: Arc::default(),
            rounds: watch::Sender::new(0),
            waiting: Semaphore::new(WAITING_MAX),
            told: Mutex::default(),
        }))
    }

    /// Waits until there are valid credentials: cached ones, else those of the next round to end.
    pub(super) async fn ready(self: &Arc<Self>, until: Instant) -> Result<(), Failure> {
        self.tend();
        let mut rounds = self.rounds.subscribe();
        if self.held().is_none() {
            let seat = self.waiting.try_acquire();
            let _seat = seat.map_err(|_| Failure::Credentials)?;
            self.wanted.notify_one();
            // In time or not: only the cache matters now.
            let until = until.min(Instant::now() + RENEWAL_WAIT_MAX);
            let _ = timeout_at(until, rounds.changed()).await;
        }
        self.credentials().map(drop)
    }

    /// Valid credentials, if cached.
    pub(super) fn credentials(&self) -> Result<Credentials, Failure> {
        self.held().ok_or(Failure::Credentials)
    }

    /// The cached credentials, unless expired.
    fn held(&self) -> Option<Credentials> {
        let held = self.held.read().clone()?;
        let good = held
            .expiry()
            .is_none_or(|expiry| SystemTime::now() < expiry);
        good.then_some(held)
    }

    /// Starts the renewal, unless it is running. Must be called inside a tokio runtime; if that
    /// runtime ends, the next call starts it again.
    pub(super) fn tend(self: &Arc<Self>) {
        let Some(on_duty) = self.renewal.take() else {
            return;
        };
        let (ring, wanted) = (Arc::downgrade(self), Arc::clone(&self.wanted));
        tokio::spawn(async move {
            let _on_duty = on_duty;
            let mut failures = 0;
            while let Some(ring) = ring.upgrade() {
                let gap = ring.round(&mut failures).await;
                drop(ring);
                sleep(gap.min(GAP_MIN)).await;
                let _ = timeout(gap.saturating_sub(GAP_MIN), wanted.notified()).await;
            }
        });
    }

    /// Tries the sources in order; returns the time until the next round.
    async fn round(&self, failures: &mut u32) -> Duration {
        // Suppress logs of single requests: one message below reports everything that was tried.
        let asking = self.ask().with_subscriber(Dispatch::none());
        let late = |_| Err("no credential source answered in time".to_owned());
        let gap = match timeout(ROUND_MAX, asking).await.unwrap_or_else(late) {
            Ok((place, credentials)) => {
                *failures = 0;
                let expiry = credentials.expiry();
                *self.held.write() = Some(credentials);
                self.tell(LoggedOutcome::Fine(place), "");
                next_renewal(expiry, SystemTime::now(), fastrand::f64())
            }
            Err(tried) => {
                *failures += 1;
                let state = match self.held() {
                    Some(_) => LoggedOutcome::NotRenewed,
                    None => LoggedOutcome::Nothing,
                };
                self.tell(state, &tried);
                next_try(*failures, fastrand::f64())
            }
        };
        self.rounds.send_modify(|rounds| *rounds += 1);
        gap
    }

    /// The credentials of the first source that has some, or the errors of all tried ones.
    async fn ask(&self) -> Result<(&'static str, Credentials), String> {
        let mut tried = Vec::new();
        for issuer in &self.issuers {
            match issuer.issue().await {
                Ok(credentials) => return Ok((issuer.name(), credentials)),
                Err(refusal) => {
                    tried.push(format!("{}: {}", issuer.name(), refusal.why));
                    if !refusal.absent {
                        break;
                    }
                }
            }
        }
        match tried.len() {
            0 => Err("no credential source is known".to_owned()),
            _ => Err(tried.join("; ")),
        }
    }

    /// Logs changes only.
    fn tell(&self, state: LoggedOutcome, tried: &str) {
        let before = self.told.lock().replace(state);
        let origin = &*self.owner;
        match state {
            _ if before == Some(state) => {}
            LoggedOutcome::Fine(place) => tracing::info!(origin, place, "credentials found"),
            LoggedOutcome::NotRenewed => tracing::warn!(
                origin,
                tried,
                "credentials not renewed: the last ones are used until they expire"
            ),
            LoggedOutcome::Nothing => tracing::warn!(
                origin,
                tried,
                "no credentials: requests to this origin fail"
            ),
        }
    }
}

impl Drop for CredentialCache {
    /// Wakes the renewal task so that it ends.
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

/// Time until renewal; `jitter` is from 0 to 1.
fn next_renewal(expiry: Option<SystemTime>, now: SystemTime, jitter: f64) -> Duration {
    let Some(expiry) = expiry else {
        return LOOK_EVERY;
    };
    let left = expiry.duration_since(now).unwrap_or_default();
    let ahead = AHEAD + AHEAD_JITTER.mul_f64(jitter);
    // Short-lived credentials are renewed at half of their lifetime.
    left.saturating_sub(ahead).max(left / 2).max(GAP_MIN)
}

/// Time until the next attempt after this many failures in a row; `jitter` is from 0 to 1.
fn next_try(failures: u32, jitter: f64) -> Duration {
    let doubled = GAP_MIN.saturating_mul(1 << failures.min(6));
    doubled
        .min(GAP_MAX)
        .mul_f64(0.5 + jitter / 2.0)
        .max(GAP_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_before_they_expire() {
        let now = SystemTime::now();
        let next = |left: u64, jitter| {
            let expiry = now + Duration::from_secs(left);
            next_renewal(Some(expiry), now, jitter).as_secs()
        };
        assert_eq!(next(21_600, 0.0), 21_300);
        assert_eq!(next(21_600, 1.0), 21_240);
        assert_eq!(next(400, 0.5), 200);
        assert_eq!(next(0, 0.5), 1);
        assert_eq!(next_renewal(None, now, 0.5), LOOK_EVERY);
    }

    #[test]
    fn failed_renewal_backs_off_up_to_30_seconds() {
        let tries = [1, 2, 3, 9, u32::MAX].map(|failures| next_try(failures, 1.0).as_secs());
        assert_eq!(tries, [2, 4, 8, 30, 30]);
        assert_eq!(next_try(1, 0.0), GAP_MIN);
    }
}
