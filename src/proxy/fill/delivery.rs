//! Tracks a body in progress: what its head promised, and which response of another endpoint can
//! continue it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::FillTask;
use crate::proxy::race::{ExpectedBody, Race, ResponseFit, TakeoverBody};
use seawall_policy::range::{ByteSpan, read_content_range};
use seawall_policy::{EndpointAvoidance, EndpointSet, Now};
use seawall_upstream::{Framing, Origin, UpstreamRequest, UpstreamResponse};

/// The start of a slow body is buffered for at most this time and size, so that another endpoint
/// can still begin from byte 0.
const BUFFERED_MAX: Duration = Duration::from_secs(3);
const BUFFERED_BYTES_MAX: u64 = 256 << 10;

/// A body in progress.
pub(super) struct Delivery {
    pub(super) progress: BodyProgress,
    pub(super) race: Race,
}

/// What is known of a body before it arrives.
#[derive(Clone, Copy)]
pub(super) struct BodyForecast {
    pub(super) expected: ExpectedBody,
    /// As in [`BodyProgress`].
    pub(super) end_is_known: bool,
}

/// What the response head promised, and where another endpoint would have to continue.
#[derive(Clone)]
pub(super) struct BodyProgress {
    etag: Option<HeaderValue>,
    /// Compared too: some servers use one `ETag` for the coded and the plain body.
    codings: Vec<HeaderValue>,
    pub(super) length: Option<u64>,
    /// Every endpoint that has the object has all of it. If false, only the delivering endpoint
    /// knows the end: another one may have less, and its end would be taken for the end of the
    /// body.
    end_is_known: bool,
    /// Viewers have the head and all received bytes.
    is_sent_to_viewers: bool,
}

impl Delivery {
    /// `failed_endpoints`: endpoints that delivered it before.
    pub(super) fn new(
        response: &UpstreamResponse,
        failed_endpoints: EndpointAvoidance,
        has_others: bool,
        forecast: BodyForecast,
    ) -> Delivery {
        let etag = response.headers.get(header::ETAG);
        let strong = etag.filter(|etag| etag.as_bytes().starts_with(b"\""));
        let may_take_over = has_others && response.status == StatusCode::OK;
        Delivery {
            progress: BodyProgress {
                etag: strong.cloned(),
                codings: codings(response).cloned().collect(),
                length: forecast.expected.length,
                end_is_known: forecast.end_is_known,
                is_sent_to_viewers: false,
            },
            race: Race::new(
                response.endpoint,
                failed_endpoints,
                may_take_over,
                forecast.expected,
            ),
        }
    }

    /// Viewers get no bytes yet: another endpoint may still replace the body.
    pub(super) fn is_buffered(&self) -> bool {
        let now = Instant::now();
        self.race.is_open(now)
            && self.race.age(now) < BUFFERED_MAX
            && self.race.received() < BUFFERED_BYTES_MAX
    }

    /// Viewers have the head and all received bytes: from now on only the rest of the same body
    /// fits.
    pub(super) fn mark_sent_to_viewers(&mut self) {
        self.progress.is_sent_to_viewers = true;
        self.race.mark_sent_to_viewers();
    }

    /// Another endpoint continues the body; its response may state the length.
    pub(super) fn move_to(&mut self, response: &UpstreamResponse) {
        self.race.move_to(response.endpoint);
        let content_range = content_range(response).map(|(_, length)| length);
        self.progress.length = self.progress.length.or(content_range);
    }

    /// All bytes that the head promised have arrived.
    pub(super) fn is_whole(&self) -> bool {
        let length = self.progress.length;
        length.is_none_or(|length| length == self.race.received())
    }

    /// More bytes have arrived than the head promised.
    pub(super) fn is_too_long(&self) -> bool {
        let length = self.progress.length;
        length.is_some_and(|length| self.race.received() > length)
    }
}

impl BodyProgress {
    /// The offset at which another endpoint would have to continue.
    fn sent_to_viewers(&self, received: u64) -> u64 {
        if self.is_sent_to_viewers { received } else { 0 }
    }

    /// How another endpoint's response fits: it was requested for the part after `received` bytes.
    fn match_response(&self, response: &UpstreamResponse, received: u64) -> ResponseFit {
        let sent_to_viewers = self.sent_to_viewers(received);
        if sent_to_viewers == 0 {
            return if response.status == StatusCode::OK {
                ResponseFit::Same
            } else {
                ResponseFit::Nothing
            };
        }
        let goes_on = content_range(response).is_some_and(|(ByteSpan { start, end }, whole)| {
            start == sent_to_viewers
                && end == whole
                && self.length.is_none_or(|length| length == whole)
        });
        let is_rest = response.status == StatusCode::PARTIAL_CONTENT
            && response.headers.get(header::ETAG) == self.etag.as_ref()
            && codings(response).eq(&self.codings)
            && goes_on;
        match response.status {
            _ if is_rest => ResponseFit::Same,
            StatusCode::OK
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::RANGE_NOT_SATISFIABLE => ResponseFit::Another,
            _ => ResponseFit::Nothing,
        }
    }
}

/// A fill's body in a race.
pub(super) struct FillBody<'a> {
    pub(super) task: &'a FillTask,
    pub(super) progress: &'a BodyProgress,
}

impl TakeoverBody for FillBody<'_> {
    fn origin(&self) -> &Arc<Origin> {
        self.task.origin()
    }

    /// Requests the whole body while viewers have nothing.
    fn range_headers_from(&self, received: u64) -> Option<HeaderMap> {
        let mut headers = self.task.fill.upstream_headers().clone();
        let sent_to_viewers = self.progress.sent_to_viewers(received);
        if sent_to_viewers > 0 {
            if !self.progress.end_is_known {
                return None;
            }
            let etag = self.progress.etag.as_ref()?;
            let range = HeaderValue::try_from(format!("bytes={sent_to_viewers}-")).ok()?;
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_MATCH, etag.clone());
        }
        Some(headers)
    }

    fn upstream_request(&self, headers: HeaderMap) -> UpstreamRequest {
        self.task.upstream_request(headers, self.task.avoided())
    }

    fn response_matcher(
        &self,
        received: u64,
    ) -> Box<dyn FnOnce(&UpstreamResponse) -> ResponseFit + Send> {
        let progress = self.progress.clone();
        Box::new(move |response| progress.match_response(response, received))
    }

    fn is_sent_to_viewers(&self) -> bool {
        self.progress.is_sent_to_viewers
    }

    fn is_complete(&self) -> bool {
        self.task
            .shield
            .live
            .is_complete(&self.task.shield.rules, &self.task.request, Now::read())
    }

    fn failed_before(&self) -> EndpointSet {
        let failed_endpoints = self.task.failed_before(Instant::now());
        failed_endpoints.unwrap_or_default()
    }

    fn record_stopped(&self, endpoint: usize) {
        self.task.avoid_endpoint(endpoint);
    }
}

/// The length of a body, if known from the head.
pub(super) fn length(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(length) => Some(length),
        Framing::Delimited | Framing::UntilClose => None,
    }
}

/// The range and the complete length that `Content-Range` states.
fn content_range(response: &UpstreamResponse) -> Option<(ByteSpan, u64)> {
    let content_range = response.headers.get(header::CONTENT_RANGE);
    content_range.and_then(read_content_range)
}

fn codings(response: &UpstreamResponse) -> impl Iterator<Item = &HeaderValue> {
    response
        .headers
        .get_all(header::CONTENT_ENCODING)
        .into_iter()
}
