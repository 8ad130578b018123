//! Records viewers that leave, or are cut by a drain, before they have a response. Only a guard
//! can: the response future is dropped together with the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::context::RequestContext;
use super::{Shield, ViewerResponse, responses};
use crate::telemetry::{AbortCause, Outcome, RequestRecord, Telemetry};
use seawall_cache::Object;

impl Shield {
    /// Awaits a response; records the viewer if it leaves before that, or `is_cut_by_drain` says
    /// that it was cut. Takes a function, not a future: a future that is passed on takes its room
    /// twice.
    pub(super) async fn record_if_abandoned<F>(
        &self,
        (record, is_cut_by_drain): (RequestRecord, Option<Arc<AtomicBool>>),
        answer: impl FnOnce() -> F,
    ) -> ViewerResponse
    where
        F: Future<Output = ViewerResponse>,
    {
        let pending_viewer = PendingViewer {
            telemetry: &self.telemetry,
            record: Some(record),
            is_cut_by_drain,
        };
        let response = answer().await;
        pending_viewer.finish();
        response
    }

    /// Serves a hit whose content coding is being made; waits for the coding within its limit.
    pub(super) async fn respond_when_coded(
        &self,
        context: RequestContext,
        object: &Arc<Object>,
    ) -> ViewerResponse {
        self.wait_for_encoding(responses::full_or_delta(&context, object), &context.headers)
            .await;
        object.hits.add();
        responses::respond_with_object(context, object, Outcome::Hit, &self.settings)
    }
}

/// A viewer without a response; dropping this records that it has none.
struct PendingViewer<'a> {
    telemetry: &'a Telemetry,
    record: Option<RequestRecord>,
    is_cut_by_drain: Option<Arc<AtomicBool>>,
}

impl PendingViewer<'_> {
    fn finish(mut self) {
        self.record = None;
    }
}

impl Drop for PendingViewer<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take()
            && !std::thread::panicking()
        {
            let is_cut = self.is_cut_by_drain.as_ref();
            let cause = if is_cut.is_some_and(|is_cut| is_cut.load(Ordering::Relaxed)) {
                AbortCause::Drain
            } else {
                AbortCause::Viewer
            };
            self.telemetry.record(&record.end_without_response(cause));
        }
    }
}
