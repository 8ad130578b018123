//! The control task: carries out what operators ask of a running server, one request at a time.

use std::pin::pin;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::control::{ControlRequest, DrainRequest, ReloadRequest, UpgradeRequest};
use super::drain::Drain;
use super::reload::Reloader;
use super::upgrade::{UpgradeError, Upgrader};

/// Carries out the requests.
pub(super) struct ControlTask {
    pub(super) requests: mpsc::Receiver<ControlRequest>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) upgrader: Arc<Upgrader>,
    pub(super) drain: Drain,
}

impl ControlTask {
    /// Runs until the server has drained.
    pub(super) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            let drain = match request {
                ControlRequest::Drain(request) => Some(request),
                ControlRequest::Reload(request) => self.reload(request).await,
                ControlRequest::Upgrade(request) => self.upgrade(request).await,
                // Whoever asked may have given up.
                ControlRequest::Ping(answered) => {
                    let _ = answered.send(());
                    None
                }
            };
            if let Some(request) = drain {
                self.upgrader.close_socket();
                let plan = self.reloader.drain_plan(self.drain.has_admin);
                return self.drain.run(plan, request, &mut self.requests).await;
            }
        }
    }

    /// Reloads the configuration, once for all who ask before it has ended, and once more for those
    /// who ask meanwhile: the file may have changed after it was read. Returns the request to drain
    /// that came between.
    async fn reload(&mut self, first: ReloadRequest) -> Option<DrainRequest> {
        let mut next = vec![first];
        while let Some(cause) = next.first().map(|request| request.cause) {
            let asked = std::mem::take(&mut next);
            let mut reload = pin!(self.reloader.reload(cause));
            let result = loop {
                tokio::select! {
                    result = &mut reload => break result,
                    Some(request) = self.requests.recv() => match request {
                        // What was prepared so far is dropped: nothing has changed. What is in use
                        // already stays in use.
                        ControlRequest::Drain(request) => return Some(request),
                        ControlRequest::Reload(request) => next.push(request),
                        ControlRequest::Upgrade(request) => {
                            refuse(request.cause, request.answered, "a reload");
                        }
                        ControlRequest::Ping(answered) => drop(answered.send(())),
                    },
                }
            };
            let answer = match &result {
                Ok(report) => Ok(report.to_json()),
                Err(error) => Err(error.to_json()),
            };
            for answered in asked.into_iter().filter_map(|request| request.answered) {
                // The operator may have left.
                let _ = answered.send(answer.clone());
            }
        }
        None
    }

    /// Starts another process that serves in place of this one. Returns the request to drain that
    /// follows from it, or that came between.
    async fn upgrade(&mut self, request: UpgradeRequest) -> Option<DrainRequest> {
        let UpgradeRequest { cause, answered } = request;
        let upgrader = self.upgrader.clone();
        upgrader.record_begin();
        let mut stop = None;
        let mut prepare = pin!(upgrader.prepare(cause));
        let prepared = loop {
            tokio::select! {
                prepared = &mut prepare => break prepared,
                Some(request) = self.requests.recv() => {
                    // Dropping what was prepared so far ends the new process.
                    stop = during_upgrade(request);
                    if stop.is_some() {
                        break Err(UpgradeError::stopped());
                    }
                }
            }
        };
        let result = match prepared {
            Err(error) => Err(error),
            // From here on the new process may have accepted connections, so a stop waits.
            Ok(prepared) => {
                let mut complete = pin!(upgrader.complete(prepared));
                loop {
                    tokio::select! {
                        completed = &mut complete => break completed,
                        Some(request) = self.requests.recv() => {
                            stop = during_upgrade(request).or(stop);
                        }
                    }
                }
            }
        };
        upgrader.record_end(result.as_ref().map(|completed| &completed.report));
        if result.is_ok() {
            // Whoever has the answer reaches the new process from then on.
            self.drain.operators.stop_accepting().await;
        }
        if let Some(answered) = answered {
            let answer = match &result {
                Ok(completed) => Ok(completed.report.to_json()),
                Err(error) => Err(error.to_json()),
            };
            // The operator may have left.
            let _ = answered.send(answer);
        }
        match (result, stop) {
            (Ok(completed), stop) => {
                if let Some(stop) = stop {
                    completed.report.stop_successor(stop.cause);
                }
                Some(DrainRequest {
                    cause,
                    ends_step: false,
                    when_closed: None,
                    successor: Some(completed.giver),
                })
            }
            (Err(_), stop) => stop,
        }
    }
}

/// Answers a request that comes during an upgrade, or returns it if it asks for the end.
fn during_upgrade(request: ControlRequest) -> Option<DrainRequest> {
    match request {
        ControlRequest::Drain(request) => return Some(request),
        ControlRequest::Reload(request) => refuse(request.cause, request.answered, "an upgrade"),
        ControlRequest::Upgrade(request) => refuse(request.cause, request.answered, "an upgrade"),
        // Whoever asked may have given up.
        ControlRequest::Ping(answered) => drop(answered.send(())),
    }
    None
}

/// Refuses a request because of another one that is carried out.
fn refuse(
    cause: &'static str,
    answered: Option<oneshot::Sender<Result<Value, Value>>>,
    in_progress: &str,
) {
    let error = UpgradeError::busy(in_progress);
    tracing::warn!(cause, "{cause} is refused: {error}");
    if let Some(answered) = answered {
        // The operator may have left.
        let _ = answered.send(Err(error.to_json()));
    }
}
