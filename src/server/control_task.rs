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
        if let Some(ControlRequest::Drain(request)) = self.requests.recv().await {
            self.drain.run(request, &mut self.requests).await;
        }
    }
}
