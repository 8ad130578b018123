//! Counts what became of the viewers' requests.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// How viewers connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// On a connection that is kept.
    Kept,
    /// A new connection for each request.
    New,
    /// Streams of one HTTP/2 connection.
    Http2,
    /// A large body, read slowly.
    Download,
    /// A new connection for each of the objects that are requested once.
    Passing,
    /// Requests and downloads at the listener that comes and goes.
    Spare,
}

/// The longest list of faults in the report, for each class.
const FAULTS_MAX: usize = 8;

/// The shared record; clones are the same record.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<Class, Page>>>);

#[derive(Default)]
struct Page {
    good: u64,
    faults: u64,
    examples: Vec<String>,
    longest: Duration,
}

impl Tally {
    /// Records one request: how long it took, or why it failed.
    pub fn record(&self, class: Class, result: Result<Duration, String>) {
        let mut pages = self.0.lock();
        let page = pages.entry(class).or_default();
        match result {
            Ok(took) => {
                page.good += 1;
                page.longest = page.longest.max(took);
            }
            Err(why) => {
                page.faults += 1;
                if page.examples.len() < FAULTS_MAX {
                    page.examples.push(why);
                }
            }
        }
    }

    /// All violations.
    pub fn faults(&self) -> Vec<String> {
        let pages = self.0.lock();
        let mut faults = Vec::new();
        let classes = [
            Class::Kept,
            Class::New,
            Class::Http2,
            Class::Download,
            Class::Passing,
            Class::Spare,
        ];
        for class in classes {
            match pages.get(&class) {
                None => faults.push(format!("{class:?}: no request was made")),
                Some(page) if page.faults > 0 => {
                    faults.push(format!("{class:?}: {} failed, such as", page.faults));
                    faults.extend(page.examples.iter().cloned());
                }
                Some(_) => {}
            }
        }
        faults
    }

    /// The table of the report.
    pub fn table(&self) -> String {
        let mut text = String::from("               good  failed  longest ms\n");
        for (class, page) in &*self.0.lock() {
            let longest = page.longest.as_secs_f64() * 1e3;
            let name = format!("{class:?}");
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name:9} {:9} {:7} {longest:11.1}",
                page.good, page.faults
            );
        }
        text
    }
}
