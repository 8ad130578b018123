//! The registry of all metrics. It writes them in the Prometheus text format 0.0.4, and lists their
//! declarations for `docs/metrics.md`.

use prometheus::core::{Collector, Desc};
use prometheus::{Error, Registry, TextEncoder, proto};

use super::metric::{CollectedMetric, Metric};

/// All metrics of a server.
#[derive(Default)]
pub struct MetricRegistry {
    registry: Registry,
    groups: Vec<MetricGroup>,
}

/// Metrics that belong together, in the order of their registration.
pub struct MetricGroup {
    /// What they are about.
    pub title: &'static str,
    /// Their declarations.
    pub metrics: Vec<&'static Metric>,
}

impl MetricRegistry {
    /// Registers metrics that are kept elsewhere. Each scrape calls `snapshot` once and reads all
    /// of them from its result.
    pub fn collect<S: 'static>(
        &mut self,
        title: &'static str,
        metrics: &'static [CollectedMetric<S>],
        snapshot: impl Fn() -> S + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.collect_groups(&[(title, metrics)], snapshot)
    }

    /// The same for several groups of metrics, each with its title, that share a snapshot.
    pub fn collect_groups<S: 'static>(
        &mut self,
        groups: &[(&'static str, &'static [CollectedMetric<S>])],
        snapshot: impl Fn() -> S + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let all = || groups.iter().flat_map(|(_, metrics)| metrics.iter());
        let metrics: Vec<_> = all().collect();
        let descriptions = all()
            .map(|one| description(one.declaration()))
            .collect::<Result<_, _>>()?;
        self.registry.register(Box::new(SnapshotCollector {
            metrics,
            descriptions,
            snapshot,
        }))?;
        for (title, metrics) in groups {
            for one in *metrics {
                self.declare(title, one.declaration());
            }
        }
        Ok(())
    }

    /// The declarations of all registered metrics.
    pub fn groups(&self) -> &[MetricGroup] {
        &self.groups
    }

    /// The text of a scrape. Metrics are sorted by name; a metric without samples is left out.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics could not be written");
                String::new()
            })
    }

    fn declare(&mut self, title: &'static str, metric: &'static Metric) {
        match self.groups.iter_mut().find(|group| group.title == title) {
            Some(group) => group.metrics.push(metric),
            None => self.groups.push(MetricGroup {
                title,
                metrics: vec![metric],
            }),
        }
    }
}

fn description(metric: &Metric) -> Result<Desc, Error> {
    let labels = metric.label_names();
    let labels = labels.into_iter().map(str::to_owned).collect();
    let constant = std::collections::HashMap::new();
    Desc::new(metric.name.to_owned(), metric.full_help(), labels, constant)
}

/// Reads all its metrics from one snapshot per scrape.
struct SnapshotCollector<S: 'static, R> {
    metrics: Vec<&'static CollectedMetric<S>>,
    descriptions: Vec<Desc>,
    snapshot: R,
}

impl<S: 'static, R: Fn() -> S + Send + Sync> Collector for SnapshotCollector<S, R> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let snapshot = (self.snapshot)();
        let families = self.metrics.iter().map(|one| one.family(&snapshot));
        families.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::metric::{LabelValues, MetricKind, MetricLabel, Samples};
    use super::*;

    const NAME: MetricLabel = MetricLabel {
        name: "name",
        values: LabelValues::Dynamic("a name"),
    };

    const fn metric(
        name: &'static str,
        kind: MetricKind,
        labels: &'static [MetricLabel],
    ) -> Metric {
        Metric {
            name,
            kind,
            unit: "things",
            labels,
            help: "What it is.",
            remedy: "What to do.",
        }
    }

    /// The text of a scrape of one metric.
    fn scraped<S: Clone + Send + Sync + 'static>(
        metric: Metric,
        snapshot: S,
        read: fn(&S, &mut Samples),
    ) -> String {
        let mut registry = MetricRegistry::default();
        let metrics = Box::leak(Box::new([metric.collected(read)]));
        registry
            .collect("Test", metrics, move || snapshot.clone())
            .unwrap();
        registry.render()
    }

    #[test]
    fn all_samples_of_a_metric_follow_its_help() {
        let labelled = metric("seawall_x_total", MetricKind::Counter, &[NAME]);
        let text = scraped(labelled, ["b", "a"], |names, samples| {
            for name in names {
                samples.add(&[name], 7_u64);
            }
        });
        let expected = "# HELP seawall_x_total What it is. What to do.\n\
                        # TYPE seawall_x_total counter\n\
                        seawall_x_total{name=\"a\"} 7\n\
                        seawall_x_total{name=\"b\"} 7\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn histogram_inf_bucket_counts_all_observations() {
        let histogram = metric("seawall_h", MetricKind::Histogram, &[NAME]);
        let text = scraped(histogram, (), |(), samples| {
            let buckets = [(500, 2), (1000, 3)];
            let buckets = buckets.map(|(bound, within)| (Duration::from_millis(bound), within));
            samples.add_histogram(&["b"], buckets, (4, Duration::from_millis(7500)));
        });
        let expected = "# HELP seawall_h What it is. What to do.\n\
                        # TYPE seawall_h histogram\n\
                        seawall_h_bucket{name=\"b\",le=\"0.5\"} 2\n\
                        seawall_h_bucket{name=\"b\",le=\"1\"} 3\n\
                        seawall_h_bucket{name=\"b\",le=\"+Inf\"} 4\n\
                        seawall_h_sum{name=\"b\"} 7.5\n\
                        seawall_h_count{name=\"b\"} 4\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn label_values_and_help_are_escaped() {
        let mut gauge = metric("seawall_z", MetricKind::Gauge, &[NAME]);
        gauge.help = "One\\two\n\"three\".";
        let text = scraped(gauge, (), |(), samples| samples.add(&["q\"b\\s\nü"], true));
        let expected = "# HELP seawall_z One\\\\two\\n\"three\". What to do.\n\
                        # TYPE seawall_z gauge\n\
                        seawall_z{name=\"q\\\"b\\\\s\\nü\"} 1\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn values_use_the_prometheus_number_format() {
        let exact = 1_u64 << 53;
        let written = |read| scraped(metric("seawall_z", MetricKind::Gauge, &[]), (), read);
        for (text, value) in [
            (
                written(|(), samples| samples.add(&[], 1_u64 << 53)),
                exact.to_string(),
            ),
            (
                written(|(), samples| samples.add(&[], 3_u32)),
                "3".to_owned(),
            ),
            (
                written(|(), samples| samples.add(&[], false)),
                "0".to_owned(),
            ),
            (
                written(|(), samples| samples.add(&[], Duration::from_millis(1500))),
                "1.5".to_owned(),
            ),
        ] {
            assert!(text.ends_with(&format!("\nseawall_z {value}\n")), "{text}");
        }
    }

    #[test]
    fn long_label_values_are_truncated_and_stay_distinct() {
        let long = |last: char| format!("/{}{last}", "ä".repeat(2000));
        let names = [long('1'), long('2')];
        let labelled = metric("seawall_x", MetricKind::Gauge, &[NAME]);
        let text = scraped(labelled, names, |names, samples| {
            for name in names {
                samples.add(&[name], 1_u64);
            }
        });
        let samples = text.lines().filter(|line| line.starts_with("seawall_x{"));
        let [first, second] = samples.collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        assert_ne!(first, second);
        assert!(first.len() < 240, "{first}");
        assert!(first.starts_with("seawall_x{name=\"/ää"), "{first}");
    }

    #[test]
    fn rejects_metric_name_registered_twice() {
        static TWICE: [CollectedMetric<()>; 1] = [metric("seawall_x", MetricKind::Gauge, &[])
            .collected(|(), samples| samples.add(&[], true))];
        let mut registry = MetricRegistry::default();
        registry.collect("Test", &TWICE, || ()).unwrap();
        assert!(registry.collect("Test", &TWICE, || ()).is_err());
    }

    #[test]
    fn metric_without_samples_is_omitted() {
        let gauge = metric("seawall_x", MetricKind::Gauge, &[]);
        assert_eq!(scraped(gauge, (), |(), _| {}), "");
    }
}
