//! Decides on signals when the server stops, and how long it waits for responses in progress.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use nix::libc;
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use crate::frontend::Frontend;

/// The signals of the process, caught from the moment this exists.
pub(super) struct ReceivedSignal {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// Signals without a meaning here, with their names.
    others: Vec<(Cow<'static, str>, Signal)>,
}

/// What a signal means.
enum SignalAction {
    /// Stop, after the responses in progress.
    Stop(&'static str),
    /// Ignored: the default action would end the process at once.
    Ignore(Cow<'static, str>),
}

/// Signals that would end the process by default, except those of its own faults and those that
/// cannot be caught.
const IGNORED_SIGNALS: &[(&str, libc::c_int)] = &[
    ("SIGHUP", libc::SIGHUP),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
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
            others: others.collect::<io::Result<_>>()?,
        })
    }

    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop("SIGTERM"),
            _ = self.interrupt.recv() => SignalAction::Stop("SIGINT"),
            _ = self.quit.recv() => SignalAction::Stop("SIGQUIT"),
            name = next_signal_of(&mut self.others) => SignalAction::Ignore(name),
        }
    }

    /// Waits for a signal that means to stop.
    async fn wait_for_stop(&mut self) -> &'static str {
        loop {
            match self.next().await {
                SignalAction::Stop(name) => return name,
                SignalAction::Ignore(name) => tracing::warn!(
                    signal = %name,
                    "{name} does nothing: the configuration is read at the start alone, and logs \
                     that were moved away are begun anew by themselves"
                ),
            }
        }
    }

    /// Waits for a signal that means to stop at once.
    async fn wait_for_immediate_stop(&mut self) -> &'static str {
        loop {
            match self.wait_for_stop().await {
                "SIGTERM" => {}
                name => return name,
            }
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

/// Waits for a signal to stop, then drains. A second SIGINT or SIGQUIT, typed at a terminal, ends
/// the wait; a second SIGTERM does not, because supervisors repeat it.
pub(super) struct Signals {
    pub(super) frontend: Arc<Frontend>,
    /// Taken by the first wait.
    pub(super) received: Mutex<Option<ReceivedSignal>>,
    pub(super) lame_duck: Duration,
    pub(super) drain_max: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let signals = self.received.lock().take();
        match signals {
            Some(signals) => self.drain(signals).await,
            // The first wait is still in progress, and will end the process.
            None => std::future::pending().await,
        }
        // The remaining connections had their time to finish.
        self.frontend.abort();
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    async fn drain(&self, mut signals: ReceivedSignal) {
        let signal = signals.wait_for_stop().await;
        self.frontend.announce_stop();
        let open = self.frontend.stats().open;
        // If no viewer is connected, no load balancer needs time to notice.
        if open > 0 && !self.lame_duck.is_zero() {
            let seconds = self.lame_duck.as_secs_f64();
            tracing::info!(
                signal,
                open,
                "stopping: not ready any more, connections are accepted for another {seconds} s"
            );
            tokio::select! {
                () = sleep(self.lame_duck) => {}
                _ = signals.wait_for_immediate_stop() => {}
            }
        }
        let open = self.frontend.stats().open;
        tracing::info!(
            signal,
            open,
            "stopping: {open} connections may finish what is under way"
        );
        tokio::select! {
            () = self.frontend.drain() => {}
            () = sleep(self.drain_max) => {
                let open = self.frontend.stats().open;
                tracing::warn!(open, "{open} connections did not finish in time");
            }
            signal = signals.wait_for_immediate_stop() => tracing::warn!(signal, "{signal} again: stopping at once"),
        }
    }
}
