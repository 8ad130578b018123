//! Catches the signals of the process and passes what they mean to the control task.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use async_trait::async_trait;
use nix::libc;
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::control::{ControlRequest, ControlSender, DrainRequest, ReloadRequest, UpgradeRequest};

/// The signals of the process, caught from the moment this exists.
pub(super) struct ReceivedSignal {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    user2: Signal,
    /// Signals without a meaning here, with their names.
    others: Vec<(Cow<'static, str>, Signal)>,
}

/// What a signal means.
enum SignalAction {
    /// Stop, after the responses in progress.
    Stop(&'static str),
    /// Read the configuration file again.
    Reload,
    /// Start the program again, and let it serve in place of this process.
    Upgrade,
    /// Ignored: the default action would end the process at once.
    Ignore(Cow<'static, str>),
}

/// Signals that would end the process by default, except those of its own faults and those that
/// cannot be caught.
const IGNORED_SIGNALS: &[(&str, libc::c_int)] = &[
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGALRM", libc::SIGALRM),
    ("SIGVTALRM", libc::SIGVTALRM),
    ("SIGPROF", libc::SIGPROF),
    ("SIGIO", libc::SIGIO),
    ("SIGXCPU", libc::SIGXCPU),
    ("SIGXFSZ", libc::SIGXFSZ),
    #[cfg(target_os = "linux")]
    ("SIGPWR", libc::SIGPWR),
    #[cfg(target_os = "linux")]
    ("SIGSTKFLT", libc::SIGSTKFLT),
];

#[cfg(target_os = "linux")]
fn real_time() -> impl Iterator<Item = (Cow<'static, str>, libc::c_int)> {
    let first = libc::SIGRTMIN();
    let name = move |number| match number - first {
        0 => "SIGRTMIN".into(),
        nth => format!("SIGRTMIN+{nth}").into(),
    };
    (first..=libc::SIGRTMAX()).map(move |number| (name(number), number))
}

#[cfg(not(target_os = "linux"))]
fn real_time() -> impl Iterator<Item = (Cow<'static, str>, libc::c_int)> {
    std::iter::empty()
}

impl ReceivedSignal {
    /// Catches them. Call it inside a tokio runtime that outlives this.
    pub(super) fn listen() -> io::Result<ReceivedSignal> {
        let others = IGNORED_SIGNALS
            .iter()
            .map(|(name, number)| ((*name).into(), *number));
        let others = others.chain(real_time());
        let others = others.map(|(name, number)| Ok((name, signal(SignalKind::from_raw(number))?)));
        Ok(ReceivedSignal {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            user2: signal(SignalKind::user_defined2())?,
            others: others.collect::<io::Result<_>>()?,
        })
    }

    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop("SIGTERM"),
            _ = self.interrupt.recv() => SignalAction::Stop("SIGINT"),
            _ = self.quit.recv() => SignalAction::Stop("SIGQUIT"),
            _ = self.hang_up.recv() => SignalAction::Reload,
            _ = self.user2.recv() => SignalAction::Upgrade,
            name = next_signal_of(&mut self.others) => SignalAction::Ignore(name),
        }
    }
}

/// Waits for the next of these and returns its name.
async fn next_signal_of(others: &mut [(Cow<'static, str>, Signal)]) -> Cow<'static, str> {
    poll_fn(|cx| {
        for (name, signal) in others.iter_mut() {
            if signal.poll_recv(cx).is_ready() {
                return Poll::Ready(name.clone());
            }
        }
        Poll::Pending
    })
    .await
}

/// Passes the signals on to the control task, without end. A second SIGINT or SIGQUIT, typed at a
/// terminal, ends the step of a drain; a second SIGTERM does not, because supervisors repeat it.
pub(super) async fn forward(mut received: ReceivedSignal, control: ControlSender) {
    loop {
        match received.next().await {
            SignalAction::Stop(name) => {
                let request = DrainRequest {
                    cause: name,
                    ends_step: name != "SIGTERM",
                    when_closed: None,
                    successor: None,
                };
                control.send(ControlRequest::Drain(request)).await;
            }
            SignalAction::Reload => {
                let request = ReloadRequest {
                    cause: "SIGHUP",
                    answered: None,
                };
                control.send(ControlRequest::Reload(request)).await;
            }
            SignalAction::Upgrade => {
                let request = UpgradeRequest {
                    cause: "SIGUSR2",
                    answered: None,
                };
                control.send(ControlRequest::Upgrade(request)).await;
            }
            SignalAction::Ignore(name) => tracing::warn!(
                signal = %name,
                "{name} does nothing: SIGHUP reads the configuration again, SIGUSR2 starts another \
                 version of the program, and logs that were moved away are begun anew by themselves"
            ),
        }
    }
}

/// Keeps pingora running until the control task has ended.
pub(super) struct ControlTaskEnd(pub(super) Mutex<Option<JoinHandle<()>>>);

#[async_trait]
impl ShutdownSignalWatch for ControlTaskEnd {
    async fn recv(&self) -> ShutdownSignal {
        let task = self.0.lock().take();
        match task {
            // Also if it has panicked: without it no signal would end the process.
            Some(task) => drop(task.await),
            // The first wait is still in progress, and will end the process.
            None => std::future::pending().await,
        }
        ShutdownSignal::FastShutdown
    }
}
