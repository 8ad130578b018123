//! Handles an empty segment: the file is still being written in place, or was lost. It is requested
//! from another endpoint, and once more a moment later. It is never stored.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::sleep;

use super::{FillTask, FillTrigger};
use crate::proxy::rejections;
use seawall_cache::Verdict;
use seawall_manifest::Kind;
use seawall_policy::EndpointSet;
use seawall_upstream::Failure;

/// A file that is written in place usually has its first bytes after this time.
const WRITTEN_AFTER: Duration = Duration::from_millis(400);

/// Whether a response of this kind must have at least one byte.
pub(super) fn has_bytes(kind: Kind, status: StatusCode) -> bool {
    status == StatusCode::OK && matches!(kind, Kind::Segment | Kind::Init | Kind::DecryptionKey)
}

impl FillTask {
    /// An endpoint sent an empty body.
    pub(super) async fn handle_empty_body(mut self, endpoint: usize) {
        let path = self.request.target.path();
        tracing::warn!(path, endpoint, "origin sent an empty segment");
        let answers = self.empty_responses;
        self.empty_responses += 1;
        if answers == 0
            && let Some(other) = self.request_elsewhere(endpoint).await
        {
            self.avoid_endpoint(endpoint);
            return Box::pin(self.handle_response(other)).await;
        }
        if answers < 2 {
            self.empty_responses = 2;
            sleep(WRITTEN_AFTER).await;
            match self
                .fetch(self.fill.upstream_headers().clone(), EndpointSet::default())
                .await
            {
                None => return self.fill.cut(),
                Some(Ok(response)) if response.status == StatusCode::OK => {
                    return Box::pin(self.handle_response(response)).await;
                }
                Some(_) => {}
            }
        }
        let is_object_stored = self.fill.lookup().object.is_some();
        let error_object = Arc::new(rejections::failure_object(
            Failure::Protocol,
            is_object_stored,
        ));
        // A failed prefetch leaves no memo that would affect viewers.
        if !matches!(self.trigger, FillTrigger::Prefetch(..)) {
            self.back_off(None, &error_object);
        }
        self.fill.settle(Verdict::Failed(error_object));
    }
}
