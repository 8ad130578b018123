//! The metrics of requests by the class of their client. Each thread has counters of its own, as
//! for the other metrics of requests.

use std::sync::Arc;

use parking_lot::RwLock;

use super::metric::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};
use super::thread_counters::ThreadCounters;
use super::{MetricRegistry, RequestRecord, ResponseSource};

/// Classes with counters, that of other clients included. Reloads may name others.
pub const CLIENT_CLASSES_MAX: usize = 32;

const CLIENT_CLASS: MetricLabel = MetricLabel {
    name: "client_class",
    values: LabelValues::Dynamic("the name of a `[[client_class]]`, or `other`"),
};
const SOURCE: MetricLabel = MetricLabel {
    name: "source",
    values: LabelValues::Fixed(|| ResponseSource::ALL.map(ResponseSource::as_str).to_vec()),
};

static CLASS_REQUEST_METRICS: [CollectedMetric<Vec<ClassRequestCounts>>; 2] = [
    Metric {
        name: "seawall_class_requests_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[CLIENT_CLASS, SOURCE],
        help: "Requests by the class of their client, where there are classes, and by what their \
               response depended on: memory and blocking are hits, origin is a miss, shield is \
               neither. Increments when a request ends.",
        remedy: "If other rises, a CDN sends from an address or with a header that no class names.",
    }
    .collected(|classes, samples| {
        for class in classes {
            for source in ResponseSource::ALL {
                let labels = [&*class.name, source.as_str()];
                samples.add(&labels, class.by_source[source.index()]);
            }
        }
    }),
    Metric {
        name: "seawall_class_sent_bytes_total",
        kind: MetricKind::Counter,
        unit: "bytes",
        labels: &[CLIENT_CLASS],
        help: "Body bytes sent to the clients of a class. Increments when a response ends, by the \
               whole body.",
        remedy: "If it is more than a CDN should need, its own cache does not hold what it gets.",
    }
    .collected(|classes, samples| {
        for class in classes {
            samples.add(&[&class.name], class.sent_bytes);
        }
    }),
];

/// The requests of a class.
#[derive(Clone, Debug)]
pub struct ClassRequestCounts {
    /// Its name.
    pub name: Arc<str>,
    /// Requests by what their response depended on, in the order of [`ResponseSource::ALL`].
    pub by_source: [u64; SOURCES],
    /// Body bytes sent.
    pub sent_bytes: u64,
}

impl ClassRequestCounts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.by_source.iter().sum()
    }

    /// The share of hits. `None`: there were no requests that could be one.
    pub fn hit_ratio(&self) -> Option<f64> {
        let those_that_are = |is_hit| {
            let sources = ResponseSource::ALL.into_iter();
            let sources = sources.filter(move |source| source.is_hit() == Some(is_hit));
            let counts = sources.map(|source| self.by_source[source.index()]);
            counts.sum::<u64>()
        };
        let (hits, misses) = (those_that_are(true), those_that_are(false));
        #[expect(clippy::cast_precision_loss, reason = "a ratio of a few digits")]
        let ratio = || hits as f64 / (hits + misses) as f64;
        (hits + misses > 0).then(ratio)
    }
}

const SOURCES: usize = ResponseSource::ALL.len();
/// The counters of a class: one per source, and the bytes.
const COUNTERS: usize = SOURCES + 1;

/// The counters of all classes.
pub struct ClassMetrics {
    counters: ThreadCounters,
    /// By the index of the class. Empty: there are none.
    names: RwLock<Vec<Arc<str>>>,
}

impl ClassMetrics {
    /// Registers the metrics. There are no classes yet.
    pub(super) fn register(
        registry: &mut MetricRegistry,
    ) -> Result<Arc<ClassMetrics>, prometheus::Error> {
        let metrics = Arc::new(ClassMetrics {
            counters: ThreadCounters::new(CLIENT_CLASSES_MAX * COUNTERS),
            names: RwLock::default(),
        });
        let scraped = Arc::clone(&metrics);
        registry.collect(
            "Requests by client class",
            &CLASS_REQUEST_METRICS,
            move || scraped.counts(),
        )?;
        Ok(metrics)
    }

    /// Names the classes that a record's index may mean from now on. The list only grows. Only the
    /// first [`CLIENT_CLASSES_MAX`] are counted.
    pub fn set_names(&self, names: &[Arc<str>]) {
        let room = names.len().min(CLIENT_CLASSES_MAX);
        *self.names.write() = names[..room].to_vec();
    }

    /// Counts one finished request of a class.
    pub(super) fn count(&self, class: usize, record: &RequestRecord) {
        let first = class.min(CLIENT_CLASSES_MAX - 1) * COUNTERS;
        let counters = self.counters.of_this_thread();
        counters.add(first + record.outcome.source().index(), 1);
        counters.add(first + SOURCES, record.bytes);
    }

    /// The requests of each class.
    pub fn counts(&self) -> Vec<ClassRequestCounts> {
        let sums = self.counters.sums();
        let names = self.names.read().clone();
        let of_class = |(name, counters): (Arc<str>, &[u64])| ClassRequestCounts {
            name,
            by_source: std::array::from_fn(|source| counters[source]),
            sent_bytes: counters[SOURCES],
        };
        names
            .into_iter()
            .zip(sums.chunks(COUNTERS))
            .map(of_class)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Outcome;
    use crate::telemetry::tests::record_of;
    use seawall_manifest::Kind;

    #[test]
    fn counts_requests_bytes_and_hits_by_class() {
        let metrics = ClassMetrics::register(&mut MetricRegistry::default()).unwrap();
        metrics.set_names(&["other".into(), "cdn".into()]);
        let outcomes = [
            (1, Outcome::Hit),
            (1, Outcome::Blocking),
            (1, Outcome::Stale),
            (1, Outcome::Miss),
            (1, Outcome::Refused),
            (0, Outcome::Refused),
        ];
        for (class, outcome) in outcomes {
            let record = RequestRecord {
                bytes: 10,
                ..record_of(outcome, Kind::Segment, 200)
            };
            metrics.count(class, &record);
        }
        let [other, cdn] = &metrics.counts()[..] else {
            panic!("two classes")
        };
        assert_eq!((&*cdn.name, cdn.requests(), cdn.sent_bytes), ("cdn", 5, 50));
        assert_eq!(cdn.hit_ratio(), Some(0.75));
        assert_eq!((other.requests(), other.hit_ratio()), (1, None));
    }
}
