//! Rate limits of an endpoint, for all requests or by class, and the queues of requests that wait
//! for them.

use std::sync::atomic::{AtomicU64, Ordering};
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
#[derive(Default)]
pub(super) struct Quotas {
    rates: Vec<RequestRate>,
}

struct RequestRate {
    /// `None`: all classes.
    class: Option<RequestClass>,
    per_second: u32,
    limiter: ConcurrencyLimiter,
    limited: AtomicU64,
}

impl RequestRate {
    fn new(class: Option<RequestClass>, per_second: u32, queue_max: usize) -> RequestRate {
        RequestRate {
            class,
            per_second,
            limiter: ConcurrencyLimiter::new(&LimiterSettings {
                concurrency_max: usize::MAX,
                reserved_for_manifests: 0,
                queue_max,
                requests_per_second_max: Some(per_second),
            }),
            limited: AtomicU64::new(0),
        }
    }
}

impl Quotas {
    pub(super) fn new(quota: Option<Quota>, queue_max: usize) -> Quotas {
        let rates = match quota {
            None => Vec::new(),
            Some(Quota::All(per_second)) => vec![RequestRate::new(None, per_second, queue_max)],
            Some(Quota::ByClass(rates)) => {
                let rates = RequestClass::ALL.into_iter().zip(rates);
                let new = |(class, rate)| Some(RequestRate::new(Some(class), rate?, queue_max));
                rates.filter_map(new).collect()
            }
        };
        Quotas { rates }
    }

    /// The limit that applies to a class: at most one, so that no token is lost while another is
    /// waited for.
    fn rate(&self, class: RequestClass) -> Option<&RequestRate> {
        let mut rates = self.rates.iter();
        rates.find(|rate| rate.class.is_none_or(|of| of == class))
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
        let read = |rate: &RequestRate| QuotaStats {
            kind: rate.class.map_or("all", RequestClass::as_str),
            per_second: rate.per_second,
            limited: rate.limited.load(Ordering::Relaxed),
        };
        rates.map(read).collect()
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
        assert!(Quotas::default().try_token(RequestClass::Segment));
    }
}
