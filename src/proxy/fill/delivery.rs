//! Tracks a body in progress: what its head promised, and which response of another endpoint can
//! continue it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::FillTask;
use crate::proxy::Shield;
use crate::proxy::race::{Contested, ExpectedBody, Race, ResponseFit};
use seawall_policy::range::{ByteSpan, read_content_range};
use seawall_policy::{EndpointAvoidance, EndpointSet, Now};
use seawall_upstream::{Framing, UpstreamRequest, UpstreamResponse};

/// A slow body is held back from viewers for at most this time and size, so that another endpoint
/// can still begin from byte 0.
const HELD_MAX: Duration = Duration::from_secs(3);
const HELD_BYTES_MAX: u64 = 256 << 10;

/// A body in progress.
pub(super) struct Delivery {
    pub(super) progress: BodyProgress,
    pub(super) race: Race,
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
    is_shown: bool,
}

impl Delivery {
    /// `left`: endpoints that delivered it before. `end_is_known`: as in [`BodyProgress`], for a
    /// body without a length.
    pub(super) fn new(
        reply: &UpstreamResponse,
        left: EndpointAvoidance,
        has_others: bool,
        (expected, end_is_known): (ExpectedBody, bool),
    ) -> Delivery {
        let etag = reply.headers.get(header::ETAG);
        let strong = etag.filter(|etag| etag.as_bytes().starts_with(b"\""));
        let may_move = has_others && reply.status == StatusCode::OK;
        Delivery {
            progress: BodyProgress {
                etag: strong.cloned(),
                codings: codings(reply).cloned().collect(),
                length: expected.length,
                end_is_known: expected.length.is_some() || end_is_known,
                is_shown: false,
            },
            race: Race::new(reply.endpoint, left, may_move, expected),
        }
    }

    /// Viewers get no bytes yet: another endpoint may still replace the body.
    pub(super) fn is_held(&self) -> bool {
        let now = Instant::now();
        self.race.is_open(now)
            && self.race.age(now) < HELD_MAX
            && self.race.received() < HELD_BYTES_MAX
    }

    /// Viewers have the head and all received bytes: from now on only the rest of the same body
    /// fits.
    pub(super) fn show(&mut self) {
        self.progress.is_shown = true;
        self.race.show();
    }

    /// Another endpoint continues the body; its response may state the length.
    pub(super) fn move_to(&mut self, reply: &UpstreamResponse) {
        self.race.move_to(reply.endpoint);
        let content_range = content_range(reply).map(|(_, length)| length);
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
    fn shown(&self, received: u64) -> u64 {
        if self.is_shown { received } else { 0 }
    }

    /// Judges another endpoint's response to the request for the part after `received` bytes.
    fn judge(&self, reply: &UpstreamResponse, received: u64) -> ResponseFit {
        let shown = self.shown(received);
        if shown == 0 {
            return if reply.status == StatusCode::OK {
                ResponseFit::Same
            } else {
                ResponseFit::Nothing
            };
        }
        let goes_on = content_range(reply).is_some_and(|(ByteSpan { start, end }, whole)| {
            start == shown && end == whole && self.length.is_none_or(|length| length == whole)
        });
        let is_rest = reply.status == StatusCode::PARTIAL_CONTENT
            && reply.headers.get(header::ETAG) == self.etag.as_ref()
            && codings(reply).eq(&self.codings)
            && goes_on;
        match reply.status {
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

impl Contested for FillBody<'_> {
    fn shield(&self) -> &Arc<Shield> {
        &self.task.shield
    }

    fn origin_index(&self) -> usize {
        self.task.entry.route.origin_index
    }

    /// Requests the whole body while viewers have nothing.
    fn rest(&self, received: u64) -> Option<HeaderMap> {
        let mut headers = self.task.fill.upstream_headers().clone();
        let shown = self.progress.shown(received);
        if shown > 0 {
            if !self.progress.end_is_known {
                return None;
            }
            let etag = self.progress.etag.as_ref()?;
            let range = HeaderValue::try_from(format!("bytes={shown}-")).ok()?;
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_MATCH, etag.clone());
        }
        Some(headers)
    }

    fn upstream_request(&self, headers: HeaderMap) -> UpstreamRequest {
        self.task.upstream_request(headers, self.task.avoided())
    }

    fn judge(&self, received: u64) -> Box<dyn FnOnce(&UpstreamResponse) -> ResponseFit + Send> {
        let progress = self.progress.clone();
        Box::new(move |reply| progress.judge(reply, received))
    }

    fn is_shown(&self) -> bool {
        self.progress.is_shown
    }

    fn is_complete(&self) -> bool {
        self.task
            .shield
            .live
            .is_complete(&self.task.entry, Now::read())
    }

    fn left_before(&self) -> EndpointSet {
        let left = self.task.left_before(Instant::now());
        left.unwrap_or_default()
    }

    fn stopped(&self, endpoint: usize) {
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
fn content_range(reply: &UpstreamResponse) -> Option<(ByteSpan, u64)> {
    let content_range = reply.headers.get(header::CONTENT_RANGE);
    content_range.and_then(read_content_range)
}

fn codings(reply: &UpstreamResponse) -> impl Iterator<Item = &HeaderValue> {
    reply.headers.get_all(header::CONTENT_ENCODING).into_iter()
}
