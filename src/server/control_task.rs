//! The control task: carries out what operators ask of a running server, one request at a time.

use tokio::sync::mpsc;

use super::control::ControlRequest;
use super::drain::Drain;

/// Carries out the requests.
pub(super) struct ControlTask {
    pub(super) requests: mpsc::Receiver<ControlRequest>,
    pub(super) drain: Drain,
}

impl ControlTask {
    /// Runs until the server has drained.
    pub(super) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            match request {
                ControlRequest::Drain(request) => {
                    return self.drain.run(request, &mut self.requests).await;
                }
                // Whoever asked may have given up.
                ControlRequest::Ping(answered) => drop(answered.send(())),
            }
        }
    }
}
