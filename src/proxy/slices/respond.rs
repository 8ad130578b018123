//! Responds to a viewer from slices.

use std::sync::Arc;

use super::{SliceContext, SlicedBody};
use crate::proxy::context::{ForwardReason, PipelineStep, RequestContext};
use crate::proxy::{ResponseBody, Shield, priority, responses};
use crate::telemetry::Outcome;
use seawall_cache::{Lookup, SliceSet};
use seawall_policy::range::ByteSpan;

impl Shield {
    /// Responds from slices. Fetches the first slice before the head is sent; if that fails, the
    /// key is looked up again.
    pub(in crate::proxy) async fn respond_from_slices(
        self: &Arc<Self>,
        mut context: RequestContext,
        lookup: &Lookup,
        slice_set: Arc<SliceSet>,
    ) -> PipelineStep {
        context.forward = ForwardReason::Partial;
        let request = &context.request;
        let priority = priority::for_waiting_viewer(lookup.kind, || false);
        let source = SliceContext::begin(
            self,
            (request, &context.headers),
            lookup,
            &slice_set,
            (context.client, priority),
        );
        // A request for several ranges of a very large object gets the whole object (allowed).
        let (head, length) = (&slice_set.head, slice_set.length);
        let span = responses::first_span(&context, head, length);
        let is_stored = source.has_stored(span);
        let outcome = if is_stored {
            Outcome::Hit
        } else {
            Outcome::Miss
        };
        let first = if is_stored || context.head_only {
            None
        } else {
            match source.slice(span.start).await {
                Ok(first) => Some(first),
                Err(_) => return PipelineStep::Again(context),
            }
        };
        PipelineStep::Respond(responses::respond_with_range(
            context,
            head,
            length,
            outcome,
            1,
            |spans| {
                let whole = ByteSpan {
                    start: 0,
                    end: length,
                };
                let span = spans.first().copied().unwrap_or(whole);
                ResponseBody::Sliced(Box::new(SlicedBody::new(source, span, first)))
            },
        ))
    }
}
