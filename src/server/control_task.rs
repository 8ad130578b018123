//! The control task: carries out what operators ask of a running server, one request at a time.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::control::{ControlRequest, DrainRequest, ReloadRequest};
use super::drain::Drain;
use super::reload::Reloader;

/// Carries out the requests.
pub(super) struct ControlTask {
    pub(super) requests: mpsc::Receiver<ControlRequest>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) drain: Drain,
}

impl ControlTask {
    /// Runs until the server has drained.
    pub(super) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            let drain = match request {
                ControlRequest::Drain(request) => Some(request),
                ControlRequest::Reload(request) => self.reload(request).await,
                // Whoever asked may have given up.
                ControlRequest::Ping(answered) => {
                    let _ = answered.send(());
                    None
                }
            };
            if let Some(request) = drain {
                return self.drain.run(request, &mut self.requests).await;
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
}
