//! Records the viewers' results and waits by class, before the storm and in it.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The classes of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Players of streams with healthy origins.
    Live,
    /// Players of streams with an origin that lags or restarts.
    Troubled,
    /// Viewers of the on-demand catalogue.
    OnDemand,
    /// The same at 4 KB/s.
    Slow,
    /// Downloads of an uncacheable file.
    Pass,
    /// Viewers of a manifest of 10 MB.
    Huge,
    /// Operators who purge.
    Purge,
}

impl Class {
    const ALL: [Class; 7] = [
        Class::Live,
        Class::Troubled,
        Class::OnDemand,
        Class::Slow,
        Class::Pass,
        Class::Huge,
        Class::Purge,
    ];
}

/// The result of one request.
#[derive(Clone, Debug)]
pub enum End {
    /// Complete, with the origin's bytes.
    Good,
    /// An error that the origin caused, visible to the viewer.
    OriginsFault,
    /// The program cut a reader below its minimum rate, visibly.
    TooSlow,
    /// Anything else: a fault of the program.
    Bad(String),
}

/// The longest list of faults in the report.
const FAULTS_MAX: usize = 12;
/// A 99th percentile below this depends more on the machine than on the program.
const P99_MIN: Duration = Duration::from_millis(10);
/// A shorter run says nothing about waits or slow downloads.
const SHORT_SECONDS: u64 = 180;
/// The number of waits that a 99th percentile needs.
const WAITS_MIN: usize = 5000;

/// The shared record; clones are the same record.
#[derive(Clone, Default)]
pub struct Book(Arc<Inner>);

#[derive(Default)]
struct Inner {
    storm: AtomicBool,
    pages: Mutex<[Page; Class::ALL.len()]>,
    seconds: Mutex<u64>,
}

#[derive(Default)]
struct Page {
    good: u64,
    origins_fault: u64,
    too_slow: u64,
    bad: u64,
    examples: Vec<String>,
    calm: Vec<Duration>,
    storm: Vec<Duration>,
}

impl Book {
    pub fn begin_storm(&self) {
        self.0.storm.store(true, Ordering::Relaxed);
    }

    /// A second has passed.
    pub fn count_second(&self) {
        *self.0.seconds.lock() += 1;
    }

    /// Records one request: its result, and its viewer's wait where that counts.
    pub fn record(&self, class: Class, end: End, waited: Option<Duration>) {
        let mut pages = self.0.pages.lock();
        let page = &mut pages[class as usize];
        match end {
            End::Good => page.good += 1,
            End::OriginsFault => page.origins_fault += 1,
            End::TooSlow => page.too_slow += 1,
            End::Bad(why) => {
                page.bad += 1;
                if page.examples.len() < FAULTS_MAX {
                    let second = *self.0.seconds.lock();
                    page.examples
                        .push(format!("{class:?}, second {second}: {why}"));
                }
            }
        }
        if let Some(waited) = waited {
            if self.0.storm.load(Ordering::Relaxed) {
                page.storm.push(waited);
            } else {
                page.calm.push(waited);
            }
        }
    }

    /// All violations.
    pub fn faults(&self) -> Vec<String> {
        // A slow download takes longer than a short run.
        let is_short = *self.0.seconds.lock() < SHORT_SECONDS;
        let mut pages = self.0.pages.lock();
        let mut faults = Vec::new();
        for class in Class::ALL {
            let page = &mut pages[class as usize];
            if page.bad > 0 {
                faults.push(format!("{class:?}: {} faults, such as", page.bad));
                faults.append(&mut page.examples);
            }
            if page.good == 0 && !(is_short && class == Class::Slow) {
                faults.push(format!("{class:?}: no request succeeded"));
            }
            let enough = !is_short && page.calm.len().min(page.storm.len()) >= WAITS_MIN;
            let (calm, storm) = (
                percentile(&mut page.calm, 0.99),
                percentile(&mut page.storm, 0.99),
            );
            if enough && storm > (calm * 2).max(P99_MIN) {
                faults.push(format!(
                    "{class:?}: 99th percentile of waits {storm:?}, before the storm {calm:?}"
                ));
            }
        }
        faults
    }

    /// The table of the report.
    pub fn table(&self) -> String {
        let mut pages = self.0.pages.lock();
        let mut text = String::from(
            "            good   origin's  too slow  bad  | calm p50, p99 ms | storm p50, p99 ms\n",
        );
        for class in Class::ALL {
            let page = &mut pages[class as usize];
            let mut ms = |which: bool, at| {
                let waits = if which {
                    &mut page.storm
                } else {
                    &mut page.calm
                };
                percentile(waits, at).as_secs_f64() * 1e3
            };
            let waits = [
                ms(false, 0.5),
                ms(false, 0.99),
                ms(true, 0.5),
                ms(true, 0.99),
            ];
            let [calm50, calm99, storm50, storm99] = waits;
            let name = format!("{class:?}");
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name:9} {:7} {:10} {:9} {:4}  | {calm50:7.2} {calm99:8.2} | {storm50:7.2} {storm99:8.2}",
                page.good, page.origins_fault, page.too_slow, page.bad,
            );
        }
        text
    }
}

/// The wait that this share of all does not exceed.
fn percentile(waits: &mut [Duration], at: f64) -> Duration {
    if waits.is_empty() {
        return Duration::ZERO;
    }
    let place = ((waits.len() - 1) as f64 * at) as usize;
    *waits.select_nth_unstable(place).1
}
