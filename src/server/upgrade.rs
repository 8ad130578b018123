//! Replaces the running program by another one without a refused connection. The process that
//! serves starts the new one, hands it the listening sockets, and drains once the new one serves.
//! If that fails, nothing has changed.
//!
//! The steps: `program` starts the process; it gets the sockets over the `channel`, reads its
//! configuration and builds everything (`predecessor`), and reports that it is prepared; then it is
//! ordered to serve, and reports that every worker accepts connections; then it is the server
//! (`successor`). Before the order to serve it can be killed without harm, because it has accepted
//! nothing.

mod channel;
mod predecessor;
mod program;
mod successor;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde_json::{Value, json};

pub use self::predecessor::{FailureReporter, Predecessor};
pub use self::program::StartedProgram;
use self::successor::Successor;
use super::service_manager::ServiceManager;
use crate::frontend::{Frontend, HandedSocket};
use crate::proxy::{ActiveShield, ObjectGiver};
use crate::telemetry::{CollectedMetric, Metric, MetricKind};

/// How long the new process may take for its steps.
#[derive(Clone, Copy, Debug)]
struct UpgradeDeadlines {
    /// Until everything that can fail is done.
    prepare_max: Duration,
    /// Until every worker accepts connections.
    serve_max: Duration,
}

const DEADLINES: UpgradeDeadlines = UpgradeDeadlines {
    prepare_max: Duration::from_mins(1),
    serve_max: Duration::from_secs(10),
};

/// Why an upgrade has changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct UpgradeError {
    text: String,
}

/// An upgrade that was carried out.
#[derive(Clone, Debug)]
pub(super) struct UpgradeReport {
    pid: u32,
    version: String,
}

/// What is known of the upgrades of this process.
#[derive(Clone, Debug, Default)]
pub(super) struct UpgradeStats {
    is_running: bool,
    failed: u64,
    last_error: Option<Value>,
    /// The process that serves in place of this one.
    successor: Option<Value>,
}

/// Carries out upgrades of this process.
pub(super) struct Upgrader {
    /// `None`: this process cannot start another one like itself.
    program: Option<StartedProgram>,
    frontend: Arc<Frontend>,
    /// Has the objects that the new process asks for.
    shield: Arc<ActiveShield>,
    /// The admin server's socket, until a drain begins.
    admin: Mutex<Option<HandedSocket>>,
    service_manager: Arc<ServiceManager>,
    stats: Mutex<UpgradeStats>,
    deadlines: UpgradeDeadlines,
}

/// A new process that can serve at once.
pub(super) struct PreparedUpgrade {
    successor: Successor,
    /// Over these it asks for stored objects.
    objects: Vec<UnixStream>,
}

/// What an upgrade has brought: the process that serves now, and what gives it stored objects.
pub(super) struct CompletedUpgrade {
    pub(super) report: UpgradeReport,
    pub(super) giver: ObjectGiver,
}

/// As many objects can go to the new process at once.
const OBJECT_CONNECTIONS: usize = 8;

impl UpgradeError {
    fn new(text: String) -> UpgradeError {
        UpgradeError { text }
    }

    /// Another request of an operator is carried out.
    pub(super) fn busy(with: &str) -> UpgradeError {
        UpgradeError::new(format!(
            "{with} is in progress: try again when it has ended"
        ))
    }

    /// The server was stopped meanwhile.
    pub(super) fn stopped() -> UpgradeError {
        UpgradeError::new("the server is about to stop".to_owned())
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "error": self.text })
    }
}

impl UpgradeReport {
    pub(super) fn to_json(&self) -> Value {
        json!({ "pid": self.pid, "version": self.version })
    }

    /// Passes a stop on: it came when the new process was about to serve.
    pub(super) fn stop_successor(&self, cause: &str) {
        let pid = i32::try_from(self.pid).map(Pid::from_raw);
        if let Ok(pid) = pid
            && kill(pid, Signal::SIGTERM).is_ok()
        {
            tracing::info!(cause, "{cause}: process {pid} is stopped too");
        }
    }
}

impl UpgradeStats {
    /// What `/status` says.
    pub(super) fn to_json(&self) -> Value {
        let state = match (self.is_running, &self.successor) {
            (true, _) => "running",
            (false, Some(_)) => "done",
            (false, None) => "none",
        };
        json!({ "state": state, "last_error": self.last_error, "successor": self.successor })
    }
}

impl Upgrader {
    pub(super) fn new(
        program: Option<StartedProgram>,
        (frontend, admin): (Arc<Frontend>, Option<HandedSocket>),
        shield: Arc<ActiveShield>,
        service_manager: Arc<ServiceManager>,
    ) -> Upgrader {
        Upgrader {
            program,
            frontend,
            shield,
            admin: Mutex::new(admin),
            service_manager,
            stats: Mutex::default(),
            deadlines: DEADLINES,
        }
    }

    pub(super) fn stats(&self) -> UpgradeStats {
        self.stats.lock().clone()
    }

    /// Closes the duplicate of the admin server's socket: a drain has begun.
    pub(super) fn close_socket(&self) {
        self.admin.lock().take();
    }

    /// Starts the new process, and waits until it can serve. Dropping the future, or what it
    /// returns, ends that process.
    pub(super) async fn prepare(&self, cause: &str) -> Result<PreparedUpgrade, UpgradeError> {
        let program = self.program()?;
        let file = program.file().display().to_string();
        let sockets = self.sockets();
        let sockets = sockets
            .map_err(|error| UpgradeError::new(format!("cannot duplicate the sockets: {error}")))?;
        let program = program.clone();
        // On a blocking thread: the file may be on a file system that hangs.
        let started = tokio::task::spawn_blocking(move || Successor::start(&program)).await;
        let mut successor = started.map_err(|panic| UpgradeError::new(panic.to_string()))??;
        let pid = successor.pid();
        tracing::info!(
            cause,
            file,
            pid,
            "upgrade: {file} is started as process {pid}"
        );
        let (objects, theirs) = object_connections();
        let prepared = successor.prepare(sockets, theirs, self.deadlines);
        prepared.await?;
        Ok(PreparedUpgrade { successor, objects })
    }

    /// Lets the new process serve. After that, this one drains.
    pub(super) async fn complete(
        &self,
        prepared: PreparedUpgrade,
    ) -> Result<CompletedUpgrade, UpgradeError> {
        let PreparedUpgrade {
            mut successor,
            objects,
        } = prepared;
        // Before its first viewer.
        let giver = ObjectGiver::start(&self.shield, objects);
        successor.serve(self.deadlines).await?;
        let report = UpgradeReport {
            pid: successor.pid(),
            version: successor.version().to_owned(),
        };
        // First: the service manager takes messages of its main process.
        self.service_manager.hand_over_to(report.pid);
        successor.take_over().await;
        self.shield.load().handover().record_successor();
        Ok(CompletedUpgrade { report, giver })
    }

    pub(super) fn record_begin(&self) {
        self.stats.lock().is_running = true;
    }

    /// Keeps the result of an upgrade, and logs it.
    pub(super) fn record_end(&self, result: Result<&UpgradeReport, &UpgradeError>) {
        let mut stats = self.stats.lock();
        stats.is_running = false;
        match result {
            Ok(report) => {
                let UpgradeReport { pid, version } = report;
                stats.last_error = None;
                stats.successor = Some(report.to_json());
                tracing::info!(
                    pid,
                    version,
                    "upgrade: process {pid} serves, this one drains"
                );
            }
            Err(error) => {
                stats.failed += 1;
                let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let at = at.unwrap_or_default().as_secs_f64();
                stats.last_error = Some(json!({ "error": error.text, "at": at }));
                tracing::error!("the upgrade has failed, and this process goes on: {error}");
            }
        }
    }

    /// Duplicates of all listening sockets.
    fn sockets(&self) -> io::Result<Vec<HandedSocket>> {
        let mut sockets = self.frontend.hand_over()?;
        if let Some(admin) = &*self.admin.lock() {
            sockets.push(admin.try_clone()?);
        }
        Ok(sockets)
    }

    fn program(&self) -> Result<&StartedProgram, UpgradeError> {
        if std::process::id() == 1 {
            let why = "this is process 1 of a container, which ends with it: start a new \
                       container, and drain this one";
            return Err(UpgradeError::new(why.to_owned()));
        }
        self.program.as_ref().ok_or_else(|| {
            let why = "only `seawall serve` can start another process in its place";
            UpgradeError::new(why.to_owned())
        })
    }
}

/// Connections for objects: the ends of this process, and those of the new one. There may be fewer
/// than intended: then the origin delivers more.
fn object_connections() -> (Vec<UnixStream>, Vec<UnixStream>) {
    let pairs = (0..OBJECT_CONNECTIONS).map(|_| UnixStream::pair());
    let pairs = pairs.collect::<io::Result<Vec<_>>>();
    let pairs = pairs.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot hand stored objects over: {error}");
        Vec::new()
    });
    pairs.into_iter().unzip()
}

/// The metrics of upgrades.
pub(super) static UPGRADE_METRICS: [CollectedMetric<UpgradeStats>; 1] = [Metric {
    name: "seawall_upgrades_failed_total",
    kind: MetricKind::Counter,
    unit: "upgrades",
    labels: &[],
    help: "Upgrades that have changed nothing, because the new process did not serve. Increments \
           when an upgrade fails.",
    remedy: "upgrade.last_error in /status says why. The process of before goes on.",
}
.collected(|stats, samples| samples.add(&[], stats.failed))];
