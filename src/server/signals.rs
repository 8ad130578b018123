//! When does the server stop, and how long does it wait for answers under way?

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use crate::edge::Edge;

/// The signals of a process, caught from the moment this exists.
pub(super) struct Heard {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    alarm: Signal,
}

/// What a signal means here.
enum Meaning {
    /// Stop, after what is under way.
    Stop(&'static str),
    /// Nothing: its default, which would end the process at once, is not what anybody wants.
    Nothing(&'static str),
}

impl Heard {
    /// Catches them. Called inside a tokio runtime that outlives this.
    pub(super) fn listen() -> io::Result<Heard> {
        Ok(Heard {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            alarm: signal(SignalKind::alarm())?,
        })
    }

    async fn next(&mut self) -> Meaning {
        tokio::select! {
            _ = self.terminate.recv() => Meaning::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Meaning::Stop("SIGINT"),
            _ = self.quit.recv() => Meaning::Stop("SIGQUIT"),
            _ = self.hangup.recv() => Meaning::Nothing("SIGHUP"),
            _ = self.user1.recv() => Meaning::Nothing("SIGUSR1"),
            _ = self.user2.recv() => Meaning::Nothing("SIGUSR2"),
            _ = self.alarm.recv() => Meaning::Nothing("SIGALRM"),
        }
    }

    /// Returns when one comes that means to stop.
    async fn stop(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Meaning::Stop(name) => return name,
                Meaning::Nothing(name) => tracing::warn!(
                    signal = name,
                    "{name} does nothing: the configuration is read at the start alone, and logs \
                     that were moved away are begun anew by themselves"
                ),
            }
        }
    }

    /// Returns when one comes that means to stop at once.
    async fn insist(&mut self) -> &'static str {
        loop {
            match self.stop().await {
                "SIGTERM" => {}
                name => return name,
            }
        }
    }
}

/// Waits for a signal to stop, then drains. A second SIGINT or SIGQUIT, from somebody at a terminal,
/// ends the wait; a second SIGTERM does not, because supervisors repeat it.
pub(super) struct Signals {
    pub(super) edge: Arc<Edge>,
    /// Taken by the one who waits for them.
    pub(super) heard: Mutex<Option<Heard>>,
    pub(super) lame_duck: Duration,
    pub(super) drain_max: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let heard = self.heard.lock().take();
        match heard {
            Some(heard) => self.drain(heard).await,
            // Somebody waits for them already, and will end the process.
            None => std::future::pending().await,
        }
        // Whoever is left by now has had its time.
        self.edge.abort();
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    async fn drain(&self, mut heard: Heard) {
        let signal = heard.stop().await;
        self.edge.leave();
        let open = self.edge.stats().open;
        // Whom nobody is connected to has no load balancer that would go on connecting.
        if open > 0 && !self.lame_duck.is_zero() {
            let seconds = self.lame_duck.as_secs_f64();
            tracing::info!(
                signal,
                open,
                "stopping: not ready any more, viewers are let in for another {seconds} s"
            );
            tokio::select! {
                () = sleep(self.lame_duck) => {}
                _ = heard.insist() => {}
            }
        }
        let open = self.edge.stats().open;
        tracing::info!(
            signal,
            open,
            "stopping: {open} connections may finish what is under way"
        );
        tokio::select! {
            () = self.edge.drain() => {}
            () = sleep(self.drain_max) => {
                let open = self.edge.stats().open;
                tracing::warn!(open, "{open} connections did not finish in time");
            }
            signal = heard.insist() => tracing::warn!(signal, "{signal} again: stopping at once"),
        }
    }
}
