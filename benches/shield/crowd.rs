//! What does a crowd wait for, and what does the origin notice of it?

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::origin::Origin;
use crate::viewer::{Visit, visit};

/// How long the origin thinks before it answers.
pub const DELAY: Duration = Duration::from_millis(300);

const HERD_FOR: Duration = Duration::from_secs(8);
const HERD_EVERY: Duration = Duration::from_millis(20);

/// Who is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crowd {
    /// Many viewers at once, of an object that nobody has.
    Stampede,
    /// The same, once it is held.
    Held,
    /// Everyone who polls a live playlist.
    Herd,
    /// Those of them who came after the first answer.
    LaterHerd,
}

impl Crowd {
    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Crowd::Stampede => "stampede",
            Crowd::Held => "  again, held",
            Crowd::Herd => "herd",
            Crowd::LaterHerd => "  after the first",
        }
    }
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    /// Requests that reached the origin, each time.
    pub origin_requests: Vec<u64>,
    /// Viewers.
    pub viewers: usize,
    /// Viewers that did not get everything.
    pub failed: usize,
    /// How long they took, shortest first.
    pub took: Vec<Duration>,
}

/// What nobody has yet, asked for by so many at once.
pub async fn stampede(
    server: SocketAddr,
    origin: &Origin,
    name: &str,
    viewers_count: usize,
) -> Outcome {
    let path = format!("/vod/{name}.m3u8?delay={}", DELAY.as_millis());
    let before = origin.asked();
    let mut viewers = JoinSet::new();
    for _ in 0..viewers_count {
        let path = path.clone();
        viewers.spawn(async move { visit(server, &path).await });
    }
    let visits = viewers.join_all().await;
    Outcome::of(&visits, origin.asked() - before)
}

/// A live playlist that is good for two seconds, polled steadily. Told are all polls, and those
/// that began after the first answer: they could all have been answered at once.
pub async fn herd(server: SocketAddr, origin: &Origin, name: &str) -> (Outcome, Outcome) {
    let path = format!("/live/{name}.m3u8?max-age=2&delay={}", DELAY.as_millis());
    let before = origin.asked();
    let mut viewers = JoinSet::new();
    let mut clock = interval(HERD_EVERY);
    let end = Instant::now() + HERD_FOR;
    while clock.tick().await < end {
        let path = path.clone();
        viewers.spawn(async move { visit(server, &path).await });
    }
    let visits = viewers.join_all().await;
    let asked = origin.asked() - before;
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
        let mut took: Vec<_> = visits.iter().map(|visit| visit.took).collect();
        took.sort();
        Outcome {
            origin_requests: vec![origin_requests],
            viewers: visits.len(),
            failed: visits.iter().filter(|visit| !visit.whole).count(),
            took,
        }
    }

    /// Takes what came of the same again.
    pub fn add(&mut self, more: Outcome) {
        self.origin_requests.extend(more.origin_requests);
        self.viewers += more.viewers;
        self.failed += more.failed;
        self.took.extend(more.took);
        self.took.sort();
    }

    /// So many of a hundred took no longer than this.
    pub fn percentile(&self, percent: usize) -> Duration {
        let place = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took.get(place).copied().unwrap_or_default()
    }
}
