//! Requests a slice from an endpoint, and from another one if the first does not have it or stops
//! inside it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{SliceContext, SliceError};
use crate::proxy::handover::ObjectQuestion;
use crate::proxy::priority;
use crate::proxy::race::{AVOIDED, ExpectedBody, Race, ResponseFit, TakeoverBody};
use seawall_cache::{ExpiringMemo, Fill, KeyMemo};
use seawall_policy::missing_manifest::is_absence;
use seawall_policy::range::{ByteSpan, read_content_range};
use seawall_policy::{EndpointAvoidance, EndpointSet};
use seawall_upstream::{Origin, Priority, PriorityRaise, UpstreamRequest, UpstreamResponse};

/// The race for a slice that `endpoint` delivers.
pub(super) fn begin_race(span: ByteSpan, endpoint: usize) -> Race {
    let expected = ExpectedBody {
        length: Some(span.length()),
        duration: None,
        is_complete: true,
    };
    Race::new(endpoint, EndpointAvoidance::default(), true, expected)
}

/// A slice in a race. Its followers get each chunk as it arrives.
pub(super) struct SliceBody<'a> {
    pub(super) source: &'a Arc<SliceContext>,
    pub(super) fill: &'a Fill,
    pub(super) span: ByteSpan,
}

impl SliceBody<'_> {
    fn missing(&self, received: u64) -> ByteSpan {
        let ByteSpan { start, end } = self.span;
        ByteSpan {
            start: end.min(start + received),
            end,
        }
    }
}

impl TakeoverBody for SliceBody<'_> {
    fn origin(&self) -> &Arc<Origin> {
        self.source.origin()
    }

    fn range_headers_from(&self, received: u64) -> Option<HeaderMap> {
        let missing = self.missing(received);
        if missing.length() == 0 {
            return None;
        }
        let headers = self.fill.upstream_headers().clone();
        self.source.range_headers(headers, missing).ok()
    }

    fn upstream_request(&self, headers: HeaderMap) -> UpstreamRequest {
        self.source
            .upstream_request(self.fill, headers, EndpointSet::default())
    }

    fn response_matcher(
        &self,
        received: u64,
    ) -> Box<dyn FnOnce(&UpstreamResponse) -> ResponseFit + Send> {
        let (source, missing) = (Arc::clone(self.source), self.missing(received));
        Box::new(move |response| match source.check(response, missing) {
            Ok(()) => ResponseFit::Same,
            Err(SliceError::Failed) => ResponseFit::Nothing,
            Err(_) if is_absence(response.status) => ResponseFit::Nothing,
            Err(SliceError::Changed | SliceError::RangesIgnored) => ResponseFit::Another,
        })
    }

    fn is_sent_to_viewers(&self) -> bool {
        true
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn failed_before(&self) -> EndpointSet {
        let since = self.source.failed_endpoints.lock().ever();
        since.union(self.source.failed_before)
    }
}

impl SliceContext {
    /// Endpoints that stopped inside this object a moment ago.
    fn failed_lately(&self) -> EndpointSet {
        let now = Instant::now();
        let before = self.slice_set.avoided.at(now);
        self.failed_endpoints.lock().at(now).union(before)
    }

    /// The endpoint stopped inside a slice, and no other endpoint can continue this object. New
    /// requests go to another endpoint, which may have the object under another `ETag`.
    pub(super) fn avoid_endpoint(&self, endpoint: usize) {
        let (now, cache) = (Instant::now(), &self.shield.cache);
        let memo = cache.memo(&self.lookup.slot, now);
        let is_ours = matches!(memo, Some(KeyMemo::Sliced(slice_set)) if slice_set.etag == self.slice_set.etag);
        let failed_endpoints = self.failed_lately().with(endpoint);
        if is_ours && self.origin().has_another_in_good_standing(failed_endpoints) {
            cache.write_memo(
                &self.lookup,
                ExpiringMemo {
                    until: now + AVOIDED,
                    memo: KeyMemo::Avoid(EndpointAvoidance::of(failed_endpoints, now + AVOIDED)),
                },
            );
        }
    }

    fn origin(&self) -> &Arc<Origin> {
        self.shield.origin_of(&self.route)
    }

    /// The slice, if the process before an upgrade has it.
    pub(super) async fn given_slice(&self, fill: &Fill, span: ByteSpan) -> Option<Bytes> {
        let source = self.shield.handover.source()?;
        let (key, kind) = (&fill.lookup().key, fill.lookup().kind);
        let headers = fill.upstream_headers();
        let question = ObjectQuestion::new(key.bytes(), kind.as_str(), headers, span.length());
        // The fill waits for memory before it takes it.
        let given = source.ask_for_response(&question, |_| true).await?;
        (given.body.len() as u64 == span.length()).then_some(given.body)
    }

    /// Requests a slice. Equal endpoints may use different `ETag`s for one object, or have another
    /// version for a while: if one endpoint does not have this one, another is asked.
    pub(super) async fn fetch(
        &self,
        fill: &Fill,
        span: ByteSpan,
    ) -> Result<UpstreamResponse, SliceError> {
        let none = EndpointSet::default();
        let response = self.request_span(fill, span, none).await?;
        let Err(error) = self.check(&response, span) else {
            return Ok(response);
        };
        let origin = self.origin();
        if error == SliceError::Failed || !origin.has_several_endpoints() {
            return Err(error);
        }
        let endpoint = response.endpoint;
        // Releases the first response's permit before the second request.
        drop(response);
        let than = EndpointSet::of(endpoint);
        let other = self.request_span(fill, span, than).await;
        let other = other.ok().filter(|other| other.endpoint != endpoint);
        let fit = other.filter(|other| self.check(other, span).is_ok());
        fit.ok_or(error)
    }

    /// `avoided`: endpoints that do not have the slice.
    async fn request_span(
        &self,
        fill: &Fill,
        span: ByteSpan,
        avoided: EndpointSet,
    ) -> Result<UpstreamResponse, SliceError> {
        let headers = self.range_headers(fill.upstream_headers().clone(), span)?;
        let upstream_request = self.upstream_request(fill, headers, avoided);
        self.origin()
            .fetch(upstream_request)
            .await
            .map_err(|_| SliceError::Failed)
    }

    /// Headers of a range request that only this object may answer.
    fn range_headers(
        &self,
        mut headers: HeaderMap,
        span: ByteSpan,
    ) -> Result<HeaderMap, SliceError> {
        let range = format!("bytes={}-{}", span.start, span.end - 1);
        let range = HeaderValue::try_from(range).map_err(|_| SliceError::Failed)?;
        headers.insert(header::RANGE, range);
        headers.insert(header::IF_MATCH, self.slice_set.etag.clone());
        Ok(headers)
    }

    /// A prefetch gets a viewer's priority once a viewer has joined.
    fn upstream_request(
        &self,
        fill: &Fill,
        headers: HeaderMap,
        avoided: EndpointSet,
    ) -> UpstreamRequest {
        let (target, host) = (self.target.clone(), self.host.clone());
        let is_prefetch = self.priority == Priority::Prefetch;
        let priority_raise = is_prefetch.then(|| PriorityRaise {
            when: Box::pin(fill.wait_for_join()),
            priority: priority::for_waiting_viewer(self.lookup.kind, || false),
        });
        UpstreamRequest {
            priority_raise,
            cause: self.cause.clone(),
            class: self.lookup.kind.into(),
            avoided: avoided.union(self.failed_lately()),
            ..UpstreamRequest::get(target, host, headers, self.priority)
        }
    }

    /// Checks that the response is the requested slice of this object.
    fn check(&self, response: &UpstreamResponse, span: ByteSpan) -> Result<(), SliceError> {
        let content_range = response
            .headers
            .get(header::CONTENT_RANGE)
            .and_then(read_content_range);
        let etag = response.headers.get(header::ETAG);
        // Some servers use one `ETag` for the coded and the plain body.
        let is_coded = response.headers.contains_key(header::CONTENT_ENCODING);
        match response.status {
            StatusCode::PARTIAL_CONTENT if etag != Some(&self.slice_set.etag) => Err(match etag {
                Some(other) if other.as_bytes().starts_with(b"\"") => SliceError::Changed,
                _ => SliceError::RangesIgnored,
            }),
            StatusCode::PARTIAL_CONTENT if is_coded => Err(SliceError::RangesIgnored),
            StatusCode::PARTIAL_CONTENT => match content_range {
                Some((_, length)) if length != self.slice_set.length => Err(SliceError::Changed),
                Some((there, _)) if there == span => Ok(()),
                _ => Err(SliceError::RangesIgnored),
            },
            StatusCode::OK if etag == Some(&self.slice_set.etag) => Err(SliceError::RangesIgnored),
            StatusCode::OK | StatusCode::PRECONDITION_FAILED => Err(SliceError::Changed),
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND | StatusCode::GONE => {
                Err(SliceError::Changed)
            }
            _ => Err(SliceError::Failed),
        }
    }
}
