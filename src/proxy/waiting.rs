//! Records viewers that leave before they have a response. Only a guard can: the response future is
//! dropped together with the request.

use std::sync::Arc;

use super::context::RequestContext;
use super::{Shield, ViewerResponse, respond};
use crate::telemetry::{Outcome, RequestRecord, Telemetry};
use seawall_cache::Object;

impl Shield {
    /// Awaits a response; records the viewer if it leaves before that.
    pub(super) async fn record_if_abandoned(
        &self,
        tale: RequestRecord,
        answering: impl Future<Output = ViewerResponse>,
    ) -> ViewerResponse {
        let waiting = PendingViewer {
            telemetry: &self.telemetry,
            tale: Some(tale),
        };
        let answer = answering.await;
        waiting.over();
        answer
    }

    /// Serves a hit whose content coding is being made; waits for the coding within its limit.
    pub(super) async fn hit_with_coding(
        &self,
        ask: RequestContext,
        object: &Arc<Object>,
    ) -> ViewerResponse {
        self.wait_for_form(respond::asked_form(&ask, object), &ask.headers)
            .await;
        object.hits.add();
        respond::object(ask, object, Outcome::Hit, &self.settings)
    }
}

/// A viewer without a response; dropping this records that the viewer has left.
struct PendingViewer<'a> {
    telemetry: &'a Telemetry,
    tale: Option<RequestRecord>,
}

impl PendingViewer<'_> {
    fn over(mut self) {
        self.tale = None;
    }
}

impl Drop for PendingViewer<'_> {
    fn drop(&mut self) {
        if let Some(tale) = self.tale.take()
            && !std::thread::panicking()
        {
            self.telemetry.record(&tale.end_without_response());
        }
    }
}
