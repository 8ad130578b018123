//! How a server leaves without a cut: first `/readyz` fails, then the listeners close, then what is
//! in flight ends. It knows neither signals nor the admin server: the control task passes requests.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::control::{ControlRequest, DrainRequest};
use super::service_manager::ServiceManager;
use crate::admin::AdminConnections;
use crate::frontend::Frontend;
use crate::proxy::{GivenCount, ObjectGiver};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel, counted};

/// Whoever asked `/readyz` in this time decides by it where to send viewers.
const PROBED_RECENTLY: Duration = Duration::from_mins(1);

/// At the end: time in which answers to operators must be sent.
const LAST_ANSWERS_MAX: Duration = Duration::from_millis(500);

/// How long the steps of a drain last.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainPlan {
    /// How long connections are still accepted.
    pub(super) delay: Duration,
    /// How long what is in flight may take after that.
    pub(super) drain_max: Duration,
}

/// The step of a drain. Also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainState {
    /// No drain: the server is ready.
    Serving,
    /// `/readyz` fails; connections are still accepted.
    Leaving,
    /// No connection is accepted; what is in flight ends.
    Draining,
    /// No viewer is connected; the process ends.
    Gone,
}

impl DrainState {
    const ALL: [DrainState; 4] = [
        DrainState::Serving,
        DrainState::Leaving,
        DrainState::Draining,
        DrainState::Gone,
    ];

    /// The name in metrics and in `/status`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            DrainState::Serving => "serving",
            DrainState::Leaving => "leaving",
            DrainState::Draining => "draining",
            DrainState::Gone => "gone",
        }
    }
}

const STATE: MetricLabel = MetricLabel {
    name: "state",
    values: LabelValues::Fixed(|| DrainState::ALL.map(DrainState::as_str).to_vec()),
};

/// The metrics of drains.
pub(super) static DRAIN_METRICS: [CollectedMetric<DrainState>; 1] = [Metric {
    name: "seawall_drain_state",
    kind: MetricKind::Gauge,
    unit: "1 (current state) or 0 (other states)",
    labels: &[STATE],
    help: "The step of a drain: serving (no drain), leaving (/readyz fails, connections are still \
           accepted), draining (the listeners are closed, responses in progress end), gone (the \
           process ends).",
    remedy: "A server that stays in draining has slow downloads: after [server] drain_max they \
             are cut.",
}
.collected(|state, samples| {
    for one in DrainState::ALL {
        samples.add(&[one.as_str()], u64::from(one == *state));
    }
})];

/// The state of the drain, for everyone who reports it.
pub(super) struct DrainStatus {
    state: watch::Sender<DrainState>,
    /// When `/readyz` was last asked.
    probed_at: Mutex<Option<Instant>>,
}

impl DrainStatus {
    /// The status of a server that is ready.
    pub(super) fn new() -> Arc<DrainStatus> {
        Arc::new(DrainStatus {
            state: watch::Sender::new(DrainState::Serving),
            probed_at: Mutex::new(None),
        })
    }

    pub(super) fn state(&self) -> DrainState {
        *self.state.borrow()
    }

    /// Answers `/readyz`: whether the server wants new viewers.
    pub(super) fn answer_probe(&self) -> bool {
        *self.probed_at.lock() = Some(Instant::now());
        self.state() == DrainState::Serving
    }
}

/// Carries out a drain.
pub(super) struct Drain {
    /// Whether a load balancer can ask `/readyz`.
    pub(super) has_admin: bool,
    pub(super) status: Arc<DrainStatus>,
    pub(super) frontend: Arc<Frontend>,
    pub(super) operators: AdminConnections,
    pub(super) service_manager: Arc<ServiceManager>,
}

/// Requests that arrive while a drain is in progress.
struct LateRequests<'a> {
    requests: &'a mut mpsc::Receiver<ControlRequest>,
    /// Who waits for the listeners to close. As many as the admin server has connections.
    waiting: Vec<oneshot::Sender<()>>,
    are_listeners_closed: bool,
}

/// How a step of a drain ended.
enum StepEnd {
    /// By itself.
    Done,
    /// An operator ended it by this request.
    Ended(&'static str),
}

impl Drain {
    /// Drains. Returns when the process may end.
    pub(super) async fn run(
        &self,
        plan: DrainPlan,
        request: DrainRequest,
        requests: &mut mpsc::Receiver<ControlRequest>,
    ) {
        let DrainRequest {
            cause,
            when_closed,
            successor,
            ..
        } = request;
        let mut late = LateRequests {
            requests,
            waiting: when_closed.into_iter().collect(),
            are_listeners_closed: false,
        };
        // Load balancers and operators reach the other process at the same addresses.
        if successor.is_none() {
            self.service_manager.report_stopping();
            self.status.state.send_replace(DrainState::Leaving);
            self.wait_until_noticed(plan.delay, cause, &mut late).await;
        }
        self.status.state.send_replace(DrainState::Draining);
        let open = self.frontend.stats().open;
        let connections = counted(open as u64, "connection");
        tracing::info!(
            cause,
            open,
            "stopping: {connections} may finish what is under way"
        );
        let until = Instant::now() + plan.drain_max;
        let finish = timeout_at(until, async {
            let closed = late.during(self.frontend.stop_accepting()).await;
            if let StepEnd::Ended(_) = closed {
                return closed;
            }
            tracing::info!("the listeners are closed");
            late.report_closed();
            late.during(self.frontend.drain()).await
        });
        match finish.await {
            Ok(StepEnd::Done) => {
                if let Some(giver) = successor {
                    give_until_unused(giver, until, &mut late).await;
                }
            }
            Ok(StepEnd::Ended(cause)) => {
                let cut = self.frontend.cut_at_drain();
                tracing::warn!(cause, cut, "{cause} again: stopping at once");
            }
            Err(_) => {
                let cut = self.frontend.cut_at_drain();
                let connections = counted(cut as u64, "connection");
                tracing::warn!(cut, "cut {connections} that did not finish in time");
            }
        }
        late.report_closed();
        self.status.state.send_replace(DrainState::Gone);
        // The process ends next, and with it the admin server.
        let _ = timeout(LAST_ANSWERS_MAX, self.operators.wait_until_idle()).await;
    }

    /// Accepts connections for a time, so that load balancers notice that this server is not ready.
    async fn wait_until_noticed(
        &self,
        delay: Duration,
        cause: &'static str,
        late: &mut LateRequests<'_>,
    ) {
        let open = self.frontend.stats().open;
        let probed_at = *self.status.probed_at.lock();
        if delay.is_zero() || !can_be_noticed(open, probed_at, Instant::now()) {
            return;
        }
        let seconds = delay.as_secs_f64();
        tracing::info!(
            cause,
            open,
            "stopping: not ready any more, connections are accepted for another {seconds} s"
        );
        late.during(sleep(delay)).await;
    }
}

/// Gives stored objects to the process that serves now, until it needs no more.
async fn give_until_unused(mut giver: ObjectGiver, until: Instant, late: &mut LateRequests<'_>) {
    late.during(giver.wait_until_unused(until)).await;
    let GivenCount {
        questions,
        objects,
        bytes,
    } = giver.count();
    tracing::info!(
        questions,
        objects,
        bytes,
        "{objects} objects ({bytes} bytes) went to the new process, which asked for {questions}"
    );
}

/// Whether somebody may send viewers here until `/readyz` has failed for a time.
fn can_be_noticed(open: usize, probed_at: Option<Instant>, now: Instant) -> bool {
    open > 0 || probed_at.is_some_and(|at| now.duration_since(at) <= PROBED_RECENTLY)
}

impl LateRequests<'_> {
    /// Waits for a step, and answers requests meanwhile. A request may end the step.
    async fn during(&mut self, step: impl Future<Output = ()>) -> StepEnd {
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                biased;
                () = &mut step => return StepEnd::Done,
                Some(request) = self.requests.recv() => match request {
                    ControlRequest::Drain(request) => {
                        self.waiting.extend(request.when_closed);
                        if self.are_listeners_closed {
                            self.report_closed();
                        }
                        if request.ends_step {
                            return StepEnd::Ended(request.cause);
                        }
                    }
                    // Dropping it says that the server is about to stop.
                    ControlRequest::Reload(_) => {
                        tracing::warn!("the server drains: its configuration is not reloaded");
                    }
                    ControlRequest::Upgrade(_) => {
                        tracing::warn!("the server drains: it is not upgraded");
                    }
                    // Whoever asked may have given up.
                    ControlRequest::Ping(answered) => drop(answered.send(())),
                },
            }
        }
    }

    /// Answers everyone who waits for the listeners to close.
    fn report_closed(&mut self) {
        self.are_listeners_closed = true;
        for waiting in self.waiting.drain(..) {
            // The operator may have left.
            let _ = waiting.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_is_kept_for_viewers_and_for_whoever_probes() {
        let now = Instant::now();
        assert!(!can_be_noticed(0, None, now));
        assert!(can_be_noticed(1, None, now));
        assert!(can_be_noticed(0, Some(now), now + PROBED_RECENTLY));
        let later = now + PROBED_RECENTLY + Duration::from_millis(1);
        assert!(!can_be_noticed(0, Some(now), later));
    }
}
