//! End-to-end benchmark: the cost of the shield and the quality of a live stream, compared with
//! nginx and Varnish.
//!
//! The real program runs in its own process, with real sockets on the loopback interface, on one
//! core; everything else runs on another. The main figure is the server's CPU time per request:
//! unlike rates it hardly depends on other load of the machine. Nothing is asserted.
//!
//! `cargo bench --bench shield -- --help` lists the options.
#![allow(unreachable_pub, reason = "the modules are this binary's own")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people to read"
)]

mod arguments;
mod audience;
mod blocked;
mod bound;
mod crowd;
mod event_loop;
mod figures;
mod live;
mod load;
mod machine;
mod metrics_page;
mod origin;
mod process;
mod results;
mod scenario;
mod server;
mod table;
mod viewer;

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Arguments;
use crate::crowd::Crowd;
use crate::load::Generators;
use crate::machine::Cores;
use crate::origin::Origin;
use crate::results::{Results, Sample};
use crate::scenario::{PLAYLIST, SEGMENT, Scenario};
use crate::server::{Identity, Server, Setting};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [argument, address] = &words[..]
        && argument == bound::ARGUMENT
    {
        return be_the_bound(address);
    }
    if words.is_empty() {
        // Without cargo's `--bench` this may be cargo's test of all targets, which must not take
        // minutes.
        print!("{}", arguments::help());
        return ExitCode::SUCCESS;
    }
    let arguments = match arguments::read(words.into_iter()) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{}", arguments::help());
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn be_the_bound(address: &str) -> ExitCode {
    let served = address
        .parse()
        .map_err(anyhow::Error::from)
        .and_then(|address| Ok(bound::serve(address)?));
    if let Err(why) = served {
        eprintln!("error: {why:#}");
    }
    ExitCode::FAILURE
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let cores = Cores::pin();
    // This process has a thousand viewers and the origin's side of a thousand connections.
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
    ensure!(
        descriptors > 4000,
        "only {descriptors} open files are allowed (ulimit -n)"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        // Every way out of here drops, and so ends, all started programs.
        tokio::select! {
            done = run(arguments, cores, descriptors) => done,
            _ = interrupted.recv() => bail!("interrupted"),
            _ = terminated.recv() => bail!("stopped by a signal"),
        }
    })
}

/// The path that readiness checks request from the bench's own origin.
const READY: &str = "/vod/ready.m3u8";

/// Everything that exists while scenarios run.
struct Stage {
    cores: Cores,
    program: PathBuf,
    /// Files that this process, and each server, may have open.
    descriptors: u64,
    identity: Identity,
    servers: Vec<Server>,
    /// What a hit costs the kernel; see `bound.rs`.
    bound: Server,
    generators: Generators,
    origin: Origin,
    folder: TempDir,
}

async fn run(arguments: &Arguments, cores: Cores, descriptors: u64) -> anyhow::Result<()> {
    let busy = machine::busy_share().await;
    let built = PathBuf::from(env!("CARGO_BIN_EXE_seawall"));
    let program = arguments.program.clone().unwrap_or(built);
    let stage = Stage::prepare(cores, program, descriptors).await?;
    println!("{}; {}", stage.cores.told, stage.generators.notes());
    if let Some(busy) = busy.filter(|busy| *busy > 0.1) {
        println!(
            "the machine was {:.0} % busy before this began: expect noise",
            busy * 100.0
        );
    }
    if stage.servers.len() < 2 {
        println!("nginx is not installed: nothing to compare with");
    }
    let mut results = Results::default();
    for round in 1..=arguments.rounds {
        println!("\nround {round} of {}", arguments.rounds);
        for &scenario in &arguments.scenarios {
            match scenario {
                Scenario::Stampede => {
                    let viewers = arguments.viewers(scenario);
                    stage.stampede(&mut results, round, viewers).await;
                }
                _ if round > 1 && scenario.runs_once() => {}
                Scenario::Herd => stage.herd(&mut results).await,
                Scenario::Blocked => {
                    let size = arguments.blocked_size();
                    results.record_report(blocked::measure(&stage, size).await?);
                }
                Scenario::Audience => {
                    let size = arguments.audience_size();
                    results.record_report(audience::measure(&stage, size).await?);
                }
                Scenario::Live | Scenario::LowLatency => {
                    let programme = arguments.programme(scenario);
                    results.record_report(
                        live::compare(&stage, programme, arguments.only.as_deref()).await?,
                    );
                }
                _ => {
                    let lasting = arguments.load_duration();
                    stage
                        .saturate(&mut results, scenario, round, lasting)
                        .await?;
                }
            }
        }
    }
    println!("{}", results.text());
    Ok(())
}

/// The directory for all files of servers and generators. In memory if there is space for nginx's
/// cache, so that no disk is measured.
fn folder() -> std::io::Result<TempDir> {
    const MEMORY: &str = "/dev/shm";
    const ROOM_KIBIBYTES: u64 = 2 << 20;
    let mut builder = tempfile::Builder::new();
    // nginx started by root has an unprivileged worker.
    builder
        .prefix("seawall-bench-")
        .permissions(Permissions::from_mode(0o755));
    if machine::free_kibibytes(MEMORY).is_some_and(|free| free >= ROOM_KIBIBYTES) {
        builder.tempdir_in(MEMORY)
    } else {
        builder.tempdir()
    }
}

impl Stage {
    async fn prepare(cores: Cores, program: PathBuf, descriptors: u64) -> anyhow::Result<Stage> {
        let folder = folder().context("no folder for temporary files")?;
        let origin = Origin::start().await?;
        let identity = Identity::new(folder.path())?;
        let setting = Setting {
            folder: folder.path(),
            origin: origin.address,
            ready: READY,
            identity: &identity,
            cores: &cores,
        };
        let mut servers = vec![Server::seawall(&setting, &program, "").await?];
        servers.extend(Server::nginx(&setting).await?);
        let bound = Server::bound(&setting).await?;
        Ok(Stage {
            generators: Generators::find(),
            servers,
            bound,
            identity,
            cores,
            program,
            descriptors,
            origin,
            folder,
        })
    }

    /// The settings of a server in front of an origin that serves `ready`.
    fn setting<'a>(&'a self, folder: &'a Path, origin: SocketAddr, ready: &'a str) -> Setting<'a> {
        Setting {
            folder,
            origin,
            ready,
            identity: &self.identity,
            cores: &self.cores,
        }
    }

    /// The servers, beginning with another one in each round.
    fn rotated_servers(&self, round: usize) -> impl Iterator<Item = &Server> {
        let count = self.servers.len();
        (0..count).map(move |place| &self.servers[(place + round - 1) % count])
    }

    async fn saturate(
        &self,
        results: &mut Results,
        scenario: Scenario,
        round: usize,
        lasting: Duration,
    ) -> anyhow::Result<()> {
        let bound = scenario.has_bound().then_some(&self.bound);
        for server in self.rotated_servers(round).chain(bound) {
            for held in [PLAYLIST, SEGMENT] {
                let visit = viewer::visit(server.plain, held).await;
                ensure!(visit.whole, "{} does not serve {held}", server.name);
            }
            let Some(load) = scenario.load(server, round) else {
                continue;
            };
            let before = server.program.cpu_seconds();
            let folder = self.folder.path();
            let Some(brought) = self.generators.run(&load, lasting, folder).await? else {
                println!("{:13} skipped: no generator for it", scenario.name());
                return Ok(());
            };
            let sample = Sample {
                brought,
                cpu_seconds: server.program.cpu_seconds() - before,
                resident_mebibytes: server.program.resident_mebibytes(),
            };
            println!("{}", results.record(scenario, server.name, sample));
        }
        Ok(())
    }

    async fn stampede(&self, results: &mut Results, round: usize, viewers: usize) {
        let name = format!("stampede-{round}");
        for server in self.rotated_servers(round) {
            // The second run hits a stored object: the cost of this many viewers on this machine.
            for crowd in [Crowd::Stampede, Crowd::Held] {
                let outcome = crowd::stampede(server.plain, &self.origin, &name, viewers).await;
                println!("{}", results.record_crowd(crowd, server.name, outcome));
            }
        }
    }

    async fn herd(&self, results: &mut Results) {
        for server in &self.servers {
            let (all, later) = crowd::herd(server.plain, &self.origin, "herd").await;
            println!("{}", results.record_crowd(Crowd::Herd, server.name, all));
            println!(
                "{}",
                results.record_crowd(Crowd::LaterHerd, server.name, later)
            );
        }
    }
}
