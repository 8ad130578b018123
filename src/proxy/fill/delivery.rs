//! A body under way: what was promised of it, and what another endpoint's response must be to go on with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::FillTask;
use crate::policy::EndpointSet;
use crate::policy::range::{ByteSpan, read_content_range};
use crate::proxy::Shield;
use crate::proxy::race::{Contested, ExpectedBody, LeftOut, Race, ResponseFit};
use crate::upstream::{Framing, UpstreamRequest, UpstreamResponse};

/// So long, and so much of it, a slow body is kept from viewers, so that another endpoint may begin anew.
const HELD_MAX: Duration = Duration::from_secs(3);
const HELD_BYTES_MAX: u64 = 256 << 10;

/// A body under way.
pub(super) struct Delivery {
    pub(super) begun: BodyProgress,
    pub(super) race: Race,
}

/// What was promised when the body began, and what another endpoint would have to go on from.
#[derive(Clone)]
pub(super) struct BodyProgress {
    etag: Option<HeaderValue>,
    /// Some servers give what they have coded the `ETag` of what they have not.
    codings: Vec<HeaderValue>,
    pub(super) length: Option<u64>,
    /// All endpoints that have it have all of it. If not, nothing says where it ends but the one that delivers it:
    /// another one may not be as far, and its end would pass for the end.
    end_is_known: bool,
    /// Viewers have the head, and what has been received so far.
    is_shown: bool,
}

impl Delivery {
    /// `left`: endpoints that had it before. `end_is_known`: as in [`Begun`], where it has no length.
    pub(super) fn new(
        reply: &UpstreamResponse,
        left: LeftOut,
        has_others: bool,
        (expected, end_is_known): (ExpectedBody, bool),
    ) -> Delivery {
        let etag = reply.headers.get(header::ETAG);
        let strong = etag.filter(|etag| etag.as_bytes().starts_with(b"\""));
        let may_move = has_others && reply.status == StatusCode::OK;
        Delivery {
            begun: BodyProgress {
                etag: strong.cloned(),
                codings: codings(reply).cloned().collect(),
                length: expected.length,
                end_is_known: expected.length.is_some() || end_is_known,
                is_shown: false,
            },
            race: Race::new(reply.endpoint, left, may_move, expected),
        }
    }

    /// It may yet be replaced: viewers are to have nothing of it.
    pub(super) fn is_held(&self) -> bool {
        let now = Instant::now();
        self.race.is_open(now)
            && self.race.age(now) < HELD_MAX
            && self.race.received() < HELD_BYTES_MAX
    }

    /// Viewers have the head, and what has come: from now on only the rest of the same will do.
    pub(super) fn show(&mut self) {
        self.begun.is_shown = true;
        self.race.show();
    }

    /// Another endpoint goes on with it, and has said how long it is.
    pub(super) fn move_to(&mut self, reply: &UpstreamResponse) {
        self.race.move_to(reply.endpoint);
        let told = told(reply).map(|(_, length)| length);
        self.begun.length = self.begun.length.or(told);
    }

    /// Whether all has come that was promised when the body began.
    pub(super) fn is_whole(&self) -> bool {
        let length = self.begun.length;
        length.is_none_or(|length| length == self.race.received())
    }

    /// More has come than was promised.
    pub(super) fn is_too_long(&self) -> bool {
        let length = self.begun.length;
        length.is_some_and(|length| self.race.received() > length)
    }
}

impl BodyProgress {
    /// Where another endpoint would have to go on from.
    fn shown(&self, received: u64) -> u64 {
        if self.is_shown { received } else { 0 }
    }

    /// What another endpoint's response to a request for what is missing after so many bytes is.
    fn judge(&self, reply: &UpstreamResponse, received: u64) -> ResponseFit {
        let shown = self.shown(received);
        if shown == 0 {
            return if reply.status == StatusCode::OK {
                ResponseFit::Same
            } else {
                ResponseFit::Nothing
            };
        }
        let goes_on = told(reply).is_some_and(|(ByteSpan { start, end }, whole)| {
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
    pub(super) job: &'a FillTask,
    pub(super) begun: &'a BodyProgress,
}

impl Contested for FillBody<'_> {
    fn shield(&self) -> &Arc<Shield> {
        &self.job.shield
    }

    fn origin_index(&self) -> usize {
        self.job.entry.route.origin_index
    }

    /// All of it where viewers have nothing yet.
    fn rest(&self, received: u64) -> Option<HeaderMap> {
        let mut headers = self.job.fill.upstream().clone();
        let shown = self.begun.shown(received);
        if shown > 0 {
            if !self.begun.end_is_known {
                return None;
            }
            let etag = self.begun.etag.as_ref()?;
            let range = HeaderValue::try_from(format!("bytes={shown}-")).ok()?;
            headers.insert(header::RANGE, range);
            headers.insert(header::IF_MATCH, etag.clone());
        }
        Some(headers)
    }

    fn errand(&self, headers: HeaderMap) -> UpstreamRequest {
        self.job.errand(headers, self.job.avoided())
    }

    fn judge(&self, received: u64) -> Box<dyn FnOnce(&UpstreamResponse) -> ResponseFit + Send> {
        let begun = self.begun.clone();
        Box::new(move |reply| begun.judge(reply, received))
    }

    fn is_shown(&self) -> bool {
        self.begun.is_shown
    }

    fn is_complete(&self) -> bool {
        self.job.shield.is_complete(&self.job.entry)
    }

    fn left_before(&self) -> EndpointSet {
        let left = self.job.left_before(Instant::now());
        left.unwrap_or_default()
    }

    fn stopped(&self, endpoint: usize) {
        self.job.leave(endpoint);
    }
}

/// The length that a body has from its beginning.
pub(super) fn length(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(length) => Some(length),
        Framing::Delimited | Framing::UntilClose => None,
    }
}

/// Which part of how much it says that it is.
fn told(reply: &UpstreamResponse) -> Option<(ByteSpan, u64)> {
    let told = reply.headers.get(header::CONTENT_RANGE);
    told.and_then(read_content_range)
}

fn codings(reply: &UpstreamResponse) -> impl Iterator<Item = &HeaderValue> {
    reply.headers.get_all(header::CONTENT_ENCODING).into_iter()
}
