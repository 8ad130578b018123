//! Which endpoint is too slow for its group? Now and then, on a request's way, each is compared
//! with its peers. Knows nobody's own reasons for being slow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::endpoint::EndpointState;
use super::guard::ejection::median;

/// When endpoints are compared next.
pub(super) struct OutlierDetection {
    every: Duration,
    due: Mutex<Instant>,
}

impl OutlierDetection {
    pub(super) fn new(every: Duration, now: Instant) -> OutlierDetection {
        OutlierDetection {
            every,
            due: Mutex::new(now + every),
        }
    }

    /// Compares them, if it is time again. `stands` says of whom a request would be answered.
    pub(super) fn hold(
        &self,
        sites: &[Arc<EndpointState>],
        now: Instant,
        stands: impl Fn(&EndpointState) -> bool,
    ) {
        if sites.len() < 2 {
            return;
        }
        {
            let mut due = self.due.lock();
            if now < *due {
                return;
            }
            *due = now + self.every;
        }
        // One after another: who is ejected no longer stands for the next.
        for site in sites.iter().filter(|site| stands(site)) {
            let peers = sites.iter().filter(|peer| peer.place != site.place);
            let peers: Vec<_> = peers.filter(|peer| stands(peer)).collect();
            let times = peers.iter().filter_map(|peer| peer.pace(now));
            let mut times: Vec<_> = times.map(|reading| reading.p50).collect();
            if let Some(typical) = median(&mut times) {
                site.compare(now, typical, peers.len());
            }
        }
    }
}
