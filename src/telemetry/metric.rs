//! Declares metrics, and reads their values at scrape time. It knows no metric by name.
//!
//! A metric is declared once, as a [`Metric`]: the scrape, `docs/metrics.md` and the checks of
//! names and labels use that declaration.

use std::borrow::Cow;
use std::time::Duration;

use prometheus::proto;

use seawall_policy::Key;

/// A declared metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Begins with `seawall_` and uses base units; the name of a counter ends in `_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// What one unit of the value is: `requests`, `bytes`, `seconds`.
    pub unit: &'static str,
    /// Its labels, in the order in which [`Samples::add`] takes their values.
    pub labels: &'static [MetricLabel],
    /// What is counted or measured, and when it increments.
    pub help: &'static str,
    /// What to do when the value is wrong.
    pub remedy: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases, from 0 at the process start.
    Counter,
    /// The value at the time of the scrape.
    Gauge,
    /// Observations since the process start, by upper bound.
    Histogram,
}

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricLabel {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: LabelValues,
}

/// The values of a label.
#[derive(Clone, Copy, Debug)]
pub enum LabelValues {
    /// These values.
    Fixed(fn() -> Vec<&'static str>),
    /// Values that are known only at run time. The text says which they are.
    Dynamic(&'static str),
}

/// The unit of a gauge that says yes or no.
pub const YES_OR_NO: &str = "1 (yes) or 0 (no)";

impl MetricKind {
    /// The word of the text format.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// The help text of the scrape.
    pub(super) fn full_help(&self) -> String {
        format!("{} {}", self.help, self.remedy)
    }

    /// The names of the labels.
    pub(super) fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.name).collect()
    }

    /// Adds how to read the samples from a snapshot of type `S`, at each scrape.
    pub const fn collected<S>(self, read: fn(&S, &mut Samples)) -> CollectedMetric<S> {
        CollectedMetric { metric: self, read }
    }
}

/// A metric whose value is kept elsewhere and read at scrape time.
pub struct CollectedMetric<S> {
    metric: Metric,
    read: fn(&S, &mut Samples),
}

impl<S> CollectedMetric<S> {
    /// Its declaration.
    pub(super) fn declaration(&self) -> &Metric {
        &self.metric
    }

    /// All samples of this metric; `None` if the snapshot has none.
    pub(super) fn family(&'static self, snapshot: &S) -> Option<proto::MetricFamily> {
        let mut samples = Samples {
            metric: &self.metric,
            samples: Vec::new(),
        };
        (self.read)(snapshot, &mut samples);
        if samples.samples.is_empty() {
            return None;
        }
        let mut family = proto::MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.full_help());
        family.set_field_type(match self.metric.kind {
            MetricKind::Counter => proto::MetricType::COUNTER,
            MetricKind::Gauge => proto::MetricType::GAUGE,
            MetricKind::Histogram => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(samples.samples);
        Some(family)
    }
}

/// The samples of one metric in one scrape.
pub struct Samples {
    metric: &'static Metric,
    samples: Vec<proto::Metric>,
}

impl Samples {
    /// Adds a sample of a counter or gauge, with the values of the declared labels in order.
    pub fn add(&mut self, labels: &[&str], value: impl SampleValue) {
        let value = value.into_sample();
        let mut sample = self.labelled(labels);
        match self.metric.kind {
            MetricKind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            MetricKind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
            MetricKind::Histogram => debug_assert!(false, "{} has buckets", self.metric.name),
        }
        self.samples.push(sample);
    }

    /// Adds the sample of a histogram: the cumulative count for each upper bound, the total count
    /// and the sum.
    pub fn add_histogram(
        &mut self,
        labels: &[&str],
        buckets: impl IntoIterator<Item = (Duration, u64)>,
        (count, sum): (u64, Duration),
    ) {
        debug_assert_eq!(self.metric.kind, MetricKind::Histogram);
        let buckets = buckets.into_iter().map(|(bound, within)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(within);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum.as_secs_f64());
        let mut sample = self.labelled(labels);
        sample.set_histogram(histogram);
        self.samples.push(sample);
    }

    fn labelled(&self, values: &[&str]) -> proto::Metric {
        let Metric { name, labels, .. } = self.metric;
        debug_assert_eq!(values.len(), labels.len(), "labels of {name}");
        let pairs = labels.iter().zip(values).map(|(label, value)| {
            if let LabelValues::Fixed(declared) = label.values {
                let is_declared = || declared().contains(value);
                debug_assert!(is_declared(), "{name}: {}={value}", label.name);
            }
            let mut pair = proto::LabelPair::default();
            pair.set_name(label.name.to_owned());
            pair.set_value(truncate_label(value).into_owned());
            pair
        });
        proto::Metric::from_label(pairs.collect())
    }
}

/// The value of a sample. Prometheus stores every value as a 64-bit float, and times in seconds.
pub trait SampleValue {
    /// The value as Prometheus stores it.
    fn into_sample(self) -> f64;
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus stores counts as floats too; they are exact up to 2^53"
)]
impl SampleValue for u64 {
    fn into_sample(self) -> f64 {
        self as f64
    }
}

impl SampleValue for usize {
    fn into_sample(self) -> f64 {
        (self as u64).into_sample()
    }
}

impl SampleValue for u32 {
    fn into_sample(self) -> f64 {
        self.into()
    }
}

impl SampleValue for bool {
    fn into_sample(self) -> f64 {
        self.into()
    }
}

impl SampleValue for Duration {
    fn into_sample(self) -> f64 {
        self.as_secs_f64()
    }
}

/// Maximum length of a label value. Viewers choose some of them, and each is in several samples.
const LABEL_BYTES_MAX: usize = 200;

/// Truncates a long label value and appends a hash, so that similar values stay distinct.
fn truncate_label(text: &str) -> Cow<'_, str> {
    /// An ellipsis (3 bytes) and sixteen digits.
    const HASH_BYTES: usize = 19;
    if text.len() <= LABEL_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let prefix = text.floor_char_boundary(LABEL_BYTES_MAX - HASH_BYTES);
    // The same hash in every process, so that series continue after a restart.
    let hash = Key::of(&[text.as_bytes()]).fingerprint();
    Cow::Owned(format!("{}…{hash:016x}", &text[..prefix]))
}
