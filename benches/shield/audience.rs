//! A large audience: tens of thousands of viewers on as many connections watch hundreds of live
//! streams through the shield. One event loop on the load's core is all viewers and their origin.

mod plan;
mod report;
mod timer_wheel;
mod viewers;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use seawall::telemetry::Outcome;

use self::plan::{Object, Plan, connections_for};
use self::report::Measured;
use self::viewers::{Tally, Viewers};
use crate::Stage;
use crate::event_loop::EventLoop;
use crate::metrics_page::MetricsPage;
use crate::process::own_cpu_seconds;
use crate::server::{self, Server};

/// The warm-up, in target durations: then each viewer has polled a few times.
const WARM_UP: u32 = 4;
/// Connections that are opened before the shield is given time to accept them.
const CONNECTIONS_AT_ONCE: usize = 200;
/// A generator that sends requests later than this, in microseconds, is overloaded.
const LAG_MAX: u32 = 50_000;

/// The audience and what it watches.
#[derive(Clone, Copy)]
pub struct Size {
    pub viewers: usize,
    pub streams: usize,
    pub renditions: usize,
    /// The target duration.
    pub segment: Duration,
    /// The measured time.
    pub lasts: Duration,
}

/// Runs the audience at the shield, and reports it.
pub async fn measure(stage: &Stage, size: Size) -> anyhow::Result<String> {
    let connections = connections_for(size.viewers, stage.descriptors);
    ensure!(
        connections > 0,
        "only {} open files are allowed (ulimit -Hn): no room for viewers",
        stage.descriptors
    );
    let plan = Plan {
        streams: size.streams,
        renditions: size.renditions,
        segment: size.segment,
    };
    let description = description(size, plan, connections, stage.descriptors);
    println!("{description}");
    let folder = tempfile::tempdir_in(stage.folder.path())?;
    let (mut event_loop, server, admin) = open(stage, folder.path(), plan, connections).await?;
    let start = Instant::now();
    let mut viewers = Viewers::new(plan, size.viewers, connections, start);
    viewers
        .watch(&mut event_loop, start + WARM_UP * size.segment)
        .await?;
    let page = tokio::spawn(MetricsPage::fetch(admin));
    let cpu = (server.program.cpu_seconds(), own_cpu_seconds());
    let failed_in_warm_up = std::mem::take(&mut viewers.tally).errors.sum();
    let from = Instant::now();
    viewers.watch(&mut event_loop, from + size.lasts).await?;
    let until = Instant::now();
    let mut tally = std::mem::take(&mut viewers.tally);
    let shield_seconds = server.program.cpu_seconds() - cpu.0;
    let generator_seconds = own_cpu_seconds() - cpu.1;
    let later = tokio::spawn(MetricsPage::fetch(admin));
    // What is still in progress then will never end.
    viewers
        .watch(&mut event_loop, Instant::now() + size.segment)
        .await?;
    tally.errors.unanswered += viewers.overdue(until);
    let (page, later) = (page.await??, later.await??);

    let seconds = (until - from).as_secs_f64();
    let since = |wanted: &dyn Fn(Outcome) -> bool| -> u64 {
        let wanted = Outcome::ALL.into_iter().filter(|outcome| wanted(*outcome));
        let counts =
            wanted.map(|outcome| later.responses(outcome, &[]) - page.responses(outcome, &[]));
        counts.sum()
    };
    let measured = Measured {
        seconds,
        shield_cores: shield_seconds / seconds,
        generator_cores: generator_seconds / seconds,
        resident_mebibytes: server.program.resident_mebibytes(),
        connections_open: later.sum("seawall_viewer_connections_open", &[]),
        hits: since(&|outcome| outcome.source().is_hit() == Some(true)),
        counted: since(&|outcome| outcome.source().is_hit().is_some()),
        made: plan.made_between(from - start, until - start),
        failed_in_warm_up,
    };
    let warning = warning(&mut tally);
    let report = report::text(tally, &measured);
    Ok(format!("{description}\n\n{report}{warning}"))
}

/// Starts the shield in front of an origin in an event loop, and opens all connections.
async fn open(
    stage: &Stage,
    folder: &Path,
    plan: Plan,
    connections: usize,
) -> anyhow::Result<(EventLoop, Server, SocketAddr)> {
    let mut event_loop = EventLoop::new()?;
    let mut origin = Viewers::new(plan, 0, 0, Instant::now());
    let mut ready = Vec::new();
    plan.write_target(Object::Playlist(0), &mut ready);
    let ready = String::from_utf8(ready)?;
    let setting = stage.setting(folder, event_loop.origin.address()?, &ready);
    let [admin] = server::free_ports()?;
    let more = format!(
        "[admin]\nlisten = \"{admin}\"\n\
         [limits]\nconnections_max = 1000000\nconnections_per_client_max = 1000000\n"
    );
    let start = Server::seawall(&setting, &stage.program, &more);
    let server = event_loop.serve_beside(&mut origin, start).await??;
    for number in 0..connections {
        event_loop.connect(server.plain)?;
        if number % CONNECTIONS_AT_ONCE == 0 {
            event_loop.step(Duration::ZERO, &mut origin)?;
            event_loop.rest().await;
        }
    }
    Ok((event_loop, server, admin))
}

/// What was scaled, and how.
fn description(size: Size, plan: Plan, connections: usize, descriptors: u64) -> String {
    let sizes = (0..size.renditions.min(3)).map(|rendition| plan.segment_bytes(rendition) >> 10);
    let sizes: Vec<_> = sizes.map(|kibibytes| kibibytes.to_string()).collect();
    let (viewers, seconds) = (size.viewers, size.segment.as_secs());
    let mut text = format!(
        "{viewers} viewers on {connections} connections, {} streams × {} renditions, target duration {seconds} s, \
         {} s measured after\n{} s of warm-up. Each viewer polls its playlist once in {seconds} s and fetches each \
         new segment. Segments are scaled down\nto {} KiB by rendition. From memory: Cache-Status says hit. Times \
         from the request's write to the last byte read.",
        size.streams,
        size.renditions,
        size.lasts.as_secs(),
        (WARM_UP * size.segment).as_secs(),
        sizes.join(", "),
    );
    if connections < viewers {
        let _ = write!(
            text,
            "\nSCALED: {descriptors} open files are allowed (ulimit -Hn), so {viewers} viewers share {connections} \
             connections, at the pace of {viewers}."
        );
    }
    text
}

/// Whether the generator was too slow for these figures to say something of the shield.
fn warning(tally: &mut Tally) -> String {
    let place = tally.lags.len() * 99 / 100;
    if place >= tally.lags.len() {
        return String::new();
    }
    let (_, p99, _) = tally.lags.select_nth_unstable(place);
    if *p99 <= LAG_MAX {
        return String::new();
    }
    "THE GENERATOR WAS OVERLOADED: fewer --viewers or a longer --target-duration\n".to_owned()
}
