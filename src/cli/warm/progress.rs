//! Shows on stderr how far a walk is: a bar on a terminal, else a line every few seconds.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use super::WarmCounts;
use crate::telemetry::counted;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Characters of the bar.
const BAR: u64 = 24;

pub(super) struct ProgressBar {
    is_terminal: bool,
    is_silent: bool,
    begun: Instant,
    next_line: Instant,
    /// The last line said what it waits for.
    has_said: bool,
}

impl ProgressBar {
    pub(super) fn new(is_silent: bool) -> ProgressBar {
        let now = Instant::now();
        ProgressBar {
            is_terminal: stderr().is_terminal(),
            is_silent,
            begun: now,
            next_line: now + LINE_INTERVAL,
            has_said: false,
        }
    }

    /// `outage`: why nothing goes on.
    pub(super) fn show(&mut self, tally: &WarmCounts, waiting: usize, outage: Option<&str>) {
        let now = Instant::now();
        let is_news = outage.is_some() && !self.has_said;
        let is_due = self.is_terminal || now >= self.next_line || is_news;
        if self.is_silent || !is_due {
            return;
        }
        self.next_line = now + LINE_INTERVAL;
        self.has_said = outage.is_some();
        let line = match outage {
            None => {
                let (done, all) = (tally.objects(), tally.objects() + waiting as u64);
                let bar = if self.is_terminal {
                    bar(done, all)
                } else {
                    String::new()
                };
                bar + &line(tally, all, now.duration_since(self.begun))
            }
            Some(why) => format!("waiting for {why}"),
        };
        let text = if self.is_terminal {
            format!("\r\x1b[K{line}")
        } else {
            format!("{line}\n")
        };
        let _ = stderr().write_all(text.as_bytes());
    }

    /// Clears the bar.
    pub(super) fn end(&self) {
        if self.is_terminal && !self.is_silent {
            let _ = stderr().write_all(b"\r\x1b[K");
        }
    }
}

/// The bar, and a space. Only a terminal shows it.
fn bar(done: u64, all: u64) -> String {
    let full = done * BAR / all.max(1);
    let bar = (0..BAR).map(|at| if at < full { '█' } else { '░' });
    bar.chain([' ']).collect()
}

/// `all`: the objects that are known.
fn line(tally: &WarmCounts, all: u64, elapsed: Duration) -> String {
    let done = tally.objects();
    let mib = tally.bytes >> 20;
    let rate = done / elapsed.as_secs().max(1);
    format!(
        "{done} of {}, {mib} MiB fetched, {} stored before, {} failed, {rate}/s",
        counted(all, "known object"),
        tally.held,
        tally.failed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_says_how_much_of_what_is_known_is_done() {
        let tally = WarmCounts {
            held: 3,
            fetched: 9,
            bytes: 5 << 20,
            ..WarmCounts::default()
        };
        let text = line(&tally, 24, Duration::from_secs(4));
        assert!(bar(12, 24).starts_with("████████████░"));
        assert!(
            text.starts_with("12 of 24 known objects, 5 MiB fetched, 3 stored before"),
            "{text}"
        );
        assert!(text.ends_with("3/s"), "{text}");
        let text = line(&WarmCounts::default(), 1, Duration::ZERO);
        assert!(text.starts_with("0 of 1 known object,"), "{text}");
        bar(0, 0);
    }
}
