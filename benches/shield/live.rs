//! Measures a live stream: what its audience gets, and what its origin has to serve.
//!
//! The simulated origin and the players run in this process, so one clock says when a version
//! existed and when each player had it. Each server gets a stream of its own, and starts with empty
//! memory.

mod alone;
mod full;
mod low_latency;
mod whole;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use seawall_simulator::{
    Broadcast, BroadcastPlan, Clock, DemoRendition, Packaging, Player, PlayerFetch, Resource,
    SimulatedOrigin, Utc,
};
use tokio::task::JoinSet;

use crate::Stage;
use crate::server::{Server, Setting};

/// How long the stream has been live: longer than any window.
const LIVE_FOR: Duration = Duration::from_mins(5);
/// The path that readiness checks request from the simulated origin.
const READY: &str = "/time";
/// The warm-up, in segment durations: afterwards all players are watching.
const WARM_UP_SEGMENTS: u32 = 3;

/// The stream and its number of viewers.
#[derive(Clone, Copy)]
pub struct Programme {
    pub form: Packaging,
    pub segment: Duration,
    /// The origin's delay for every response.
    pub thinks: Duration,
    pub players: usize,
    pub lasts: Duration,
}

/// A player's fetch, without its bytes.
#[derive(Clone, Debug)]
pub struct Note {
    pub resource: Resource,
    pub asked: Utc,
    pub answered: Utc,
    pub good: bool,
    /// HLS: the last whole segment, and the parts after it.
    pub reach: Option<(u64, u64)>,
}

impl Note {
    fn of(fetch: &PlayerFetch) -> Note {
        let info = fetch.manifest.as_ref().map(|manifest| &manifest.info);
        let edge = info.and_then(|info| info.playlist_edge());
        Note {
            resource: fetch.resource,
            asked: fetch.requested_at,
            answered: fetch.received_at,
            good: fetch.is_good(),
            reach: edge.map(|edge| (edge.last_sequence, edge.next_segment_parts)),
        }
    }

    pub fn waited(&self) -> Duration {
        self.answered.saturating_sub(self.asked)
    }
}

/// The result of one server's run.
pub struct Evening {
    pub broadcast: Broadcast,
    /// All fetches, in the order of their responses.
    pub notes: Vec<Note>,
    /// The begin and end of the measured time.
    pub from: Utc,
    pub until: Utc,
    /// Requests at the origin in that time, by kind.
    pub asked: Asked,
    /// Media objects that were requested more than once.
    pub twice: usize,
    /// CPU time of the server in that time.
    pub cpu_seconds: f64,
}

impl Evening {
    /// The fetches within the measured time.
    pub fn counted(&self) -> Vec<&Note> {
        let counted = |note: &&Note| note.answered >= self.from && note.asked < self.until;
        self.notes.iter().filter(counted).collect()
    }

    /// Segments made in the measured time, in each rendition.
    pub fn new_segments(&self) -> u64 {
        let broadcast = &self.broadcast;
        broadcast.segments(self.until) - broadcast.segments(self.from)
    }

    /// CPU time of the server per response, in microseconds.
    pub fn cpu_micros(&self, answers: usize) -> String {
        format!("{:.1}", self.cpu_seconds * 1e6 / answers.max(1) as f64)
    }
}

/// Requests at the origin.
#[derive(Clone, Copy, Default)]
pub struct Asked {
    pub manifests: u64,
    pub segments: u64,
    pub parts: u64,
}

impl Asked {
    fn of(origin: &SimulatedOrigin) -> Asked {
        use seawall_simulator::ResourceKind;
        let count = |kind| origin.request_log().count_of_kind(kind).requests;
        Asked {
            manifests: count(ResourceKind::Multivariant)
                + count(ResourceKind::Playlist)
                + count(ResourceKind::Mpd),
            segments: count(ResourceKind::Segment),
            parts: count(ResourceKind::Part),
        }
    }

    fn since(self, before: Asked) -> Asked {
        Asked {
            manifests: self.manifests - before.manifests,
            segments: self.segments - before.segments,
            parts: self.parts - before.parts,
        }
    }
}

/// The servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Seawall,
    /// Seawall without background refresh and prefetch.
    Passive,
    Nginx,
    Varnish,
    /// The origin itself, as the baseline.
    Origin,
}

impl Who {
    const ALL: [Who; 5] = [
        Who::Seawall,
        Who::Passive,
        Who::Nginx,
        Who::Varnish,
        Who::Origin,
    ];

    fn name(self) -> &'static str {
        match self {
            Who::Seawall => "seawall",
            Who::Passive => "passive",
            Who::Nginx => "nginx",
            Who::Varnish => "varnish",
            Who::Origin => "origin",
        }
    }

    async fn start(self, setting: &Setting<'_>, stage: &Stage) -> anyhow::Result<Option<Server>> {
        /// Switches background refresh and prefetch off.
        const PASSIVE: &str = "[[route]]\norigin = \"bench\"\n\
                               live = { cadence = false, prefetch = false }\n";
        Ok(match self {
            Who::Seawall => Some(Server::seawall(setting, &stage.program, "").await?),
            Who::Passive => Some(Server::seawall(setting, &stage.program, PASSIVE).await?),
            Who::Nginx => Server::nginx(setting).await?,
            Who::Varnish => Server::varnish(setting).await?,
            Who::Origin => None,
        })
    }
}

/// Runs a stream through every available server, or one, in turn, and reports each.
pub async fn compare(
    stage: &Stage,
    programme: Programme,
    only: Option<&str>,
) -> anyhow::Result<String> {
    let low_latency = programme.form.is_low_latency_hls();
    let mut table = if low_latency {
        low_latency::table()
    } else {
        whole::table()
    };
    let wanted = |who: &Who| only.is_none_or(|only| only == who.name());
    for who in Who::ALL.into_iter().filter(wanted) {
        let name = who.name();
        let Some(evening) = run_stream(stage, who, programme).await? else {
            continue;
        };
        table.row(if low_latency {
            low_latency::row(name, &evening)
        } else {
            whole::row(name, programme, &evening)
        });
        println!("{name} has been watched");
    }
    let full = match only {
        None | Some("seawall") if !low_latency => {
            full::measure_with_full_memory(stage, programme).await?
        }
        _ => String::new(),
    };
    let told = if low_latency {
        low_latency::description(programme)
    } else {
        whole::description(programme)
    };
    Ok(format!("{told}\n\n{}\n{full}", table.text()))
}

async fn run_stream(
    stage: &Stage,
    who: Who,
    programme: Programme,
) -> anyhow::Result<Option<Evening>> {
    let folder = tempfile::tempdir_in(stage.folder.path())?;
    if who == Who::Origin {
        let alone = alone::start(stage, folder.path(), programme).await?;
        let watched = record_audience(&alone.server, &alone.broadcast, None, programme).await;
        return Ok(Some(watched));
    }
    let clock = Clock::real();
    let plan = BroadcastPlan::from(clock.now().saturating_sub(LIVE_FOR))
        .segment_seconds(programme.segment.as_secs())
        .part_thirds(1);
    let origin = SimulatedOrigin::start(plan, clock).context("no origin")?;
    let thinks = programme.thinks;
    origin.control().set(|faults| faults.slow = thinks);
    let setting = stage.setting(folder.path(), origin.address(), READY);
    let Some(server) = who.start(&setting, stage).await? else {
        return Ok(None);
    };
    let broadcast = origin.broadcast().clone();
    let watched = record_audience(&server, &broadcast, Some(&origin), programme).await;
    Ok(Some(watched))
}

/// Starts an audience and records its fetches.
async fn record_audience(
    server: &Server,
    broadcast: &Broadcast,
    origin: Option<&SimulatedOrigin>,
    programme: Programme,
) -> Evening {
    let clock = Clock::real();
    let notes = Notes::default();
    let mut players = start_players(server.plain, programme, &clock, &notes);
    let segment = programme.segment;

    // From the middle of a segment to the middle of another.
    let first = broadcast.segments(clock.now()) + u64::from(WARM_UP_SEGMENTS);
    let from = broadcast.segment_due(first) + segment / 2;
    clock.wait_until(from).await;
    let asked = origin.map(Asked::of).unwrap_or_default();
    let cpu = server.program.cpu_seconds();
    let segments = (programme.lasts.as_secs_f64() / segment.as_secs_f64()).round();
    let until = from + segment.mul_f64(segments);
    clock.wait_until(until).await;
    let asked = origin.map(Asked::of).unwrap_or_default().since(asked);
    let cpu_seconds = server.program.cpu_seconds() - cpu;
    players.shutdown().await;
    Evening {
        broadcast: broadcast.clone(),
        notes: notes.take_notes(),
        from,
        until,
        asked,
        twice: origin.map_or(0, |origin| origin.request_log().duplicates().len()),
        cpu_seconds,
    }
}

/// Players who start one after another, within a segment duration.
fn start_players(
    door: SocketAddr,
    programme: Programme,
    clock: &Clock,
    notes: &Notes,
) -> JoinSet<()> {
    let mut players = JoinSet::new();
    for number in 0..programme.players {
        let rendition = DemoRendition::ALL[number % DemoRendition::ALL.len()];
        let player = player(door, programme.form, rendition, clock, notes);
        let share = number as f64 / programme.players as f64;
        let (clock, begins) = (
            clock.clone(),
            clock.now() + programme.segment.mul_f64(share),
        );
        players.spawn(async move {
            clock.wait_until(begins).await;
            player.play().await;
        });
    }
    players
}

/// The players' records.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.0.lock())
    }
}

fn player(
    door: SocketAddr,
    form: Packaging,
    rendition: DemoRendition,
    clock: &Clock,
    notes: &Notes,
) -> Player {
    let notes = notes.clone();
    Player {
        server: door,
        packaging: form,
        rendition,
        clock: clock.clone(),
        on_fetch: Arc::new(move |fetch| notes.0.lock().push(Note::of(fetch))),
    }
}
