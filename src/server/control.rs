//! What operators ask of a running server, by signals and over the admin server, and the queue in
//! which it waits for the control task.

use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, timeout};

use crate::admin::DrainProgress;
use crate::proxy::ObjectGiver;

/// Requests that may wait for the control task.
const WAITING_MAX: usize = 16;

/// How long `POST /drain?wait=true` waits. Shorter than the admin server keeps a connection; who
/// waits longer asks again.
const WAIT_FOR_CLOSED_MAX: Duration = Duration::from_secs(20);

/// How long `POST /reload` waits. Shorter than the admin server keeps a connection.
const RELOAD_MAX: Duration = Duration::from_secs(20);

/// How long `POST /upgrade` waits. Shorter than the admin server keeps a connection.
const UPGRADE_ANSWER_MAX: Duration = Duration::from_secs(20);

/// A control task that does not answer in this time hangs.
const PING_MAX: Duration = Duration::from_secs(2);

/// What an operator asks of the server.
pub(super) enum ControlRequest {
    /// Finish what is under way, and end.
    Drain(DrainRequest),
    /// Read the configuration file again.
    Reload(ReloadRequest),
    /// Start the program again, and let it serve in place of this process.
    Upgrade(UpgradeRequest),
    /// Answer, as a sign of life.
    Ping(oneshot::Sender<()>),
}

/// A request to reload the configuration.
pub(super) struct ReloadRequest {
    /// What asked for it, for the log: a signal or a path.
    pub(super) cause: &'static str,
    /// Gets the result as JSON; `Err`: nothing has changed.
    pub(super) answered: Option<oneshot::Sender<Result<Value, Value>>>,
}

/// A request to upgrade.
pub(super) struct UpgradeRequest {
    /// What asked for it, for the log: a signal or a path.
    pub(super) cause: &'static str,
    /// Gets the result as JSON; `Err`: nothing has changed.
    pub(super) answered: Option<oneshot::Sender<Result<Value, Value>>>,
}

/// A request to drain.
pub(super) struct DrainRequest {
    /// What asked for it, for the log: a signal or a path.
    pub(super) cause: &'static str,
    /// If a drain is in progress: ends its current step. For an operator at a terminal.
    pub(super) ends_step: bool,
    /// Answered once the listeners are closed.
    pub(super) when_closed: Option<oneshot::Sender<()>>,
    /// Another process serves already on the same sockets; this gives it stored objects.
    pub(super) successor: Option<ObjectGiver>,
}

/// Sends requests to the control task.
#[derive(Clone)]
pub(super) struct ControlSender(mpsc::Sender<ControlRequest>);

/// A channel to the control task.
pub(super) fn channel() -> (ControlSender, mpsc::Receiver<ControlRequest>) {
    let (sender, requests) = mpsc::channel(WAITING_MAX);
    (ControlSender(sender), requests)
}

impl ControlSender {
    /// Sends a request; waits for room in the queue.
    pub(super) async fn send(&self, request: ControlRequest) {
        // Without a control task, the process is about to end.
        let _ = self.0.send(request).await;
    }

    /// Reloads the configuration. The result as JSON; `Err`: nothing has changed.
    pub(super) async fn reload(&self, cause: &'static str) -> Result<Value, Value> {
        let (answered, answer) = oneshot::channel();
        let request = ReloadRequest {
            cause,
            answered: Some(answered),
        };
        if let Err(TrySendError::Full(_)) = self.0.try_send(ControlRequest::Reload(request)) {
            return Err(json!({ "error": "too many requests wait: try again" }));
        }
        match timeout(RELOAD_MAX, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(json!({ "error": "the server is about to stop" })),
            Err(_) => Err(json!({ "error": "it takes long: /status will say how it ended" })),
        }
    }

    /// Upgrades the program. `None`: it is in progress, and `/status` will say how it ends.
    pub(super) async fn upgrade(&self, cause: &'static str) -> Option<Result<Value, Value>> {
        let (answered, answer) = oneshot::channel();
        let request = UpgradeRequest {
            cause,
            answered: Some(answered),
        };
        if let Err(TrySendError::Full(_)) = self.0.try_send(ControlRequest::Upgrade(request)) {
            return Some(Err(json!({ "error": "too many requests wait: try again" })));
        }
        match timeout(UPGRADE_ANSWER_MAX, answer).await {
            Ok(Ok(result)) => Some(result),
            Ok(Err(_)) => Some(Err(json!({ "error": "the server is about to stop" }))),
            Err(_) => None,
        }
    }

    /// Whether the control task answers.
    pub(super) async fn is_answered(&self) -> bool {
        let (answered, answer) = oneshot::channel();
        let is_sent = self.0.try_send(ControlRequest::Ping(answered)).is_ok();
        is_sent && matches!(timeout(PING_MAX, answer).await, Ok(Ok(())))
    }

    /// Begins a drain, or joins the one in progress. With `waits`, returns when the listeners are
    /// closed, or after [`WAIT_FOR_CLOSED_MAX`]. `None`: too many requests wait.
    pub(super) async fn drain(&self, cause: &'static str, waits: bool) -> Option<DrainProgress> {
        let (when_closed, closed) = oneshot::channel();
        let request = DrainRequest {
            cause,
            ends_step: false,
            when_closed: waits.then_some(when_closed),
            successor: None,
        };
        match self.0.try_send(ControlRequest::Drain(request)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return None,
            // The server has drained, and the process is about to end.
            Err(TrySendError::Closed(_)) => return Some(DrainProgress::ListenersClosed),
        }
        if !waits {
            return Some(DrainProgress::Begun);
        }
        match timeout(WAIT_FOR_CLOSED_MAX, closed).await {
            Ok(Ok(())) => Some(DrainProgress::ListenersClosed),
            Ok(Err(_)) | Err(_) => Some(DrainProgress::Begun),
        }
    }
}
