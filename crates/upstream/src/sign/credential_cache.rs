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
/// Time before expiry at which credentials are renewed, and up to how much earlier: a fleet of
/// instances must not renew at once.
const RENEWAL_LEAD: Duration = Duration::from_mins(5);
const RENEWAL_LEAD_JITTER: Duration = Duration::from_mins(1);
/// Credentials without an expiry may still be replaced at their source.
const RECHECK_EVERY: Duration = Duration::from_mins(1);
/// Minimum time between two rounds; and maximum, if they fail and no request needs credentials.
const GAP_MIN: Duration = Duration::from_secs(1);
const GAP_MAX: Duration = Duration::from_secs(30);
/// Deadline of one round through all sources.
const ROUND_MAX: Duration = Duration::from_secs(15);

/// The credentials of one origin group.
pub(super) struct CredentialCache {
    /// The group's name, for logs.
    owner: Arc<str>,
    providers: Vec<CredentialProvider>,
    cached: RwLock<Option<Credentials>>,
    renewal: SingleTask,
    /// Notified when a request finds no valid credentials.
    renewal_wanted: Arc<Notify>,
    /// Number of finished rounds.
    rounds: watch::Sender<u64>,
    /// Permits for waiting requests.
    waiting: Semaphore,
    /// What the last log message reported.
    logged: Mutex<Option<LoggedOutcome>>,
}

/// The logged result of the last round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoggedOutcome {
    /// Credentials came from this source.
    Renewed(&'static str),
    /// It failed; the cached credentials are still valid.
    NotRenewed,
    /// It failed, and no valid credentials are cached.
    NoneValid,
}

impl CredentialCache {
    pub(super) fn new(
        owner: &Arc<str>,
        sources: &[CredentialSource],
        lookup: &Resolver,
    ) -> Result<Arc<CredentialCache>, SetupError> {
        let sources = sources.iter().cloned();
        let providers = sources.map(|source| CredentialProvider::new(source, lookup));
        Ok(Arc::new(CredentialCache {
            owner: Arc::clone(owner),
            providers: providers.collect::<Result<_, _>>()?,
            cached: RwLock::default(),
            renewal: SingleTask::default(),
            renewal_wanted: Arc::default(),
            rounds: watch::Sender::new(0),
            waiting: Semaphore::new(WAITING_MAX),
            logged: Mutex::default(),
        }))
    }

    /// Waits until there are valid credentials: cached ones, else those of the next round to end.
    pub(super) async fn wait_until_valid(self: &Arc<Self>, until: Instant) -> Result<(), Failure> {
        self.start_renewal();
        let mut rounds = self.rounds.subscribe();
        if self.cached().is_none() {
            let waiting = self.waiting.try_acquire();
            let _waiting = waiting.map_err(|_| Failure::Credentials)?;
            self.renewal_wanted.notify_one();
            // In time or not: only the cache matters now.
            let until = until.min(Instant::now() + RENEWAL_WAIT_MAX);
            let _ = timeout_at(until, rounds.changed()).await;
        }
        self.credentials().map(drop)
    }

    /// Valid credentials, if cached.
    pub(super) fn credentials(&self) -> Result<Credentials, Failure> {
        self.cached().ok_or(Failure::Credentials)
    }

    /// The cached credentials, unless expired.
    fn cached(&self) -> Option<Credentials> {
        let cached = self.cached.read().clone()?;
        let is_valid = cached
            .expiry()
            .is_none_or(|expiry| SystemTime::now() < expiry);
        is_valid.then_some(cached)
    }

    /// Starts the renewal, unless it is running. Must be called inside a tokio runtime; if that
    /// runtime ends, the next call starts it again.
    pub(super) fn start_renewal(self: &Arc<Self>) {
        let Some(task) = self.renewal.take() else {
            return;
        };
        let (cache, wanted) = (Arc::downgrade(self), Arc::clone(&self.renewal_wanted));
        tokio::spawn(async move {
            let _task = task;
            let mut failures = 0;
            while let Some(cache) = cache.upgrade() {
                let gap = cache.renew(&mut failures).await;
                drop(cache);
                sleep(gap.min(GAP_MIN)).await;
                let _ = timeout(gap.saturating_sub(GAP_MIN), wanted.notified()).await;
            }
        });
    }

    /// Tries the sources in order, and caches what the first one has. Returns the time until the
    /// next round.
    async fn renew(&self, failures: &mut u32) -> Duration {
        // Suppress logs of single requests: one message below reports everything that was tried.
        let attempt = self.ask_providers().with_subscriber(Dispatch::none());
        let late = |_| Err("no credential source answered in time".to_owned());
        let gap = match timeout(ROUND_MAX, attempt).await.unwrap_or_else(late) {
            Ok((source, credentials)) => {
                *failures = 0;
                let expiry = credentials.expiry();
                *self.cached.write() = Some(credentials);
                self.log_change(LoggedOutcome::Renewed(source), "");
                next_renewal(expiry, SystemTime::now(), fastrand::f64())
            }
            Err(tried) => {
                *failures += 1;
                let state = match self.cached() {
                    Some(_) => LoggedOutcome::NotRenewed,
                    None => LoggedOutcome::NoneValid,
                };
                self.log_change(state, &tried);
                next_retry(*failures, fastrand::f64())
            }
        };
        self.rounds.send_modify(|rounds| *rounds += 1);
        gap
    }

    /// The credentials of the first source that has some, or the errors of all tried ones.
    async fn ask_providers(&self) -> Result<(&'static str, Credentials), String> {
        let mut tried = Vec::new();
        for provider in &self.providers {
            match provider.fetch().await {
                Ok(credentials) => return Ok((provider.name(), credentials)),
                Err(error) => {
                    tried.push(format!("{}: {}", provider.name(), error.why));
                    if !error.absent {
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
    fn log_change(&self, state: LoggedOutcome, tried: &str) {
        let before = self.logged.lock().replace(state);
        let origin = &*self.owner;
        match state {
            _ if before == Some(state) => {}
            LoggedOutcome::Renewed(source) => tracing::info!(origin, source, "credentials found"),
            LoggedOutcome::NotRenewed => tracing::warn!(
                origin,
                tried,
                "credentials not renewed: the last ones are used until they expire"
            ),
            LoggedOutcome::NoneValid => tracing::warn!(
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
        self.renewal_wanted.notify_one();
    }
}

/// Time until renewal; `jitter` is from 0 to 1.
fn next_renewal(expiry: Option<SystemTime>, now: SystemTime, jitter: f64) -> Duration {
    let Some(expiry) = expiry else {
        return RECHECK_EVERY;
    };
    let left = expiry.duration_since(now).unwrap_or_default();
    let ahead = RENEWAL_LEAD + RENEWAL_LEAD_JITTER.mul_f64(jitter);
    // Short-lived credentials are renewed at half of their lifetime.
    left.saturating_sub(ahead).max(left / 2).max(GAP_MIN)
}

/// Time until the next attempt after this many failures in a row; `jitter` is from 0 to 1.
fn next_retry(failures: u32, jitter: f64) -> Duration {
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
        assert_eq!(next_renewal(None, now, 0.5), RECHECK_EVERY);
    }

    #[test]
    fn failed_renewal_backs_off_up_to_30_seconds() {
        let tries = [1, 2, 3, 9, u32::MAX].map(|failures| next_retry(failures, 1.0).as_secs());
        assert_eq!(tries, [2, 4, 8, 30, 30]);
        assert_eq!(next_retry(1, 0.0), GAP_MIN);
    }
}
