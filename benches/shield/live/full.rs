//! Measures a live audience once memory is full. The stream's own segments fill it: memory holds a
//! third of the run's segments.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use seawall::telemetry::Outcome;
use seawall_manifest::Kind;
use seawall_simulator::{
    Broadcast, BroadcastPlan, Clock, DemoRendition, Packaging, SimulatedOrigin,
};

use super::{Asked, LIVE_FOR, Notes, Programme, READY, WARM_UP_SEGMENTS, start_players};
use crate::Stage;
use crate::arguments::LOW_LATENCY_SEGMENT;
use crate::figures::ratio;
use crate::metrics_page::MetricsPage;
use crate::server::{self, Server};
use crate::table::Table;

/// The formats that are measured.
const FORMS: [Packaging; 3] = [Packaging::Cmaf, Packaging::Timeline, Packaging::LowLatency];
/// Short segments, so that memory is full within a minute.
const SEGMENT: Duration = LOW_LATENCY_SEGMENT;
/// The least length of a run: about ten measured segment durations before memory is full.
const SEGMENTS_MIN: u32 = 60;
/// Segments that players have requested when the measured time begins.
const SEGMENTS_BEFORE: u32 = WARM_UP_SEGMENTS + 3;
/// The reasons for which media are evicted.
const EVICTION_REASONS: [&str; 4] = ["departed", "one_off", "live", "on_demand"];

/// The classes that are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Manifests,
    Media,
}

impl Class {
    const ALL: [Class; 2] = [Class::Manifests, Class::Media];

    fn name(self) -> &'static str {
        match self {
            Class::Manifests => "manifests",
            Class::Media => "media",
        }
    }

    fn of(kind: Kind) -> Class {
        if kind.is_manifest() {
            Class::Manifests
        } else {
            Class::Media
        }
    }
}

/// Responses to viewers, by outcome.
#[derive(Clone, Copy, Default)]
struct Answers([u64; Outcome::ALL.len()]);

impl Answers {
    fn since(self, before: Answers) -> Answers {
        Answers(std::array::from_fn(|place| self.0[place] - before.0[place]))
    }

    fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome.index()]
    }

    fn sum(&self, wanted: impl Fn(Outcome) -> bool) -> u64 {
        let wanted = Outcome::ALL.into_iter().filter(|outcome| wanted(*outcome));
        wanted.map(|outcome| self.of(outcome)).sum()
    }

    /// As the program defines it.
    fn hit_ratio(&self) -> String {
        let hits = self.sum(|outcome| outcome.source().is_hit() == Some(true));
        let counted = self.sum(|outcome| outcome.source().is_hit().is_some());
        format!("{:.2} %", 100.0 * hits as f64 / counted.max(1) as f64)
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Default)]
struct Counts {
    answers: [Answers; Class::ALL.len()],
    asked: Asked,
    /// Segments of each rendition so far.
    segments: u64,
    /// Evicted media.
    evictions: u64,
}

/// Outcomes with their own column.
const SHOWN: [Outcome; 5] = [
    Outcome::Hit,
    Outcome::Stale,
    Outcome::Blocking,
    Outcome::Coalesced,
    Outcome::Miss,
];

/// Runs each format through the shield alone, and reports the time before and after memory is full.
pub async fn measure_with_full_memory(
    stage: &Stage,
    programme: Programme,
) -> anyhow::Result<String> {
    let mut headings = vec!["full memory", "", "answers"];
    headings.extend(SHOWN.map(Outcome::as_str));
    headings.extend(["other", "hit ratio", "asked", "÷ ideal", "made", "evicted"]);
    let mut table = Table::new(&headings);
    for form in FORMS {
        let programme = Programme { form, ..programme };
        let [before, at, after] = run_stream(stage, programme).await?;
        for (word, from, until) in [("before", &before, &at), ("full", &at, &after)] {
            for class in Class::ALL {
                table.row(row((form, word, class), from, until));
            }
        }
        println!("{} has been watched with memory full", form.name());
    }
    let told = "The same players at one server whose memory holds a third of the segments made meanwhile, before media were\n\
                evicted and after. A hit waited for no fetch: it was fresh (hit), refreshed in the background (stale),\n\
                or there was nothing to fetch until it existed (blocking); see docs/outcomes.md. Ideal: one request\n\
                for each version of each manifest and for each segment; with LL-HLS for each version and each part.";
    Ok(format!("\n{told}\n\n{}", table.text()))
}

fn row(
    (form, word, class): (Packaging, &str, Class),
    from: &Counts,
    until: &Counts,
) -> Vec<String> {
    let place = class as usize;
    let answers = until.answers[place].since(from.answers[place]);
    let asked = until.asked.since(from.asked);
    let asked = match class {
        Class::Manifests => asked.manifests,
        Class::Media => asked.segments + asked.parts,
    };
    let made = until.segments - from.segments;
    let mut row = vec![
        form.name().to_owned(),
        format!("{word}, {}", class.name()),
        answers.sum(|_| true).to_string(),
    ];
    row.extend(SHOWN.map(|outcome| answers.of(outcome).to_string()));
    row.extend([
        answers.sum(|outcome| !SHOWN.contains(&outcome)).to_string(),
        answers.hit_ratio(),
        asked.to_string(),
        ratio(asked, ideal_requests(form, class, made)),
        made.to_string(),
        (until.evictions - from.evictions).to_string(),
    ]);
    row
}

/// Requests of an ideal cache while this many segments of each rendition are made.
fn ideal_requests(form: Packaging, class: Class, made: u64) -> u64 {
    let each = if form.is_low_latency_hls() {
        made * Broadcast::new(plan()).parts_per_segment()
    } else {
        made
    };
    // One MPD covers all renditions.
    if form.is_dash() && class == Class::Manifests {
        each
    } else {
        each * DemoRendition::ALL.len() as u64
    }
}

fn plan() -> BroadcastPlan {
    let clock = Clock::real();
    BroadcastPlan::from(clock.now().saturating_sub(LIVE_FOR))
        .segment_seconds(SEGMENT.as_secs())
        .part_thirds(1)
}

/// Counts when all players watch, when memory is full, and at the end.
async fn run_stream(stage: &Stage, programme: Programme) -> anyhow::Result<[Counts; 3]> {
    let programme = Programme {
        segment: SEGMENT,
        lasts: programme.lasts.max(SEGMENT * SEGMENTS_MIN),
        ..programme
    };
    let folder = tempfile::tempdir_in(stage.folder.path())?;
    let clock = Clock::real();
    let origin = SimulatedOrigin::start(plan(), clock.clone()).context("no origin")?;
    origin
        .control()
        .set(|faults| faults.slow = programme.thinks);
    let setting = stage.setting(folder.path(), origin.address(), READY);
    let [admin] = server::free_ports()?;
    let memory = bytes_made(origin.broadcast(), programme) / 3;
    let more = format!(
        "[admin]\nlisten = \"{admin}\"\n[cache]\nmemory = {memory}\nobject_max = {}\n",
        memory / 4
    );
    let server = Server::seawall(&setting, &stage.program, &more).await?;
    let players = start_players(server.plain, programme, &clock, &Notes::default());
    let broadcast = origin.broadcast();
    let first = broadcast.segments(clock.now()) + u64::from(WARM_UP_SEGMENTS);
    // Between parts, and far from a segment's end: everything that exists has been requested by
    // then.
    let from = broadcast.segment_due(first) + SEGMENT * 5 / 12;
    clock.wait_until(from).await;
    let before = counts(admin, &origin, &clock).await?;
    let until = from + programme.lasts;
    let (mut now, mut at, mut at_full) = (before, from, None);
    while at < until {
        at += SEGMENT;
        clock.wait_until(at).await;
        now = counts(admin, &origin, &clock).await?;
        if now.evictions > 0 && at_full.is_none() {
            at_full = Some(now);
        }
    }
    drop(players);
    let Some(at_full) = at_full else {
        bail!("memory of {memory} bytes was never full");
    };
    Ok([before, at_full, now])
}

/// Bytes of all segments, or of their parts, that are requested during a run.
fn bytes_made(broadcast: &Broadcast, programme: Programme) -> u64 {
    let segments = programme.lasts.as_secs() / SEGMENT.as_secs() + u64::from(SEGMENTS_BEFORE);
    let of_all = DemoRendition::ALL.map(|rendition| broadcast.segment(rendition, 10).len() as u64);
    of_all.into_iter().sum::<u64>() * segments
}

async fn counts(
    admin: SocketAddr,
    origin: &SimulatedOrigin,
    clock: &Clock,
) -> anyhow::Result<Counts> {
    let page = MetricsPage::fetch(admin).await?;
    let mut answers = [Answers::default(); Class::ALL.len()];
    for kind in Kind::ALL {
        let answers = &mut answers[Class::of(kind) as usize];
        for outcome in Outcome::ALL {
            let kind = format!("kind=\"{}\"", kind.as_str());
            answers.0[outcome.index()] += page.responses(outcome, &[kind]);
        }
    }
    let left = |reason| {
        let reason = format!("reason=\"{reason}\"");
        page.sum("seawall_store_evictions_total", &[reason])
    };
    Ok(Counts {
        answers,
        asked: Asked::of(origin),
        segments: origin.broadcast().segments(clock.now()),
        evictions: EVICTION_REASONS.map(left).iter().sum(),
    })
}
