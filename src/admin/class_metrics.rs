//! The metrics and the status of classes of clients.

use serde_json::{Value, json};

use crate::proxy::{ClassStats, RefusedStatus, Shield};
use crate::telemetry::{
    ClassRequestCounts, CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel,
};

const CLIENT_CLASS: MetricLabel = MetricLabel {
    name: "client_class",
    values: LabelValues::Dynamic(
        "the name of a `[[client_class]]`, `other`, or `background`: what no client waits for, \
         such as refreshes and prefetches",
    ),
};

const REFUSED_STATUS: MetricLabel = MetricLabel {
    name: "status",
    values: LabelValues::Fixed(|| RefusedStatus::ALL.map(RefusedStatus::as_str).to_vec()),
};

/// What classes of clients cost origins, and what they share.
pub static CLASS_METRICS: [CollectedMetric<Vec<ClassStats>>; 4] = [
    Metric {
        name: "seawall_class_origin_requests_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[CLIENT_CLASS],
        help: "Requests to origins on behalf of the clients of a class: of the one that began the \
               fetch, whoever else waited for it. With retries and hedges, without probes and \
               health checks. Increments when such a request begins.",
        remedy: "If it rises for one class alone, it requests what no other one does: see the \
                 access log.",
    }
    .collected(|classes, samples| {
        for class in classes {
            samples.add(&[&class.name], class.origin_requests);
        }
    }),
    Metric {
        name: "seawall_class_origin_bytes_total",
        kind: MetricKind::Counter,
        unit: "bytes",
        labels: &[CLIENT_CLASS],
        help: "Body bytes received from origins for the requests that a class caused (see \
               seawall_class_origin_requests_total). Increments with each chunk.",
        remedy: "If it rises for one class alone, it requests what no other one does: see the \
                 access log.",
    }
    .collected(|classes, samples| {
        for class in classes {
            samples.add(&[&class.name], class.origin_bytes);
        }
    }),
    Metric {
        name: "seawall_class_collapsed_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[CLIENT_CLASS],
        help: "Fetches that a class was spared because it shares this shield: its first requests \
               for a version of an object that another class had got, or waited for, before. Each \
               would have been a request to the origin from a shield of its own. Increments with \
               each such request. Not counted: slices of large objects, what may not be shared.",
        remedy: "If it is low beside seawall_class_requests_total, the CDNs request other URLs: \
                 see query and forward_host of the route.",
    }
    .collected(|classes, samples| {
        for class in classes {
            if let Some(collapsed) = class.collapsed {
                samples.add(&[&class.name], collapsed);
            }
        }
    }),
    Metric {
        name: "seawall_class_refused_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[CLIENT_CLASS, REFUSED_STATUS],
        help: "Requests of the clients of a class that were refused because of who sends them: 403 \
               by an access rule of the route, 429 by a rate limit. Increments with each such \
               request.",
        remedy: "429: the CDN requests more than its quota, or than a limit of the route. 403: it \
                 lacks the secret, the token or the address that the route demands; the access \
                 log says which, in `reason`.",
    }
    .collected(|classes, samples| {
        for class in classes {
            let counts = class.refused.into_iter().flatten();
            for (status, count) in RefusedStatus::ALL.into_iter().zip(counts) {
                samples.add(&[&*class.name, status.as_str()], count);
            }
        }
    }),
];

/// The classes as the status page shows them.
pub fn class_status(shield: &Shield) -> Value {
    let requests = shield.telemetry().class_metrics.counts();
    let classes = shield.classes().into_iter().map(|class| {
        let counts = requests.iter().find(|counts| counts.name == class.name);
        let refused = |status: RefusedStatus| class.refused.map(|counts| counts[status as usize]);
        json!({
            "name": &*class.name,
            "requests": counts.map(ClassRequestCounts::requests),
            "hit_ratio": counts.and_then(ClassRequestCounts::hit_ratio),
            "sent_bytes": counts.map(|counts| counts.sent_bytes),
            "origin_requests": class.origin_requests,
            "origin_bytes": class.origin_bytes,
            "collapsed": class.collapsed,
            "denied": refused(RefusedStatus::Denied),
            "rate_limited": refused(RefusedStatus::RateLimited),
        })
    });
    classes.collect()
}
