//! The process that serves, as the one that an upgrade has started sees it: it hands over its
//! sockets, and is told how far this process is.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::channel::{UpgradeChannel, UpgradeOrder, UpgradeProgress};
use crate::frontend::InheritedSockets;
use crate::proxy::ObjectSource;

/// The variable with the number of the process that serves. It counts only for its child.
pub(super) const PREDECESSOR_VARIABLE: &str = "SEAWALL_UPGRADE_FROM";

/// The sockets come at once.
const INHERIT_MAX: Duration = Duration::from_secs(10);

/// The order to serve follows the report that this process is prepared.
const SERVE_ORDER_MAX: Duration = Duration::from_secs(30);

/// The order to take over follows the report that this process serves.
const TAKE_OVER_MAX: Duration = Duration::from_secs(30);

/// The process that serves until this one does.
pub struct Predecessor {
    pid: u32,
    channel: UpgradeChannel,
    /// Its standard error. That of this process leads through it.
    stderr: OwnedFd,
    pub(in crate::server) sockets: InheritedSockets,
    /// Over these it gives stored objects.
    objects: Vec<UnixStream>,
}

/// Tells the process that serves why this one ends.
pub struct FailureReporter(UpgradeChannel);

impl Predecessor {
    /// The process that has started this one, if that was for an upgrade. Call it first of all:
    /// the channel is standard input.
    pub fn from_environment() -> anyhow::Result<Option<Predecessor>> {
        let pid = std::env::var(PREDECESSOR_VARIABLE).ok();
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        // It may have come to this process by way of another one.
        let Some(pid) = pid.filter(|pid| *pid == parent_id()) else {
            return Ok(None);
        };
        let inherited = Predecessor::inherit(pid);
        inherited
            .map(Some)
            .with_context(|| format!("cannot get the sockets of process {pid}"))
    }

    fn inherit(pid: u32) -> io::Result<Predecessor> {
        let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let channel = UpgradeChannel::new(channel);
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let deadline = Instant::now() + INHERIT_MAX;
        let (order, descriptors) = channel.receive_with(deadline)?;
        let UpgradeOrder::Inherit { listen, objects } = order else {
            return Err(io::Error::other("no sockets came"));
        };
        let mut descriptors = descriptors.into_iter();
        let stderr = descriptors.next();
        let stderr = stderr.ok_or_else(|| io::Error::other("no standard error came"))?;
        let mut sockets = InheritedSockets::default();
        for (listen, socket) in listen.into_iter().zip(descriptors.by_ref()) {
            sockets.add(listen, socket)?;
        }
        let objects = descriptors.take(objects).map(UnixStream::from);
        Ok(Predecessor {
            pid,
            channel,
            stderr,
            sockets,
            objects: objects.collect(),
        })
    }

    /// Whether the log goes to a terminal in the end.
    pub fn has_terminal(&self) -> bool {
        self.stderr.is_terminal()
    }

    /// What tells it why this process ends.
    pub fn failure_reporter(&self) -> io::Result<FailureReporter> {
        self.channel.try_clone().map(FailureReporter)
    }

    /// The process as a source of objects. Call it inside a tokio runtime that outlives it.
    pub(in crate::server) fn take_object_source(&mut self) -> io::Result<ObjectSource> {
        ObjectSource::new(std::mem::take(&mut self.objects))
    }

    pub(in crate::server) fn pid(&self) -> u32 {
        self.pid
    }

    /// Reports that everything that can fail is done, and waits for the order to serve.
    pub(in crate::server) fn wait_for_order_to_serve(&self) -> anyhow::Result<()> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let ordered = self
            .channel
            .send(&UpgradeProgress::Prepared { version })
            .and_then(|()| self.channel.receive(Instant::now() + SERVE_ORDER_MAX));
        match ordered {
            Ok(UpgradeOrder::Serve) => Ok(()),
            Ok(order) => anyhow::bail!("process {} sent another order: {order:?}", self.pid),
            Err(error) => Err(error)
                .with_context(|| format!("process {} does not give its place up", self.pid)),
        }
    }

    /// Reports that every worker accepts connections, and waits until this process is the server.
    /// It is also when the other one is gone.
    pub(in crate::server) fn take_over(self) {
        let pid = self.pid;
        let ordered = self
            .channel
            .send(&UpgradeProgress::Serving)
            .and_then(|()| self.channel.receive(Instant::now() + TAKE_OVER_MAX));
        match ordered {
            Ok(UpgradeOrder::TakeOver) => {}
            Ok(order) => tracing::warn!(pid, "process {pid} sent another order: {order:?}"),
            Err(error) => tracing::warn!(pid, %error, "process {pid} is gone: {error}"),
        }
        if let Err(error) = rustix::stdio::dup2_stderr(&self.stderr) {
            tracing::warn!(%error, "the log ends with process {pid}: {error}");
        }
        tracing::info!(pid, "this process serves now, in place of process {pid}");
    }
}

impl FailureReporter {
    /// Tells it.
    pub fn report(&self, error: String) {
        // It may have given up.
        let _ = self.0.send(&UpgradeProgress::Failed { error });
    }
}
