//! The new process, as the process that serves sees it: it is started, gets the sockets, reports
//! its progress, and is killed unless it serves.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::channel::{DESCRIPTORS_MAX, UpgradeChannel, UpgradeOrder, UpgradeProgress, is_timeout};
use super::program::StartedProgram;
use super::{UpgradeDeadlines, UpgradeError};
use crate::frontend::HandedSocket;

/// What is kept of its messages on standard error, for the reason of a failure.
const LINES_MAX: usize = 8;
const LINE_BYTES_MAX: u64 = 1024;

/// A process that has closed its channel ends within this time, or is killed.
const END_MAX: Duration = Duration::from_secs(1);

/// Pause between two looks whether it has ended.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// A new process. Dropping it kills the process, unless it serves already.
pub(super) struct Successor {
    child: Option<Child>,
    pid: u32,
    channel: Arc<UpgradeChannel>,
    messages: StandardError,
    version: String,
}

/// The last lines that a process wrote to its standard error. All lines are passed on.
#[derive(Clone)]
struct StandardError {
    last: Arc<Mutex<VecDeque<String>>>,
    /// Ends when the process has closed it.
    ended: Arc<Mutex<Receiver<()>>>,
}

impl Successor {
    /// Starts the program.
    pub(super) fn start(program: &StartedProgram) -> Result<Successor, UpgradeError> {
        let process = program.start().map_err(|error| {
            let file = program.file().display();
            UpgradeError::new(format!("cannot start {file}: {error}"))
        })?;
        Ok(Successor {
            pid: process.child.id(),
            child: Some(process.child),
            channel: Arc::new(UpgradeChannel::new(process.channel)),
            messages: StandardError::pass_on(process.messages),
            version: String::new(),
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Hands over the sockets and the ends of connections for objects, and waits until everything
    /// that can fail is done.
    pub(super) async fn prepare(
        &mut self,
        sockets: Vec<HandedSocket>,
        objects: Vec<UnixStream>,
        deadlines: UpgradeDeadlines,
    ) -> Result<(), UpgradeError> {
        let channel = self.channel.clone();
        let deadline = Instant::now() + deadlines.prepare_max;
        let prepared = blocking(move || {
            inherit(&channel, &sockets, &objects)?;
            // The other process has duplicates: when that ends, the connections end.
            drop(objects);
            channel.receive(deadline)
        });
        match prepared.await {
            Ok(UpgradeProgress::Prepared { version }) => {
                self.version = version;
                Ok(())
            }
            other => Err(self.failure(other, deadlines.prepare_max).await),
        }
    }

    /// Lets it accept connections, and waits until it does.
    pub(super) async fn serve(&mut self, deadlines: UpgradeDeadlines) -> Result<(), UpgradeError> {
        let channel = self.channel.clone();
        let deadline = Instant::now() + deadlines.serve_max;
        let served = blocking(move || {
            channel.send(&UpgradeOrder::Serve)?;
            channel.receive(deadline)
        });
        match served.await {
            Ok(UpgradeProgress::Serving) => Ok(()),
            other => Err(self.failure(other, deadlines.serve_max).await),
        }
    }

    /// Makes it the server. From now on it is on its own.
    pub(super) async fn take_over(mut self) {
        // It serves, and nobody kills it any more. If it ends now, nobody waits for it: this
        // process is about to end too.
        self.child = None;
        let channel = self.channel.clone();
        if let Err(error) = blocking(move || channel.send(&UpgradeOrder::TakeOver)).await {
            // It has its sockets, and serves without this message.
            tracing::warn!(%error, pid = self.pid, "cannot reach the new process: {error}");
        }
    }

    /// Why it does not serve: what it says itself, else how it ended and its last lines.
    async fn failure(
        &mut self,
        progress: io::Result<UpgradeProgress>,
        waited: Duration,
    ) -> UpgradeError {
        let pid = self.pid;
        let why = match progress {
            Ok(UpgradeProgress::Failed { error }) => {
                return UpgradeError::new(format!("the new process {pid} cannot start: {error}"));
            }
            Ok(_) => "does not speak the language of this one".to_owned(),
            Err(error) if is_timeout(&error) => {
                format!("was not ready within {} s", waited.as_secs_f64())
            }
            Err(error) => match self.wait_end().await {
                Some(status) => format!("ended before it was ready ({status})"),
                None => format!("cannot be reached ({error})"),
            },
        };
        let lines = self.messages.last_lines().await;
        let said = if lines.is_empty() {
            String::new()
        } else {
            format!("; its last messages:\n{lines}")
        };
        UpgradeError::new(format!("the new process {pid} {why}{said}"))
    }

    /// Waits for its end for a short time.
    async fn wait_end(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + END_MAX;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.as_mut()?.try_wait() {
                return Some(status);
            }
            tokio::time::sleep(END_CHECK_INTERVAL).await;
        }
        None
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let reaped = thread::Builder::new().spawn(move || child.wait());
            if let Err(error) = reaped {
                tracing::warn!(%error, "cannot wait for the end of the new process: {error}");
            }
        }
    }
}

impl StandardError {
    /// Passes the lines of a process on to the standard error of this one, until it ends.
    fn pass_on(pipe: io::PipeReader) -> StandardError {
        let last = Arc::<Mutex<VecDeque<String>>>::default();
        let kept = last.clone();
        let (ending, ended) = sync_channel(1);
        let passing = thread::Builder::new().name("seawall upgrade".to_owned());
        let passing = passing.spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while let Ok(1..) = read_line(&mut pipe, &mut line) {
                // Its reader may be gone; the line is not.
                let _ = io::stderr().write_all(&line);
                let mut last = kept.lock();
                last.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
                if last.len() > LINES_MAX {
                    last.pop_front();
                }
                line.clear();
            }
            drop(ending);
        });
        if let Err(error) = passing {
            tracing::warn!(%error, "cannot read the messages of the new process: {error}");
        }
        let ended = Arc::new(Mutex::new(ended));
        StandardError { last, ended }
    }

    /// The last lines, once it has closed its standard error or after a short time: a process that
    /// it has started may keep it open.
    async fn last_lines(&self) -> String {
        let ended = self.ended.clone();
        let waited = blocking(move || match ended.lock().recv_timeout(END_MAX) {
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) | Ok(()) => Ok(()),
        });
        let _ = waited.await;
        let last = self.last.lock();
        let lines = last.iter().filter(|line| !line.is_empty());
        lines.cloned().collect::<Vec<_>>().join("\n")
    }
}

/// Reads a line, or the next part of a long one.
fn read_line(pipe: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    pipe.take(LINE_BYTES_MAX).read_until(b'\n', line)
}

/// Sends the sockets, and the standard error of this process: the new one writes there itself once
/// it serves.
fn inherit(
    channel: &UpgradeChannel,
    sockets: &[HandedSocket],
    objects: &[UnixStream],
) -> io::Result<()> {
    let Some(room) = DESCRIPTORS_MAX.checked_sub(sockets.len() + 1) else {
        return Err(io::Error::other("too many listeners"));
    };
    let objects = &objects[..objects.len().min(room)];
    let listen = sockets.iter().map(|socket| socket.configured.clone());
    let order = UpgradeOrder::Inherit {
        listen: listen.collect(),
        objects: objects.len(),
    };
    let stderr = io::stderr();
    let sockets = sockets.iter().map(|socket| socket.socket.as_fd());
    let objects = objects.iter().map(AsFd::as_fd);
    let descriptors = std::iter::once(stderr.as_fd())
        .chain(sockets)
        .chain(objects);
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.collect();
    channel.send_with(&order, &descriptors)
}

/// Runs what blocks, with its own deadline, on a thread for that.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let ended = tokio::task::spawn_blocking(run).await;
    ended.map_err(io::Error::other).flatten()
}
