//! Assembles the modules into a running server: start, stop, drain.
//!
//! In production pingora's `Server` hosts the process. Each worker is a thread with its own
//! runtime, which runs the accept loops of [`crate::frontend`].
//! Shutdown is our own: pingora's graceful stop always sleeps for its whole grace period. So the
//! control task drains while pingora waits for a signal, and pingora then stops at once.

mod admin_controls;
#[cfg(test)]
mod admin_reference;
mod assembly;
mod background;
mod class_slots;
mod control;
mod control_task;
mod descriptors;
mod drain;
mod liveness;
#[cfg(test)]
mod metrics_reference;
mod overview;
mod reload;
mod reload_report;
mod route_slots;
mod service_manager;
mod signals;
mod upgrade;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use self::assembly::ServerParts;
use self::descriptors::DescriptorLimit;
pub use self::reload::ConfigFile;
use self::reload::Reloader;
use self::service_manager::ServiceManager;
use self::signals::{ControlTaskEnd, ReceivedSignal};
pub use self::upgrade::{FailureReporter, Predecessor, StartedProgram};
use self::workers::{AdminService, WorkerThread};
use crate::config::Config;
use crate::frontend::{Frontend, ListenAddress};
use crate::proxy::ActiveShield;
use crate::telemetry::ProgramLog;
use seawall_upstream::Resolver;

/// A server inside a tokio runtime of the caller, for tests and benches. Dropping it stops it at
/// once.
pub struct RunningServer {
    /// Bound viewer addresses, in the order of the listeners, without Unix sockets.
    pub viewers: Vec<SocketAddr>,
    /// Bound admin address; `None` for a Unix socket.
    pub admin: Option<SocketAddr>,
    /// The shield itself.
    pub shield: Arc<ActiveShield>,
    reloader: Arc<Reloader>,
    /// The listeners' connections.
    pub frontend: Arc<Frontend>,
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl RunningServer {
    /// Uses another configuration from now on, as a reload does. If that fails, nothing has
    /// changed.
    pub fn apply(&self, config: Config) -> anyhow::Result<()> {
        let applied = self.reloader.apply(config);
        applied.map(drop).map_err(anyhow::Error::from)
    }
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
pub fn start(config: Config, resolver: Resolver) -> anyhow::Result<RunningServer> {
    let ServerParts {
        frontend: service,
        admin_service,
        mut responders,
        control_task,
        reloader,
        ..
    } = ServerParts::bind(config, ServerStart::default())?.build(
        &resolver,
        1,
        &ProgramLog::default(),
        &Arc::default(),
    )?;
    let admin = admin_service.as_ref().and_then(AdminService::tcp_address);
    let (frontend, shield) = (service.frontend.clone(), service.shield.clone());
    let viewers = tcp_addresses(&frontend);

    let mut tasks = JoinSet::new();
    tasks.spawn(background::watch_certificates(&frontend));
    tasks.spawn(background::watch_secrets(&shield));
    tasks.spawn(control_task.run());
    tasks.spawn(service.serve(0));
    if let Some(responder) = responders.pop() {
        tasks.spawn(responder.run());
    }
    if let Some(admin_service) = admin_service {
        tasks.spawn(admin_service.run());
    }
    Ok(RunningServer {
        viewers,
        admin,
        shield,
        reloader,
        frontend,
        _tasks: tasks,
    })
}

/// How a server was started, for what may happen to it later.
#[derive(Default)]
pub struct ServerStart {
    /// Where the configuration comes from. `None`: it cannot be reloaded.
    pub file: Option<ConfigFile>,
    /// What an upgrade starts. `None`: there is none.
    pub program: Option<StartedProgram>,
    /// The process in whose place this one serves.
    pub predecessor: Option<Predecessor>,
}

/// Runs a server until a signal stops it. `log` is the program's own log.
pub fn run(config: Config, start: ServerStart, log: &ProgramLog) -> anyhow::Result<()> {
    run_announced(config, start, log, |_| {})
}

/// Like [`run`]. Calls `announce` with the bound viewer addresses, once all sockets are bound.
pub fn run_announced(
    config: Config,
    start: ServerStart,
    log: &ProgramLog,
    announce: impl FnOnce(&[SocketAddr]),
) -> anyhow::Result<()> {
    let workers = workers(config.threads);

    let runtime = background_runtime()?;
    let guard = runtime.enter();
    // First of all: a client that can connect may also send a signal, which must not end a starting
    // server.
    let signals_received = ReceivedSignal::listen().context("cannot listen for signals")?;
    let mut bound = ServerParts::bind(config, start)?;
    let mut predecessor = bound.start.predecessor.take();
    bound.descriptors = DescriptorLimit::raise();
    let manager = Arc::new(ServiceManager::from_environment());
    let assembly = bound.build(&assembly::system_lookup(), workers, log, &manager)?;
    if let Some(predecessor) = &mut predecessor {
        ask_before_origins(predecessor, &assembly.frontend.shield);
    }
    let frontend = assembly.frontend.frontend.clone();
    runtime.spawn(background::watch_certificates(&frontend));
    runtime.spawn(background::watch_secrets(&assembly.frontend.shield));
    runtime.spawn(signals::forward(signals_received, assembly.control.clone()));
    let control_task = runtime.spawn(assembly.control_task.run());
    if let Some(predecessor) = &predecessor {
        predecessor.wait_for_order_to_serve()?;
    }
    let (monitor, control) = (assembly.monitor, assembly.control);
    runtime.spawn(async move {
        service_manager::wait_for_workers(&monitor).await;
        if let Some(predecessor) = predecessor {
            frontend.wait_served_by(workers).await;
            take_over_from(predecessor).await;
        }
        service_manager::report_life(manager, monitor, frontend, control).await;
    });
    drop(guard);

    let ServerParts {
        frontend: service,
        admin_service,
        telemetry,
        responders,
        ..
    } = assembly;
    let mut server = Server::new_with_opt_and_conf(None, server_conf());
    for (number, responder) in responders.into_iter().enumerate() {
        server.add_service(WorkerThread::new(number, service.clone(), responder));
    }
    service.frontend.log_addresses();
    announce(&tcp_addresses(&service.frontend));
    if let Some(admin_service) = admin_service {
        let address = admin_service.address();
        tracing::info!(admin = %address, "admin server listens on {address}");
        server.add_service(admin_service);
    }
    drop(service);
    server.bootstrap();
    server.run(RunArgs {
        shutdown_signal: Box::new(ControlTaskEnd(Mutex::new(Some(control_task)))),
    });
    runtime.shutdown_background();
    telemetry.close();
    tracing::info!("stopped");
    Ok(())
}

/// Fills ask the process before this one first. Without it, they ask the origin alone.
fn ask_before_origins(predecessor: &mut Predecessor, shield: &ActiveShield) {
    match predecessor.take_object_source() {
        Ok(source) => shield.load().handover().set_source(source),
        Err(error) => {
            tracing::warn!(%error, "stored objects of the process before cannot be had: {error}");
        }
    }
}

/// Serves in place of another process from now on.
async fn take_over_from(predecessor: Predecessor) {
    let taken = tokio::task::spawn_blocking(move || predecessor.take_over()).await;
    if let Err(error) = taken {
        tracing::error!(%error, "the upgrade has not ended as it should");
    }
}

/// The runtime for the background tasks of all modules: they start before the workers' runtimes
/// exist.
fn background_runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("seawall background")
        .enable_all()
        .build()
        .context("cannot start the background thread")
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

/// The bound addresses, without Unix sockets.
fn tcp_addresses(frontend: &Frontend) -> Vec<SocketAddr> {
    let addresses = frontend.addresses().into_iter();
    let tcp = addresses.filter_map(|address| match address {
        ListenAddress::Tcp(address) => Some(address),
        ListenAddress::Unix(_) => None,
    });
    tcp.collect()
}
