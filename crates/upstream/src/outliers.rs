//! Outlier detection: compares the latency of each endpoint with that of its peers, now and then,
//! during a request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::endpoint::EndpointState;
use super::guard::ejection::median;

/// Compares endpoints at a fixed interval.
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

    /// Compares the endpoints, if it is due. `stands`: the endpoint is in good standing.
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
        // One after another: an endpoint that is ejected no longer counts for the next.
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
