//! `seawall warm`: has a running server fetch a whole stream ahead of its viewers. It asks the
//! server for a few objects at a time, and keeps no state: what is stored is skipped.

mod progress;
mod walk;

use std::collections::HashSet;
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::admin_client::{AdminArguments, AdminClient, percent_encode};
use crate::config;
use crate::telemetry::counted;
use progress::ProgressBar;
use walk::{StreamWalk, WarmChoice};

/// For one request: longer than the server takes for the objects that it names.
const ANSWER_MAX: Duration = Duration::from_secs(40);
/// A longer request is rejected by the server.
const TARGET_BYTES_MAX: usize = 12 << 10;
/// This many objects that fail one after the other mean that the origin does.
const FAILURES_MAX: usize = 20;
/// This many requests without any progress mean that the origin has no room.
const BUSY_MAX: usize = 15;
/// Between two requests while the origin has no room.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the progress during a pause.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// The exit code if it stopped because no endpoint of an origin may be asked.
const OUTAGE: u8 = 3;
/// Failed objects that the summary names.
const NAMED_MAX: usize = 10;

/// Have a running server fetch a stream ahead of its viewers
#[derive(Debug, Args)]
pub(super) struct WarmStream {
    /// Playlist, MPD or object, as viewers request it
    #[arg(value_name = "URL", value_parser = walk::parse_url)]
    url: String,

    /// Only variants up to this many bits per second, such as 5000000 or 5M, and at least the
    /// lowest one (DASH: of each adaptation set)
    #[arg(long, value_name = "BITS", value_parser = walk::parse_bandwidth)]
    bandwidth_max: Option<u64>,

    /// Also playlists of key frames
    #[arg(long)]
    all: bool,

    /// Also decryption keys; they are stored only where the route has `store_keys`
    #[arg(long)]
    keys: bool,

    /// Stop after this much has been fetched
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = config::parse_size)]
    bytes_max: u64,

    /// Stop after this many objects have been fetched; what is stored already does not count
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    objects_max: u64,

    /// At most this many requests to the origin at once
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    concurrency: u8,

    /// At most this many objects in a second
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// At most this many bytes from the origin in a second
    #[arg(long, value_name = "SIZE", default_value = "100MiB", value_parser = config::parse_size)]
    byte_rate: u64,

    /// Wait for an origin that is out for this long, then exit with 3
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = config::parse_duration)]
    wait_max: Duration,

    #[command(flatten)]
    server: AdminArguments,

    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// What has become of the objects so far.
#[derive(Debug, Default)]
struct WarmCounts {
    held: u64,
    fetched: u64,
    uncacheable: u64,
    failed: u64,
    /// On other hosts, or served by no route.
    skipped: u64,
    /// Fetched now.
    bytes: u64,
    /// Some that failed, with the reason.
    failures: Vec<(String, String)>,
}

/// Why a run stopped before its end.
#[derive(Debug, PartialEq, Eq)]
enum StopReason {
    /// No endpoint of an origin may be asked.
    Outage(String),
    Other(String),
}

impl StopReason {
    fn text(&self) -> &str {
        match self {
            StopReason::Outage(text) | StopReason::Other(text) => text,
        }
    }
}

impl WarmCounts {
    fn objects(&self) -> u64 {
        self.held + self.fetched + self.uncacheable + self.failed
    }

    fn json(&self, stopped: Option<&str>) -> Value {
        let failures = self.failures.iter();
        json!({
            "held": self.held,
            "fetched": self.fetched,
            "uncacheable": self.uncacheable,
            "failed": self.failed,
            "skipped": self.skipped,
            "bytes": self.bytes,
            "failures": failures.map(|(url, reason)| json!({ "url": url, "reason": reason }))
                .collect::<Vec<_>>(),
            "complete": stopped.is_none() && self.failed == 0,
            "stopped": stopped,
        })
    }

    fn text(&self, stopped: Option<&str>) -> String {
        let mut text = format!(
            "{} fetched ({}), {} stored already, {} not storable, {} failed, {} skipped: on \
             another host or without a route\n",
            self.fetched,
            counted(self.bytes, "byte"),
            self.held,
            self.uncacheable,
            self.failed,
            self.skipped
        );
        for (url, reason) in &self.failures {
            let _ = writeln!(text, "  failed: {url} ({reason})");
        }
        if let Some(why) = stopped {
            let _ = writeln!(text, "stopped: {why}; run it again to continue");
        }
        text
    }
}

impl WarmStream {
    /// Fails unless all is stored, or may not be.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let client = self.server.client()?;
        let interrupts = watch_for_interrupts();
        let choice = WarmChoice {
            bandwidth_max: self.bandwidth_max,
            takes_frames: self.all,
            takes_keys: self.keys,
        };
        let mut warming = WarmRun {
            order: self,
            walk: StreamWalk::from(&self.url, choice)?,
            tally: WarmCounts::default(),
            progress: ProgressBar::new(self.json),
            failures_in_row: 0,
            busy_in_row: 0,
            outage: None,
            begun: HashSet::new(),
        };
        let stopped = warming.run(&client, &interrupts)?;
        warming.progress.end();
        let tally = &warming.tally;
        let why = stopped.as_ref().map(StopReason::text);
        super::print(&if self.json {
            format!("{}\n", tally.json(why))
        } else {
            tally.text(why)
        });
        Ok(match stopped {
            None if tally.failed == 0 => ExitCode::SUCCESS,
            Some(StopReason::Outage(_)) => ExitCode::from(OUTAGE),
            _ => ExitCode::FAILURE,
        })
    }
}

struct WarmRun<'a> {
    order: &'a WarmStream,
    walk: StreamWalk,
    tally: WarmCounts,
    progress: ProgressBar,
    failures_in_row: usize,
    busy_in_row: usize,
    /// Since when an origin is out, and what the server says of it.
    outage: Option<(Instant, String)>,
    /// Objects that had not come to their end when the server answered.
    begun: HashSet<String>,
}

impl WarmRun<'_> {
    /// `Some`: why it stopped before its end.
    fn run(
        &mut self,
        client: &AdminClient,
        interrupts: &Receiver<()>,
    ) -> anyhow::Result<Option<StopReason>> {
        loop {
            let batch = self.walk.next_batch(self.batch_size(), TARGET_BYTES_MAX);
            if batch.is_empty() {
                let left_out = self.walk.left_out();
                return Ok(left_out.map(|why| {
                    let how = "warm its playlists one by one, or less of it";
                    StopReason::Other(format!("{why}: {how}"))
                }));
            }
            let begun = Instant::now();
            let urls: Vec<_> = batch
                .iter()
                .map(|url| format!("url={}", percent_encode(url)))
                .collect();
            let target = format!("/warm?{}&bytes_max={}", urls.join("&"), self.bytes_max());
            let answer = client.request_json("POST", &target, ANSWER_MAX)?;
            let before = self.tally.bytes;
            let progressed = self.take(&batch, &answer)?;
            self.show_progress();
            if let Some(why) = self.reason_to_stop(progressed) {
                return Ok(Some(why));
            }
            let pause = self.pause(batch.len(), self.tally.bytes - before, progressed);
            if self.is_interrupted_until(begun + pause, interrupts) {
                return Ok(Some(StopReason::Other("interrupted".to_owned())));
            }
        }
    }

    fn show_progress(&mut self) {
        let outage = self.outage.as_ref().map(|(_, why)| why.as_str());
        self.progress.show(&self.tally, self.walk.waiting(), outage);
    }

    /// Waits, and shows how far it is meanwhile.
    fn is_interrupted_until(&mut self, end: Instant, interrupts: &Receiver<()>) -> bool {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if interrupts.recv_timeout(left.min(SHOW_INTERVAL)).is_ok() {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            self.show_progress();
        }
    }

    /// After how many bytes the next request ends inside a large object.
    fn bytes_max(&self) -> u64 {
        let left = self.order.bytes_max.saturating_sub(self.tally.bytes);
        self.order.byte_rate.min(left).max(1)
    }

    /// How many objects the next request names: no more than may still be fetched.
    fn batch_size(&self) -> usize {
        let may_be_fetched = self.order.objects_max.saturating_sub(self.tally.fetched);
        let may_be_fetched = usize::try_from(may_be_fetched).unwrap_or(usize::MAX);
        may_be_fetched.clamp(1, self.order.concurrency.into())
    }

    /// Records what became of a batch. False if nothing was done.
    fn take(&mut self, batch: &[String], answer: &Value) -> anyhow::Result<bool> {
        let objects = answer["objects"].as_array();
        let objects = objects.filter(|objects| objects.len() == batch.len());
        let Some(objects) = objects else {
            anyhow::bail!("the server does not say what became of the objects");
        };
        let mut progressed = false;
        let mut outage = None;
        for (url, object) in batch.iter().zip(objects) {
            let received = object["received"].as_u64().unwrap_or_default();
            self.tally.bytes += received;
            let outcome = object["outcome"].as_str().unwrap_or_default();
            if ["busy", "unavailable"].contains(&outcome) {
                let is_manifest = ["hls", "dash"].contains(&object["kind"].as_str().unwrap_or(""));
                self.walk.again(url, is_manifest);
                if received > 0 {
                    self.begun.insert(url.clone());
                    progressed = true;
                }
                let reason = object["reason"].as_str().unwrap_or("an endpoint is out");
                outage = outage.or((outcome == "unavailable").then(|| reason.to_owned()));
                continue;
            }
            progressed = true;
            let was_begun = self.begun.remove(url);
            match outcome {
                "held" if was_begun => self.tally.fetched += 1,
                "held" => self.tally.held += 1,
                "fetched" => self.tally.fetched += 1,
                "uncacheable" => self.tally.uncacheable += 1,
                "unrouted" if *url != self.order.url => self.tally.skipped += 1,
                _ => {
                    self.record_failure(url, object);
                    continue;
                }
            }
            self.failures_in_row = 0;
            self.tally.skipped += object["elsewhere"].as_u64().unwrap_or_default();
            self.walk.take_names(object);
        }
        self.outage = outage.filter(|_| !progressed).map(|why| {
            let since = self.outage.as_ref().map(|(since, _)| *since);
            (since.unwrap_or_else(Instant::now), why)
        });
        Ok(progressed)
    }

    fn record_failure(&mut self, url: &str, object: &Value) {
        self.tally.failed += 1;
        self.failures_in_row += 1;
        if self.tally.failures.len() < NAMED_MAX {
            let reason = match (object["reason"].as_str(), object["status"].as_u64()) {
                (Some(reason), _) => reason.to_owned(),
                (None, Some(status)) => format!("status {status}"),
                (None, None) => "no answer".to_owned(),
            };
            self.tally.failures.push((url.to_owned(), reason));
        }
    }

    fn reason_to_stop(&mut self, progressed: bool) -> Option<StopReason> {
        let is_stalled = !progressed && self.outage.is_none();
        self.busy_in_row = if is_stalled { self.busy_in_row + 1 } else { 0 };
        let WarmCounts {
            fetched,
            held,
            bytes,
            ..
        } = self.tally;
        let has_more = self.walk.waiting() > 0;
        let why = if self.failures_in_row >= FAILURES_MAX {
            format!("{FAILURES_MAX} objects failed one after the other: see the origin")
        } else if self.busy_in_row >= BUSY_MAX {
            "the origin has no room for more than its viewers".to_owned()
        } else if bytes >= self.order.bytes_max && has_more {
            format!("{} fetched (--bytes-max)", are(bytes, "byte"))
        } else if fetched >= self.order.objects_max && has_more {
            let (fetched, held) = (are(fetched, "object"), counted(held, "object"));
            format!("{fetched} fetched (--objects-max), {held} stored already")
        } else {
            let outage = self.outage.as_ref();
            let (_, why) = outage.filter(|(since, _)| since.elapsed() >= self.order.wait_max)?;
            return Some(StopReason::Outage(format!("no endpoint answers: {why}")));
        };
        Some(StopReason::Other(why))
    }

    /// How long a batch must take, so that the rates hold.
    fn pause(&self, objects: usize, bytes: u64, progressed: bool) -> Duration {
        if !progressed {
            return BUSY_PAUSE;
        }
        let objects = u32::try_from(objects).unwrap_or(u32::MAX);
        let by_objects = Duration::from_secs(1) * objects / self.order.rate;
        let by_bytes = u128::from(bytes) * 1_000_000 / u128::from(self.order.byte_rate.max(1));
        let by_bytes = Duration::from_micros(u64::try_from(by_bytes).unwrap_or(u64::MAX));
        by_objects.max(by_bytes)
    }
}

/// "1 object is", "2 objects are".
fn are(count: u64, noun: &str) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(count, noun))
}

/// Tells of Ctrl-C.
fn watch_for_interrupts() -> Receiver<()> {
    let (sender, interrupts) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else {
            // Ctrl-C then ends the program. The sender must live: its end would end all pauses.
            thread::park();
            return;
        };
        let _ = runtime.block_on(tokio::signal::ctrl_c());
        let _ = sender.send(());
    });
    interrupts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rate: u32, byte_rate: u64) -> WarmStream {
        WarmStream {
            url: "http://a.test/m.m3u8".to_owned(),
            bandwidth_max: None,
            all: false,
            keys: false,
            bytes_max: 1 << 20,
            objects_max: 100,
            concurrency: 4,
            rate,
            byte_rate,
            wait_max: Duration::ZERO,
            server: AdminArguments::default(),
            json: true,
        }
    }

    fn warming(order: &WarmStream) -> WarmRun<'_> {
        let choice = WarmChoice {
            bandwidth_max: None,
            takes_frames: false,
            takes_keys: false,
        };
        WarmRun {
            order,
            walk: StreamWalk::from(&order.url, choice).unwrap(),
            tally: WarmCounts::default(),
            progress: ProgressBar::new(true),
            failures_in_row: 0,
            busy_in_row: 0,
            outage: None,
            begun: HashSet::new(),
        }
    }

    #[test]
    fn the_slower_rate_decides_how_long_a_batch_takes() {
        let second = Duration::from_secs(1);
        let objects = order(2, 1 << 30);
        assert_eq!(warming(&objects).pause(4, 1000, true), 2 * second);
        let bytes = order(1000, 1000);
        assert_eq!(warming(&bytes).pause(4, 3000, true), 3 * second);
        assert_eq!(warming(&bytes).pause(4, 0, false), BUSY_PAUSE);
    }

    #[test]
    fn stops_when_nothing_succeeds_or_nothing_goes_on() {
        let order = order(1, 1);
        let mut one = warming(&order);
        let url = || vec![order.url.clone()];
        let failed = json!({ "objects": [{ "outcome": "failed", "status": 503 }] });
        for _ in 1..FAILURES_MAX {
            assert!(one.take(&url(), &failed).unwrap());
            assert_eq!(one.reason_to_stop(true), None);
        }
        one.take(&url(), &failed).unwrap();
        assert!(one.reason_to_stop(true).is_some());
        assert_eq!(one.tally.failures.len(), NAMED_MAX);
        let mut one = warming(&order);
        let busy = json!({ "objects": [{ "outcome": "busy" }] });
        for _ in 1..BUSY_MAX {
            assert!(!one.take(&url(), &busy).unwrap());
            assert_eq!(one.reason_to_stop(false), None);
        }
        assert!(one.reason_to_stop(false).is_some());
    }

    #[test]
    fn object_that_takes_several_requests_counts_once() {
        let order = order(1, 1);
        let mut one = warming(&order);
        for (outcome, received) in [("busy", 30), ("busy", 30), ("held", 0)] {
            let object = json!({ "outcome": outcome, "received": received, "bytes": 60 });
            let answer = json!({ "objects": [object] });
            assert!(one.take(std::slice::from_ref(&order.url), &answer).unwrap());
            assert_eq!(one.reason_to_stop(true), None);
        }
        let tally = &one.tally;
        assert_eq!((tally.fetched, tally.held, tally.bytes), (1, 0, 60));
    }
}
