//! Outlier detection: compares the latency of each endpoint with that of its peers, now and then,
//! during a request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::endpoint::EndpointState;
use crate::guard::ejection::median;

/// Compares endpoints at a fixed interval.
pub(crate) struct OutlierDetection {
    every: Duration,
    due: Mutex<Instant>,
}

impl OutlierDetection {
    pub(crate) fn new(every: Duration, now: Instant) -> OutlierDetection {
        OutlierDetection {
            every,
            due: Mutex::new(now + every),
        }
    }

    /// Compares the endpoints, if it is due.
    pub(crate) fn judge(
        &self,
        endpoints: &[Arc<EndpointState>],
        now: Instant,
        is_in_good_standing: impl Fn(&EndpointState) -> bool,
    ) {
        if endpoints.len() < 2 {
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
        for endpoint in endpoints
            .iter()
            .filter(|endpoint| is_in_good_standing(endpoint))
        {
            let peers = endpoints.iter().filter(|peer| peer.index != endpoint.index);
            let peers: Vec<_> = peers.filter(|peer| is_in_good_standing(peer)).collect();
            let times = peers.iter().filter_map(|peer| peer.recent_latency(now));
            let mut times: Vec<_> = times.map(|reading| reading.p50).collect();
            if let Some(typical) = median(&mut times) {
                endpoint.judge_latency(now, typical, peers.len());
            }
        }
    }
}
