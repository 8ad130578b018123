//! Writes metrics in the Prometheus text format 0.0.4: help and type once per name, all samples of
//! a name together, labels escaped. It knows no metric by name.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write};
use std::time::Duration;

use seawall_policy::Key;

/// A page of samples. They are added in any order and written grouped by name, as the format
/// requires.
#[derive(Debug, Default)]
pub struct Exposition {
    families: Vec<MetricFamily>,
}

#[derive(Debug)]
struct MetricFamily {
    name: &'static str,
    help: &'static str,
    shape: MetricType,
    samples: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MetricType {
    Counter,
    Gauge,
    Histogram,
}

impl Exposition {
    /// Adds a sample of a counter. Its name ends in `_total`.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: impl Into<SampleValue>,
    ) {
        debug_assert!(name.ends_with("_total"), "{name} is a counter");
        self.sample(MetricType::Counter, name, help, labels, value.into());
    }

    /// Adds a sample of a gauge.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: impl Into<SampleValue>,
    ) {
        self.sample(MetricType::Gauge, name, help, labels, value.into());
    }

    /// Adds a histogram series: for each bound the cumulative count, then the total count and the
    /// sum.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        within: impl IntoIterator<Item = (SampleValue, u64)>,
        (count, sum): (u64, SampleValue),
    ) {
        let family = self.family(MetricType::Histogram, name, help);
        for (bound, counted) in within.into_iter().chain([(f64::INFINITY.into(), count)]) {
            let bound = bound.to_string();
            let labels = [labels, &[("le", &*bound)]].concat();
            family.write("_bucket", &labels, counted.into());
        }
        family.write("_sum", labels, sum);
        family.write("_count", labels, count.into());
    }

    fn sample(
        &mut self,
        shape: MetricType,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: SampleValue,
    ) {
        self.family(shape, name, help).write("", labels, value);
    }

    fn family(
        &mut self,
        shape: MetricType,
        name: &'static str,
        help: &'static str,
    ) -> &mut MetricFamily {
        debug_assert!(is_name(name), "{name} is not a valid metric name");
        // Callers add a metric's samples one after another, so the search begins at the end.
        let place = self.families.iter().rposition(|family| family.name == name);
        let place = place.unwrap_or_else(|| {
            self.families.push(MetricFamily {
                name,
                help,
                shape,
                samples: String::new(),
            });
            self.families.len() - 1
        });
        let family = &mut self.families[place];
        debug_assert_eq!(family.shape, shape, "{name} is used with two types");
        family
    }
}

impl MetricFamily {
    /// Writes a sample. `suffix` is the part of a histogram.
    fn write(&mut self, suffix: &str, labels: &[(&str, &str)], value: SampleValue) {
        let samples = &mut self.samples;
        samples.push_str(self.name);
        samples.push_str(suffix);
        for (place, (label, text)) in labels.iter().enumerate() {
            samples.push(if place == 0 { '{' } else { ',' });
            samples.push_str(label);
            samples.push_str("=\"");
            escape(samples, &bounded(text), true);
            samples.push('"');
        }
        if !labels.is_empty() {
            samples.push('}');
        }
        // Writing into a `String` cannot fail.
        let _ = writeln!(samples, " {value}");
    }
}

impl Display for Exposition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for MetricFamily {
            name,
            help,
            shape,
            samples,
        } in &self.families
        {
            let mut line = String::with_capacity(help.len());
            escape(&mut line, help, false);
            let shape = match shape {
                MetricType::Counter => "counter",
                MetricType::Gauge => "gauge",
                MetricType::Histogram => "histogram",
            };
            write!(f, "# HELP {name} {line}\n# TYPE {name} {shape}\n{samples}")?;
        }
        Ok(())
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SampleValue {
    /// A count, written exactly.
    Whole(u64),
    /// A measurement.
    Real(f64),
}

impl Display for SampleValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            SampleValue::Whole(value) => write!(f, "{value}"),
            SampleValue::Real(value) if value == f64::INFINITY => f.write_str("+Inf"),
            SampleValue::Real(value) if value == f64::NEG_INFINITY => f.write_str("-Inf"),
            SampleValue::Real(value) => write!(f, "{value}"),
        }
    }
}

impl From<u64> for SampleValue {
    fn from(value: u64) -> SampleValue {
        SampleValue::Whole(value)
    }
}

impl From<u32> for SampleValue {
    fn from(value: u32) -> SampleValue {
        SampleValue::Whole(value.into())
    }
}

impl From<usize> for SampleValue {
    fn from(value: usize) -> SampleValue {
        SampleValue::Whole(value as u64)
    }
}

impl From<bool> for SampleValue {
    fn from(value: bool) -> SampleValue {
        SampleValue::Whole(value.into())
    }
}

impl From<f64> for SampleValue {
    fn from(value: f64) -> SampleValue {
        SampleValue::Real(value)
    }
}

/// Prometheus uses seconds.
impl From<Duration> for SampleValue {
    fn from(value: Duration) -> SampleValue {
        SampleValue::Real(value.as_secs_f64())
    }
}

/// Maximum length of a label value. Viewers choose some of them, and each is in several series.
const LABEL_BYTES_MAX: usize = 200;

/// Truncates a long label value and appends a hash, so that similar values stay distinct.
fn bounded(text: &str) -> Cow<'_, str> {
    /// An ellipsis (3 bytes) and sixteen digits.
    const HASH_BYTES: usize = 19;
    if text.len() <= LABEL_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let begun = text.floor_char_boundary(LABEL_BYTES_MAX - HASH_BYTES);
    // The same hash in every process, so that series continue after a restart.
    let hash = Key::of(&[text.as_bytes()]).fingerprint();
    Cow::Owned(format!("{}…{hash:016x}", &text[..begun]))
}

fn escape(into: &mut String, text: &str, quotes: bool) {
    for letter in text.chars() {
        match letter {
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '"' if quotes => into.push_str("\\\""),
            _ => into.push(letter),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with("seawall_")
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_written_crosswise_are_grouped_under_one_header() {
        let mut page = Exposition::default();
        for origin in ["a", "b"] {
            let labels = [("origin", origin)];
            page.counter("seawall_x_total", "How many x.", &labels, 7_u64);
            page.gauge("seawall_y_bytes", "How much y.", &labels, 2_usize);
        }
        let expected = "# HELP seawall_x_total How many x.\n\
                        # TYPE seawall_x_total counter\n\
                        seawall_x_total{origin=\"a\"} 7\n\
                        seawall_x_total{origin=\"b\"} 7\n\
                        # HELP seawall_y_bytes How much y.\n\
                        # TYPE seawall_y_bytes gauge\n\
                        seawall_y_bytes{origin=\"a\"} 2\n\
                        seawall_y_bytes{origin=\"b\"} 2\n";
        assert_eq!(page.to_string(), expected);
    }

    #[test]
    fn a_histogram_ends_with_all_there_were() {
        let mut page = Exposition::default();
        let within = [(SampleValue::from(0.5), 2), (SampleValue::from(1.0), 3)];
        let labels = [("a", "b")];
        page.histogram("seawall_h", "H.", &labels, within, (4, 7.5.into()));
        let expected = "# HELP seawall_h H.\n\
                        # TYPE seawall_h histogram\n\
                        seawall_h_bucket{a=\"b\",le=\"0.5\"} 2\n\
                        seawall_h_bucket{a=\"b\",le=\"1\"} 3\n\
                        seawall_h_bucket{a=\"b\",le=\"+Inf\"} 4\n\
                        seawall_h_sum{a=\"b\"} 7.5\n\
                        seawall_h_count{a=\"b\"} 4\n";
        assert_eq!(page.to_string(), expected);
    }

    #[test]
    fn labels_and_help_are_escaped() {
        let mut page = Exposition::default();
        let labels = [("a", "q\"b\\s\nn"), ("b", "ü")];
        page.gauge("seawall_z", "One\\two\n\"three\".", &labels, true);
        let expected = "# HELP seawall_z One\\\\two\\n\"three\".\n\
                        # TYPE seawall_z gauge\n\
                        seawall_z{a=\"q\\\"b\\\\s\\nn\",b=\"ü\"} 1\n";
        assert_eq!(page.to_string(), expected);
    }

    #[test]
    fn values_are_written_as_prometheus_reads_them() {
        let written = [
            (SampleValue::from(u64::MAX), "18446744073709551615"),
            (SampleValue::from(3_u32), "3"),
            (SampleValue::from(0.25), "0.25"),
            (SampleValue::from(f64::INFINITY), "+Inf"),
            (SampleValue::from(f64::NEG_INFINITY), "-Inf"),
            (SampleValue::from(f64::NAN), "NaN"),
            (SampleValue::from(Duration::from_millis(1500)), "1.5"),
        ];
        for (value, text) in written {
            assert_eq!(value.to_string(), text);
        }
    }

    #[test]
    fn long_labels_are_cut_and_told_apart() {
        let long = |last: char| format!("/{}{last}", "ä".repeat(2000));
        let (one, other) = (long('1'), long('2'));
        let mut page = Exposition::default();
        for name in [&one, &other] {
            page.gauge("seawall_x", "What x is.", &[("stream", name)], 1_u64);
        }
        let text = page.to_string();
        let samples: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("seawall_x{"))
            .collect();
        let [first, second] = samples[..] else {
            panic!("{text}")
        };
        assert_ne!(first, second);
        assert!(first.len() < LABEL_BYTES_MAX + 40, "{first}");
        assert!(first.starts_with("seawall_x{stream=\"/ää"), "{first}");
    }
}
