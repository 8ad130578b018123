//! How is one slice asked for? Of one endpoint after another, where one does not have it or stops in the middle.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::{Fault, Source};
use crate::cache::Fill;
use crate::origin::{Errand, Failure, Inflow, Reply};
use crate::policy::EndpointSet;
use crate::policy::range::{Span, read_content_range};
use crate::shield::fill::SILENCE;
use crate::shield::rank;

/// What comes next of a slice.
pub(super) enum Next {
    /// From the endpoint that began it: a piece, its end, or a failure.
    Came(Option<Result<Bytes, Failure>>),
    /// Another endpoint's answer to go on with.
    Elsewhere(Reply),
}

impl Source {
    /// Waits for the next piece; where the endpoint `from` falls silent or breaks off, for another one's rest too.
    pub(super) async fn next(
        &self,
        fill: &Fill,
        inflow: &mut Inflow,
        left: Span,
        from: Option<usize>,
    ) -> Next {
        let mut next = pin!(inflow.next());
        let Some(from) = from.filter(|_| left.length() > 0) else {
            return Next::Came(next.await);
        };
        match timeout(SILENCE, &mut next).await {
            Ok(Some(Err(failure))) => {
                let other = self.rest_elsewhere(fill, left, from).await;
                other.map_or(Next::Came(Some(Err(failure))), Next::Elsewhere)
            }
            Ok(came) => Next::Came(came),
            Err(_) => tokio::select! {
                biased;
                came = &mut next => Next::Came(came),
                Some(other) = self.rest_elsewhere(fill, left, from) => Next::Elsewhere(other),
            },
        }
    }

    /// What is left of a slice, from its first byte on, from another endpoint that has the same.
    async fn rest_elsewhere(&self, fill: &Fill, left: Span, than: usize) -> Option<Reply> {
        let origin = &self.shield.origins[self.route.origin_index];
        let leaves = EndpointSet::of(than);
        if !origin.another_stands(leaves) {
            return None;
        }
        let mut other = self.ask(fill, left, Some(than)).await.ok()?;
        let fit = other.endpoint != than && self.examine(&other, left).is_ok();
        (fit && other.body.has_begun().await).then_some(other)
    }

    /// Twins may name the same object differently, or have another one for a while: where one endpoint does
    /// not have this one, another is asked.
    pub(super) async fn fetch(&self, fill: &Fill, span: Span) -> Result<Reply, Fault> {
        let reply = self.ask(fill, span, None).await?;
        let Err(fault) = self.examine(&reply, span) else {
            return Ok(reply);
        };
        let origin = &self.shield.origins[self.route.origin_index];
        if fault == Fault::Failed || !origin.has_others() {
            return Err(fault);
        }
        let endpoint = reply.endpoint;
        // What it holds of the origin's limits is needed now.
        drop(reply);
        let other = self.ask(fill, span, Some(endpoint)).await;
        let other = other.ok().filter(|other| other.endpoint != endpoint);
        let fit = other.filter(|other| self.examine(other, span).is_ok());
        fit.ok_or(fault)
    }

    /// `avoided`: an endpoint that does not have it.
    async fn ask(&self, fill: &Fill, span: Span, avoided: Option<usize>) -> Result<Reply, Fault> {
        let mut headers = fill.upstream().clone();
        let range = format!("bytes={}-{}", span.start, span.end - 1);
        let range = HeaderValue::try_from(range).map_err(|_| Fault::Failed)?;
        headers.insert(header::RANGE, range);
        headers.insert(header::IF_MATCH, self.series.etag.clone());
        let (target, host) = (self.target.clone(), self.host.clone());
        let rank = rank::waited_for(self.found.kind, || false);
        let errand = Errand {
            avoided: avoided
                .or(*self.left.lock())
                .map_or_else(EndpointSet::default, EndpointSet::of),
            ..Errand::get(target, host, headers, rank)
        };
        let origin = &self.shield.origins[self.route.origin_index];
        origin.fetch(errand).await.map_err(|_| Fault::Failed)
    }

    /// Is this the slice that was asked for, of the object that is held?
    fn examine(&self, reply: &Reply, span: Span) -> Result<(), Fault> {
        let told = reply
            .headers
            .get(header::CONTENT_RANGE)
            .and_then(read_content_range);
        let etag = reply.headers.get(header::ETAG);
        // Some servers give what they have coded the `ETag` of what they have not.
        let is_coded = reply.headers.contains_key(header::CONTENT_ENCODING);
        match reply.status {
            StatusCode::PARTIAL_CONTENT if etag != Some(&self.series.etag) => Err(match etag {
                Some(other) if other.as_bytes().starts_with(b"\"") => Fault::Changed,
                _ => Fault::NoParts,
            }),
            StatusCode::PARTIAL_CONTENT if is_coded => Err(Fault::NoParts),
            StatusCode::PARTIAL_CONTENT => match told {
                Some((_, length)) if length != self.series.length => Err(Fault::Changed),
                Some((there, _)) if there == span => Ok(()),
                _ => Err(Fault::NoParts),
            },
            StatusCode::OK if etag == Some(&self.series.etag) => Err(Fault::NoParts),
            StatusCode::OK | StatusCode::PRECONDITION_FAILED => Err(Fault::Changed),
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND | StatusCode::GONE => {
                Err(Fault::Changed)
            }
            _ => Err(Fault::Failed),
        }
    }
}
