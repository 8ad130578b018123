//! Measures the waits of a crowd, and the requests that it causes at the origin.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::origin::Origin;
use crate::viewer::{Visit, visit};

/// The origin's response delay.
pub const DELAY: Duration = Duration::from_millis(300);

const HERD_FOR: Duration = Duration::from_secs(8);
const HERD_EVERY: Duration = Duration::from_millis(20);

/// The crowds in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crowd {
    /// Concurrent viewers of an object that is not stored.
    Stampede,
    /// The same, once it is stored.
    Held,
    /// All requests that poll a live playlist.
    Herd,
    /// Those that began after the first response.
    LaterHerd,
}

impl Crowd {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Crowd::Stampede => "stampede",
            Crowd::Held => "  again, held",
            Crowd::Herd => "herd",
            Crowd::LaterHerd => "  after the first",
        }
    }
}

/// The result of a crowd.
#[derive(Default)]
pub struct Outcome {
    /// Requests that reached the origin, in each run.
    pub origin_requests: Vec<u64>,
    /// Viewers.
    pub viewers: usize,
    /// Viewers without a complete response.
    pub failed: usize,
    /// Times from the connect to the last byte.
    pub took: Sorted,
    /// Their two parts: until the viewer was connected, and from then on.
    pub connects: Sorted,
    pub responses: Sorted,
}

/// Durations, shortest first.
#[derive(Default)]
pub struct Sorted(Vec<Duration>);

/// This many concurrent requests for an object that is not stored.
pub async fn stampede(
    server: SocketAddr,
    origin: &Origin,
    name: &str,
    viewers_count: usize,
) -> Outcome {
    let path = format!("/vod/{name}.m3u8?delay={}", DELAY.as_millis());
    let before = origin.delayed_requests();
    let mut viewers = JoinSet::new();
    for _ in 0..viewers_count {
        let path = path.clone();
        viewers.spawn(async move { visit(server, &path).await });
    }
    let visits = viewers.join_all().await;
    Outcome::of(&visits, origin.delayed_requests() - before)
}

/// A live playlist with a lifetime of two seconds, polled steadily. Reports all polls, and those
/// that began after the first response: these could all have been answered at once.
pub async fn herd(server: SocketAddr, origin: &Origin, name: &str) -> (Outcome, Outcome) {
    let path = format!("/live/{name}.m3u8?max-age=2&delay={}", DELAY.as_millis());
    let before = origin.delayed_requests();
    let mut viewers = JoinSet::new();
    let mut clock = interval(HERD_EVERY);
    let end = Instant::now() + HERD_FOR;
    while clock.tick().await < end {
        let path = path.clone();
        viewers.spawn(async move { visit(server, &path).await });
    }
    let visits = viewers.join_all().await;
    let asked = origin.delayed_requests() - before;
    let first = visits.iter().map(|visit| visit.began + visit.took).min();
    let later: Vec<_> = visits
        .iter()
        .copied()
        .filter(|visit| first.is_some_and(|first| visit.began > first))
        .collect();
    (Outcome::of(&visits, asked), Outcome::of(&later, asked))
}

impl Outcome {
    fn of(visits: &[Visit], origin_requests: u64) -> Outcome {
        let sorted = |part: fn(&Visit) -> Duration| Sorted::of(visits.iter().map(part));
        Outcome {
            origin_requests: vec![origin_requests],
            viewers: visits.len(),
            failed: visits.iter().filter(|visit| !visit.whole).count(),
            took: sorted(|visit| visit.took),
            connects: sorted(|visit| visit.connected_in),
            responses: sorted(|visit| visit.took.saturating_sub(visit.connected_in)),
        }
    }

    /// Adds the result of another run.
    pub fn merge(&mut self, more: Outcome) {
        self.origin_requests.extend(more.origin_requests);
        self.viewers += more.viewers;
        self.failed += more.failed;
        self.took.merge(more.took);
        self.connects.merge(more.connects);
        self.responses.merge(more.responses);
    }
}

impl Sorted {
    fn of(durations: impl Iterator<Item = Duration>) -> Sorted {
        let mut durations: Vec<_> = durations.collect();
        durations.sort_unstable();
        Sorted(durations)
    }

    fn merge(&mut self, more: Sorted) {
        self.0.extend(more.0);
        self.0.sort_unstable();
    }

    /// The time that this percentage of viewers did not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let place = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(place).copied().unwrap_or_default()
    }
}
