//! Assembles the modules into a running server: start, stop, drain.
//!
//! In production pingora's `Server` hosts the process. Each worker is a thread with its own
//! runtime, which runs the accept loops of [`crate::frontend`].
//! Shutdown is our own: pingora's graceful stop always sleeps for its whole grace period. So the
//! drain happens while pingora waits for the signal, and pingora then stops at once.

mod assembly;
mod background;
mod descriptors;
#[cfg(test)]
mod metrics_reference;
mod probe;
mod signals;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use tokio::task::JoinSet;

use self::assembly::ServerParts;
use self::signals::{ReceivedSignal, Signals};
use self::workers::{AdminService, WorkerThread};
use crate::config::Config;
use crate::frontend::{BoundListener, Frontend, ListenAddress};
use crate::proxy::Shield;
use crate::telemetry::LogCounts;
use seawall_upstream::Resolver;

/// A server inside a tokio runtime of the caller, for tests and benches. Dropping it stops it at
/// once.
pub struct RunningServer {
    /// Bound viewer addresses, in the order of the listeners, without Unix sockets.
    pub viewers: Vec<SocketAddr>,
    /// Bound admin address.
    pub admin: Option<SocketAddr>,
    /// The shield itself.
    pub shield: Arc<Shield>,
    /// The listeners' connections.
    pub frontend: Arc<Frontend>,
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.frontend.abort();
    }
}

/// Starts everything on the current tokio runtime. Port 0 binds a free port.
#[expect(
    clippy::needless_pass_by_value,
    reason = "its only owner may give it up"
)]
pub fn start(config: Config, lookup: Resolver) -> anyhow::Result<RunningServer> {
    let ServerParts {
        frontend: front,
        doors,
        admin_service: office,
        mut probes,
        ..
    } = ServerParts::bind(config)?.build(&lookup, 1, &Arc::default())?;
    let viewers = doors.iter().filter_map(tcp_address).collect();
    let admin = office.as_ref().and_then(AdminService::address);
    let (edge, shield) = (front.frontend.clone(), front.shield.clone());

    let mut tasks = JoinSet::new();
    tasks.spawn(background::watch_certificates(&doors));
    front.accept_connections(doors, &mut tasks);
    if let Some(probe) = probes.pop() {
        tasks.spawn(probe.run());
    }
    if let Some(office) = office {
        tasks.spawn(office.run());
    }
    Ok(RunningServer {
        viewers,
        admin,
        shield,
        frontend: edge,
        _tasks: tasks,
    })
}

/// Runs a server until a signal stops it. `log` has the counters of the program's own log.
pub fn run(config: Config, log: &Arc<LogCounts>) -> anyhow::Result<()> {
    run_announced(config, log, |_| {})
}

/// Like [`run`]. Calls `announce` with the bound viewer addresses, once all sockets are bound.
pub fn run_announced(
    mut config: Config,
    log: &Arc<LogCounts>,
    announce: impl FnOnce(&[SocketAddr]),
) -> anyhow::Result<()> {
    descriptors::raise_limit(&mut config.frontend.limits);
    let (workers, drain_max) = (workers(config.threads), config.drain_max);

    // The workers' runtimes do not exist yet: background tasks of all modules run on this one.
    let keeper = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("seawall keeper")
        .enable_all()
        .build()
        .context("cannot start the background thread")?;
    let guard = keeper.enter();
    // First of all: a client that can connect may also send a signal, which must not end a starting
    // server.
    let heard = ReceivedSignal::listen().context("cannot listen for signals")?;
    let bound = ServerParts::bind(config)?;
    let assembly = bound.build(&assembly::system_lookup(), workers, log)?;
    keeper.spawn(background::watch_certificates(&assembly.doors));
    drop(guard);

    let ServerParts {
        frontend: front,
        doors,
        admin_service: office,
        telemetry,
        lame_duck,
        probes,
    } = assembly;
    let signals = Signals {
        frontend: front.frontend.clone(),
        received: Mutex::new(Some(heard)),
        lame_duck,
        drain_max,
    };
    let mut server = Server::new_with_opt_and_conf(None, server_conf());
    for (number, probe) in probes.into_iter().enumerate() {
        let doors = doors
            .iter()
            .map(BoundListener::try_clone)
            .collect::<Result<_, _>>();
        let doors = doors.context("cannot share a listener among workers")?;
        server.add_service(WorkerThread::new(number, front.clone(), doors, probe));
    }
    for door in &doors {
        let tls = door.certificates().is_some();
        tracing::info!(address = %door.address(), tls, "listening on {}", door.address());
    }
    announce(&doors.iter().filter_map(tcp_address).collect::<Vec<_>>());
    // The workers have duplicates: the socket closes with the last of them.
    drop(doors);
    if let Some(office) = office {
        if let Some(address) = office.address() {
            tracing::info!(admin = %address, "operators come in at {address}");
        }
        server.add_service(office);
    }
    drop(front);
    server.bootstrap();
    server.run(RunArgs {
        shutdown_signal: Box::new(signals),
    });
    keeper.shutdown_background();
    telemetry.close();
    tracing::info!("stopped");
    Ok(())
}

fn workers(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn server_conf() -> ServerConf {
    ServerConf {
        threads: 1,
        work_stealing: false,
        ..ServerConf::default()
    }
}

fn tcp_address(door: &BoundListener) -> Option<SocketAddr> {
    match door.address() {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    }
}
