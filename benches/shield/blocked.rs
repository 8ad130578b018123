//! Crowds that wait at the shield for one answer of the origin: what an answer costs, compared with
//! a hit, and how long after the origin wrote it the last viewer has it.
//!
//! One crowd at a time, all on connections that stay open: a blocking playlist reload (LL-HLS), the
//! chunks of a file that grows, and an object that is being fetched.

mod delays;
mod origin_script;
mod playlist;

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::delays::TurnDelays;
use self::origin_script::{CHUNK_BYTES, GROWING, HIT, LATE, OriginScript, Turn};
use self::playlist::{PART, PLAYLIST};
use crate::Stage;
use crate::event_loop::EventLoop;
use crate::scenario::Scenario;
use crate::server::Server;
use crate::table::Table;

/// The time in which all requests reach the shield, and it has nothing more to do.
const SETTLE: Duration = Duration::from_millis(200);
/// The origin's delay for an object that viewers request at once.
const LATE_BY: Duration = Duration::from_millis(100);
const CHUNK_EVERY: Duration = Duration::from_millis(50);
/// Chunks for each turn of the other crowds.
const CHUNKS_PER_TURN: usize = 10;
/// The longest wait of a crowd.
const PATIENCE: Duration = Duration::from_secs(10);

/// The size of the crowds.
#[derive(Clone, Copy)]
pub struct Size {
    pub viewers: usize,
    pub turns: usize,
    /// How long the load lasts with which a hit's CPU time is measured.
    pub load: Duration,
}

/// The result of one crowd.
#[derive(Default)]
struct Outcome {
    turns: Vec<TurnDelays>,
    answers: usize,
    failed: usize,
    joined: usize,
    cpu_seconds: f64,
}

impl Outcome {
    fn cpu_micros(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.answers.max(1) as f64
    }

    fn add(&mut self, turn: Turn, written: Option<Instant>) {
        self.answers += turn.done_at.len();
        self.failed += turn.failed;
        self.joined += turn.joined;
        let delays = written.and_then(|written| TurnDelays::of(written, turn.done_at));
        self.turns.extend(delays);
    }

    fn cells(&self, name: &str, size: Size, hit_micros: f64) -> Vec<String> {
        let mut cells = vec![
            name.to_owned(),
            format!("{} × {}", size.viewers, self.answers / size.viewers),
            self.failed.to_string(),
            self.joined.to_string(),
        ];
        cells.extend(delays::cells(&self.turns));
        cells.push(format!("{:.2}", self.cpu_micros()));
        cells.push(format!("{:.2}", self.cpu_micros() / hit_micros));
        cells
    }
}

/// Runs all crowds at the shield, and reports them.
pub async fn measure(stage: &Stage, size: Size) -> anyhow::Result<String> {
    let folder = tempfile::tempdir_in(stage.folder.path())?;
    let mut event_loop = EventLoop::new()?;
    let mut script = OriginScript::new();
    let setting = stage.setting(folder.path(), event_loop.origin.address()?, HIT);
    let start = Server::seawall(&setting, &stage.program, "");
    let server = event_loop.serve_beside(&mut script, start).await??;
    for _ in 0..size.viewers {
        event_loop.connect(server.plain)?;
    }
    let mut crowd = CrowdInTurns {
        event_loop,
        script,
        server,
    };
    let before = playlist_hit_micros(stage, size).await?;
    let hits = crowd.hits(size).await?;
    let blocked = crowd.blocked(size).await?;
    let chunks = crowd.chunks(size).await?;
    let joined = crowd.joined(size).await?;
    let after = playlist_hit_micros(stage, size).await?;
    let hit_micros = f64::midpoint(before, after);

    let mut table = Table::new(&[
        "waiting crowd",
        "viewers × turns",
        "failed",
        "joined",
        "first ms",
        "p50",
        "p99",
        "last",
        "worst last",
        "CPU µs",
        "÷ hit",
    ]);
    table.row(hits.cells("hit, held", size, hit_micros));
    table.row(blocked.cells("blocked reload", size, hit_micros));
    table.row(chunks.cells("chunk to a follower", size, hit_micros));
    table.row(joined.cells("joined fetch", size, hit_micros));
    Ok(format!(
        "{} viewers on open connections wait for one answer of the origin. Milliseconds from the origin's write\n\
         to the last byte at a viewer, the median of the turns; worst last: of all turns. CPU is the shield's, per\n\
         answer, requests included (per chunk of {CHUNK_BYTES} bytes, every {} ms: without the request). ÷ hit: by the {hit_micros:.2} µs\n\
         of a hit under the playlist load in this run ({before:.2} before, {after:.2} after). Joined: those that\n\
         Cache-Status says joined a fetch. Hit, held: the same viewers at once request what is stored.\n\n{}",
        size.viewers,
        CHUNK_EVERY.as_millis(),
        table.text()
    ))
}

/// What a hit costs under the load of the `playlist` scenario.
async fn playlist_hit_micros(stage: &Stage, size: Size) -> anyhow::Result<f64> {
    let server = &stage.servers[0];
    let load = Scenario::Playlist.load(server, 1).context("no load")?;
    let before = server.program.cpu_seconds();
    let brought = stage
        .generators
        .run(&load, size.load, stage.folder.path())
        .await?
        .context("no generator")?;
    ensure!(brought.requests > 0, "the shield answered no request");
    let cpu_seconds = server.program.cpu_seconds() - before;
    Ok(cpu_seconds * 1e6 / brought.requests as f64)
}

struct CrowdInTurns {
    event_loop: EventLoop,
    script: OriginScript,
    server: Server,
}

impl CrowdInTurns {
    async fn hits(&mut self, size: Size) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        // Once before it counts.
        self.request_all(HIT, HIT);
        self.wait_for_all().await?;
        let before = self.server.program.cpu_seconds();
        for _ in 0..size.turns {
            let turn_ends = self.request_all(HIT, HIT) + PART;
            let turn = self.wait_for_all().await?;
            outcome.add(turn, None);
            self.pause_until(turn_ends).await?;
        }
        outcome.cpu_seconds = self.server.program.cpu_seconds() - before;
        Ok(outcome)
    }

    async fn blocked(&mut self, size: Size) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let version = self.script.version();
        self.request_all(PLAYLIST, &version.start());
        self.wait_for_all().await?;
        // The first turn is not counted: the shield only now learns that it is watched.
        let mut before = 0.0;
        for number in 0..=size.turns {
            let version = self.script.version().next();
            let turn_ends = self.request_all(&version.target(), &version.start()) + PART;
            self.pause_until(Instant::now() + SETTLE).await?;
            let written = self.script.release_version(&mut self.event_loop);
            ensure!(written.is_some(), "no blocking request reached the origin");
            let turn = self.wait_for_all().await?;
            if number > 0 {
                outcome.add(turn, written);
            }
            self.pause_until(turn_ends).await?;
            if number == 0 {
                before = self.server.program.cpu_seconds();
            }
        }
        outcome.cpu_seconds = self.server.program.cpu_seconds() - before;
        Ok(outcome)
    }

    async fn joined(&mut self, size: Size) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let before = self.server.program.cpu_seconds();
        for number in 0..size.turns {
            let target = format!("{LATE}{number}.ts");
            let turn_ends = self.request_all(&target, &target) + PART;
            let deadline = Instant::now() + PATIENCE;
            let requested_at = loop {
                if let Some(at) = self.script.turn.requested_at {
                    break at;
                }
                ensure!(Instant::now() < deadline, "no request reached the origin");
                self.step().await?;
            };
            self.pause_until(requested_at + LATE_BY).await?;
            let written = self.script.release_late(&mut self.event_loop);
            let turn = self.wait_for_all().await?;
            outcome.add(turn, written);
            self.pause_until(turn_ends).await?;
        }
        outcome.cpu_seconds = self.server.program.cpu_seconds() - before;
        Ok(outcome)
    }

    /// A turn is a chunk.
    async fn chunks(&mut self, size: Size) -> anyhow::Result<Outcome> {
        self.request_all(GROWING, "x");
        self.script.turn.bytes_read = vec![0; self.event_loop.viewers()];
        self.pause_until(Instant::now() + 2 * SETTLE).await?;
        ensure!(
            self.script.is_growing(),
            "no request for the growing file reached the origin"
        );
        let before = self.server.program.cpu_seconds();
        let mut due = Instant::now();
        for _ in 0..size.turns * CHUNKS_PER_TURN {
            self.script.write_chunk(&mut self.event_loop);
            due += CHUNK_EVERY;
            self.pause_until(due).await?;
        }
        let cpu_seconds = self.server.program.cpu_seconds() - before;
        self.script.write_last_chunk(&mut self.event_loop);
        let turn = self.wait_for_all().await?;

        let written = &self.script.chunks_written;
        let mut read_at = vec![Vec::new(); written.len()];
        for (chunk, at) in &turn.chunks_read {
            let of_chunk = read_at.get_mut(*chunk).context("a chunk too many")?;
            of_chunk.push(*at);
        }
        let turns = written.iter().zip(read_at);
        Ok(Outcome {
            answers: turn.chunks_read.len(),
            turns: turns
                .filter_map(|(written, read_at)| TurnDelays::of(*written, read_at))
                .collect(),
            failed: turn.failed,
            joined: turn.joined,
            cpu_seconds,
        })
    }

    /// Sends the request of every viewer. Returns the time before the first.
    fn request_all(&mut self, target: &str, expected: &str) -> Instant {
        let began = Instant::now();
        self.script.turn = Turn {
            expected: expected.to_owned(),
            ..Turn::default()
        };
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        for viewer in 0..self.event_loop.viewers() {
            self.event_loop
                .send(viewer, request.as_bytes(), &mut self.script);
        }
        began
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        const WAIT: Duration = Duration::from_millis(10);
        self.event_loop.step(WAIT, &mut self.script)?;
        self.event_loop.rest().await;
        Ok(())
    }

    async fn wait_for_all(&mut self) -> anyhow::Result<Turn> {
        let deadline = Instant::now() + PATIENCE;
        while self.script.turn.done_at.len() + self.script.turn.failed < self.event_loop.viewers() {
            if Instant::now() > deadline {
                let (done, failed) = (self.script.turn.done_at.len(), self.script.turn.failed);
                bail!("after {PATIENCE:?} only {done} viewers are served, and {failed} failed");
            }
            self.step().await?;
        }
        Ok(std::mem::take(&mut self.script.turn))
    }

    async fn pause_until(&mut self, until: Instant) -> anyhow::Result<()> {
        self.event_loop.serve_until(until, &mut self.script).await?;
        Ok(())
    }
}
