//! Collects samples, prints each as it is taken, and prints the tables at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::crowd::{Crowd, DELAY, Outcome};
use crate::load::Yield;
use crate::scenario::Scenario;
use crate::table::{Table, grouped};

/// The server that the others are compared with.
const YARDSTICK: &str = "nginx";
/// What a hit costs without any HTTP.
const BOUND: &str = "bound";

/// One load on one server.
#[derive(Clone, Copy)]
pub struct Sample {
    /// The result of the load.
    pub brought: Yield,
    /// CPU time of the server, user and system.
    pub cpu_seconds: f64,
    /// Memory of the server afterwards.
    pub resident_mebibytes: u64,
}

impl Sample {
    fn cpu_micros(&self) -> f64 {
        // A failed request costs CPU time too.
        let requests = self.brought.requests.max(1);
        self.cpu_seconds * 1e6 / requests as f64
    }
}

/// All results so far.
#[derive(Default)]
pub struct Results {
    samples: Vec<(Scenario, &'static str, Sample)>,
    crowds: BTreeMap<(Crowd, &'static str), Outcome>,
    reports: Vec<String>,
}

impl Results {
    /// Records a sample and returns it as a line of text.
    pub fn record(&mut self, scenario: Scenario, server: &'static str, sample: Sample) -> String {
        self.samples.push((scenario, server, sample));
        let (rate, micros) = (grouped(sample.brought.rate), sample.cpu_micros());
        format!(
            "{:17} {server:8} {rate:>9}/s {micros:8.2} µs",
            scenario.name()
        )
    }

    /// Records the result of a crowd and returns it as a line of text.
    pub fn record_crowd(&mut self, crowd: Crowd, server: &'static str, outcome: Outcome) -> String {
        let asked = request_counts(&outcome);
        let parts = [&outcome.took, &outcome.connects, &outcome.responses];
        let [p99, connect, then] = parts.map(|times| millis(times.percentile(99)));
        self.crowds
            .entry((crowd, server))
            .or_default()
            .merge(outcome);
        let name = crowd.name();
        format!(
            "{name:17} {server:8} {asked} at the origin, p99 {p99} ms: connect {connect}, then {then}"
        )
    }

    /// Records the report of a scenario with its own table.
    pub fn record_report(&mut self, report: String) {
        self.reports.push(report);
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (loads, crowds) = (self.loads(), self.crowds());
        if !loads.is_empty() {
            let _ = writeln!(
                text,
                "\nMedians. CPU is the server's CPU time per request, user and system; \
                 × {YARDSTICK}, × {BOUND}: as a share of theirs.\nRSS is from the first round; \
                 {YARDSTICK}'s cache is in files and not included.\n\n{}",
                loads.text()
            );
        }
        if !crowds.is_empty() {
            let delay = DELAY.as_millis();
            let _ = writeln!(
                text,
                "\nThe origin answers after {delay} ms, the least time of a request that waits \
                 for it. p99 over: p99 minus that time.\nConnect: until a viewer is connected; \
                 then: from its request to the last byte. Their p99 are of different viewers.\n\n{}",
                crowds.text()
            );
        }
        for report in &self.reports {
            let _ = writeln!(text, "\n{report}");
        }
        text
    }

    fn loads(&self) -> Table {
        let mut table = Table::new(&[
            "scenario",
            "server",
            "requests/s",
            "GB/s",
            "× nginx",
            "CPU µs",
            "least…most",
            "× nginx",
            "× bound",
            "RSS MiB",
            "failed",
        ]);
        for scenario in Scenario::ALL {
            let mut servers: Vec<_> = self
                .samples
                .iter()
                .filter(|(of, ..)| *of == scenario)
                .map(|(_, server, _)| *server)
                .collect();
            servers.sort_unstable_by_key(|server| (*server == YARDSTICK, *server));
            servers.dedup();
            let yardstick = self.digest(scenario, YARDSTICK);
            let bound = self.digest(scenario, BOUND);
            for server in servers {
                if let Some(digest) = self.digest(scenario, server) {
                    let others = [(YARDSTICK, &yardstick), (BOUND, &bound)];
                    let compared =
                        others.map(|(name, other)| other.as_ref().filter(|_| server != name));
                    table.row(digest.cells(scenario, server, compared));
                }
            }
        }
        table
    }

    fn digest(&self, scenario: Scenario, server: &str) -> Option<Digest> {
        let samples: Vec<_> = self
            .samples
            .iter()
            .filter(|(of, by, _)| *of == scenario && *by == server)
            .map(|(.., sample)| *sample)
            .collect();
        let sorted = |figure: fn(&Sample) -> f64| {
            let mut figures: Vec<_> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let cpu_micros = sorted(Sample::cpu_micros);
        let rates = sorted(|sample| sample.brought.rate);
        Some(Digest {
            rate: median(&rates)?,
            cpu_micros: median(&cpu_micros)?,
            cpu_micros_least: *cpu_micros.first()?,
            cpu_micros_most: *cpu_micros.last()?,
            resident_mebibytes: samples.first()?.resident_mebibytes,
            failed: samples.iter().map(|sample| sample.brought.failed).sum(),
        })
    }

    fn crowds(&self) -> Table {
        let mut table = Table::new(&[
            "crowd",
            "server",
            "viewers",
            "failed",
            "origin requests",
            "p50 ms",
            "p99 ms",
            "p99 over",
            "max ms",
            "connect p99",
            "then p99",
            "over",
            "max",
        ]);
        let mut crowds: Vec<_> = self.crowds.iter().collect();
        crowds.sort_by_key(|((crowd, server), _)| (*crowd, *server == YARDSTICK));
        for ((crowd, server), outcome) in crowds {
            let over = |p99: Duration| p99.checked_sub(DELAY).map(millis).unwrap_or_default();
            let p99 = outcome.took.percentile(99);
            let then = outcome.responses.percentile(99);
            table.row(vec![
                crowd.name().to_owned(),
                (*server).to_owned(),
                outcome.viewers.to_string(),
                outcome.failed.to_string(),
                request_counts(outcome),
                millis(outcome.took.percentile(50)),
                millis(p99),
                over(p99),
                millis(outcome.took.percentile(100)),
                millis(outcome.connects.percentile(99)),
                millis(then),
                over(then),
                millis(outcome.responses.percentile(100)),
            ]);
        }
        table
    }
}

/// Origin requests in each run; one figure if it was always the same.
fn request_counts(outcome: &Outcome) -> String {
    let mut each = outcome.origin_requests.clone();
    each.dedup();
    let each: Vec<_> = each.iter().map(u64::to_string).collect();
    each.join(", ")
}

/// All samples of one scenario on one server.
struct Digest {
    rate: f64,
    cpu_micros: f64,
    cpu_micros_least: f64,
    cpu_micros_most: f64,
    resident_mebibytes: u64,
    failed: u64,
}

impl Digest {
    fn cells(
        &self,
        scenario: Scenario,
        server: &str,
        [yardstick, bound]: [Option<&Digest>; 2],
    ) -> Vec<String> {
        let ratio = |other: Option<&Digest>, figure: fn(&Digest) -> f64| {
            let ratio = other.map(|other| figure(self) / figure(other));
            ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default()
        };
        let gigabytes = scenario.gigabytes(self.rate);
        vec![
            scenario.name().to_owned(),
            server.to_owned(),
            grouped(self.rate),
            gigabytes
                .map(|rate| format!("{rate:.2}"))
                .unwrap_or_default(),
            ratio(yardstick, |digest| digest.rate),
            format!("{:.2}", self.cpu_micros),
            format!("{:.2}…{:.2}", self.cpu_micros_least, self.cpu_micros_most),
            ratio(yardstick, |digest| digest.cpu_micros),
            ratio(bound, |digest| digest.cpu_micros),
            self.resident_mebibytes.to_string(),
            self.failed.to_string(),
        ]
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}
