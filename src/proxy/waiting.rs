//! Which answers take time, and who hears of a viewer that leaves before one is there? Nobody else can tell: what would have been
//! answered is dropped with the answer.

use std::sync::Arc;

use super::context::RequestContext;
use super::{Shield, ViewerResponse, respond};
use crate::cache::Object;
use crate::telemetry::{Outcome, RequestRecord, Telemetry};

impl Shield {
    /// An answer that takes time. Should its viewer leave meanwhile, that is told.
    pub(super) async fn waited_for(
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

    /// A hit, in the coding that is just being made for it.
    pub(super) async fn in_time(
        &self,
        ask: RequestContext,
        object: &Arc<Object>,
    ) -> ViewerResponse {
        self.soon(respond::asked_form(&ask, object), &ask.headers)
            .await;
        object.hits.add();
        respond::object(ask, object, Outcome::Hit, &self.settings)
    }
}

/// A viewer who has no answer yet; dropping it tells that the viewer has left.
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
            self.telemetry.tell(&tale.left());
        }
    }
}
