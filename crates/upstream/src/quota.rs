//! Rate limits of an endpoint, for all requests or by class, and the queues of requests that wait
//! for them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::limit::{ConcurrencyLimiter, LimiterCounts, LimiterSettings};
use super::{Failure, Priority};
use seawall_manifest::Kind;

/// Requests per second that an endpoint allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// For all requests together.
    All(u32),
    /// For each class, in the order of [`RequestClass::ALL`]; `None`: unlimited.
    ByClass([Option<u32>; RequestClass::ALL.len()]),
}

/// Classes that origins with quotas distinguish. Also a metric label and a configuration key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestClass {
    /// HLS playlists and DASH MPDs.
    Manifest,
    /// Segments, parts and init segments.
    Segment,
    /// Decryption keys, time servers, images and everything else.
    Other,
}

impl RequestClass {
    /// Every class, in declared order.
    pub const ALL: [RequestClass; 3] = [
        RequestClass::Manifest,
        RequestClass::Segment,
        RequestClass::Other,
    ];

    /// The word used in metrics and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestClass::Manifest => "manifest",
            RequestClass::Segment => "segment",
            RequestClass::Other => "other",
        }
    }
}

impl From<Kind> for RequestClass {
    fn from(kind: Kind) -> RequestClass {
        match kind {
            Kind::Hls | Kind::Dash => RequestClass::Manifest,
            Kind::Segment | Kind::Init => RequestClass::Segment,
            Kind::DecryptionKey | Kind::TimeServer | Kind::Other => RequestClass::Other,
        }
    }
}

/// A snapshot of one rate limit of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStats {
    /// `all`, or a class.
    pub kind: &'static str,
    /// Maximum requests per second.
    pub per_second: u32,
    /// Number of times that a request found the endpoint at this limit.
    pub limited: u64,
}

/// The rate limits of one endpoint.
pub(super) struct Quotas {
    /// For all requests together; then for each class, in the order of [`RequestClass::ALL`].
    rates: [RequestRate; 1 + RequestClass::ALL.len()],
}

/// A rate limit that may be set and removed while requests wait for it.
struct RequestRate {
    /// `None`: all classes.
    class: Option<RequestClass>,
    /// [`UNLIMITED`]: requests do not ask for a token.
    per_second: AtomicU32,
    limiter: ConcurrencyLimiter,
    limited: AtomicU64,
}

/// Stands for no limit: a limit is at least one request per second.
const UNLIMITED: u32 = 0;

impl RequestRate {
    fn new(class: Option<RequestClass>) -> RequestRate {
        RequestRate {
            class,
            per_second: AtomicU32::new(UNLIMITED),
            limiter: ConcurrencyLimiter::new(&limiter_settings(None, 0)),
            limited: AtomicU64::new(0),
        }
    }

    fn per_second(&self) -> Option<u32> {
        let per_second = self.per_second.load(Ordering::Relaxed);
        (per_second != UNLIMITED).then_some(per_second)
    }

    /// `None`: no limit from now on. `is_replaced`: another limit applies instead; requests that
    /// wait here go on at the former rate, rather than all at once.
    fn set(&self, per_second: Option<u32>, queue_max: usize, is_replaced: bool) {
        let set = per_second.map(|per_second| per_second.max(1));
        self.per_second
            .store(set.unwrap_or(UNLIMITED), Ordering::Relaxed);
        if set.is_some() || !is_replaced {
            self.limiter.set_limits(&limiter_settings(set, queue_max));
        }
    }
}

fn limiter_settings(per_second: Option<u32>, queue_max: usize) -> LimiterSettings {
    LimiterSettings {
        concurrency_max: usize::MAX,
        reserved_for_manifests: 0,
        queue_max,
        requests_per_second_max: per_second,
    }
}

impl Quotas {
    pub(super) fn new(quota: Option<Quota>, queue_max: usize) -> Quotas {
        let [manifest, segment, other] =
            RequestClass::ALL.map(|class| RequestRate::new(Some(class)));
        let quotas = Quotas {
            rates: [RequestRate::new(None), manifest, segment, other],
        };
        quotas.set(quota, queue_max);
        quotas
    }

    /// Sets other limits from now on, for waiting requests too.
    pub(super) fn set(&self, quota: Option<Quota>, queue_max: usize) {
        let [all, classes @ ..] = &self.rates;
        let (common, by_class) = match quota {
            None => (None, [None; RequestClass::ALL.len()]),
            Some(Quota::All(per_second)) => (Some(per_second), [None; RequestClass::ALL.len()]),
            Some(Quota::ByClass(rates)) => (None, rates),
        };
        all.set(common, queue_max, quota.is_some());
        for (rate, per_second) in classes.iter().zip(by_class) {
            rate.set(per_second, queue_max, common.is_some());
        }
    }

    /// The limit that applies to a class: at most one, so that no token is lost while another is
    /// waited for.
    fn rate(&self, class: RequestClass) -> Option<&RequestRate> {
        let mut rates = self.rates.iter();
        rates.find(|rate| rate.class.is_none_or(|of| of == class) && rate.per_second().is_some())
    }

    /// A token is available now.
    pub(super) fn has_token(&self, class: RequestClass) -> bool {
        self.rate(class).is_none_or(|rate| rate.limiter.has_token())
    }

    /// Takes a token, if one is available now.
    pub(super) fn try_token(&self, class: RequestClass) -> bool {
        let Some(rate) = self.rate(class) else {
            return true;
        };
        let taken = rate.limiter.try_token();
        if !taken {
            rate.limited.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Waits for a token, in order of priority.
    pub(super) async fn wait_for_token(
        &self,
        class: RequestClass,
        priority: Priority,
        timeout: Duration,
    ) -> Result<(), Failure> {
        match self.rate(class) {
            Some(rate) => rate.limiter.wait_for_token(priority, timeout).await,
            None => Ok(()),
        }
    }

    /// Adds the requests that wait for a token, and those rejected.
    pub(super) fn add_waits(&self, counts: &mut LimiterCounts) {
        for rate in &self.rates {
            counts.add_waits(&rate.limiter.counts());
        }
    }

    pub(super) fn read(&self) -> Vec<QuotaStats> {
        let rates = self.rates.iter();
        let read = |rate: &RequestRate| {
            Some(QuotaStats {
                kind: rate.class.map_or("all", RequestClass::as_str),
                per_second: rate.per_second()?,
                limited: rate.limited.load(Ordering::Relaxed),
            })
        };
        rates.filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_class_has_its_own_rate_or_none() {
        let quotas = Quotas::new(Some(Quota::ByClass([Some(1), Some(20), None])), 8);
        let taken = |class| (0..10).take_while(|_| quotas.try_token(class)).count();
        let each = RequestClass::ALL.map(taken);
        assert_eq!(each, [1, 2, 10]);
        assert!(!quotas.has_token(RequestClass::Manifest) && quotas.has_token(RequestClass::Other));
        let read: Vec<_> = quotas
            .read()
            .iter()
            .map(|rate| (rate.kind, rate.limited))
            .collect();
        assert_eq!(read, [("manifest", 1), ("segment", 1)]);
    }

    #[test]
    fn single_rate_is_shared_by_all_classes() {
        let quotas = Quotas::new(Some(Quota::All(20)), 8);
        assert!(quotas.try_token(RequestClass::Manifest) && quotas.try_token(RequestClass::Other));
        assert!(!quotas.has_token(RequestClass::Segment));
        assert!(!quotas.try_token(RequestClass::Segment));
        assert!(Quotas::new(None, 8).try_token(RequestClass::Segment));
    }

    #[test]
    fn changed_quota_keeps_what_was_used_and_counted() {
        let quotas = Quotas::new(Some(Quota::All(10)), 8);
        assert!(quotas.try_token(RequestClass::Segment));
        assert!(!quotas.try_token(RequestClass::Segment));
        quotas.set(Some(Quota::All(1)), 8);
        assert!(!quotas.try_token(RequestClass::Segment), "no new burst");
        assert_eq!(
            (quotas.read()[0].per_second, quotas.read()[0].limited),
            (1, 2)
        );
        quotas.set(Some(Quota::ByClass([None, Some(10), None])), 8);
        let kinds: Vec<_> = quotas.read().iter().map(|rate| rate.kind).collect();
        assert_eq!(kinds, ["segment"]);
        assert!(
            quotas.try_token(RequestClass::Segment) && !quotas.try_token(RequestClass::Segment)
        );
        assert!(quotas.try_token(RequestClass::Manifest));
        quotas.set(None, 8);
        assert!(quotas.try_token(RequestClass::Segment) && quotas.read().is_empty());
    }
}
