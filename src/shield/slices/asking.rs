//! How is one slice asked for? Of one endpoint after another, where one does not have it or stops in the middle.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Fault, Source};
use crate::cache::{Fill, Known, Note};
use crate::origin::{Errand, Origin, Reply};
use crate::policy::EndpointSet;
use crate::policy::absence::is_absence;
use crate::policy::range::{Span, read_content_range};
use crate::shield::race::{AVOIDED, Contested, Expected, Fit, LeftOut, Race};
use crate::shield::{Shield, rank};

/// A race for a slice, which endpoint `endpoint` delivers.
pub(super) fn race(span: Span, endpoint: usize) -> Race {
    let expected = Expected {
        length: Some(span.length()),
        duration: None,
        is_complete: true,
    };
    Race::new(endpoint, LeftOut::default(), true, expected)
}

/// A slice in a race. Its readers get each piece as it comes.
pub(super) struct SliceBody<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) fill: &'a Fill,
    pub(super) span: Span,
}

impl SliceBody<'_> {
    fn missing(&self, received: u64) -> Span {
        let Span { start, end } = self.span;
        Span {
            start: end.min(start + received),
            end,
        }
    }
}

impl Contested for SliceBody<'_> {
    fn shield(&self) -> &Arc<Shield> {
        &self.source.shield
    }

    fn origin_index(&self) -> usize {
        self.source.route.origin_index
    }

    fn rest(&self, received: u64) -> Option<HeaderMap> {
        let missing = self.missing(received);
        if missing.length() == 0 {
            return None;
        }
        let headers = self.fill.upstream().clone();
        self.source.part(headers, missing).ok()
    }

    fn errand(&self, headers: HeaderMap) -> Errand {
        self.source.errand(headers, EndpointSet::default())
    }

    fn judge(&self, received: u64) -> Box<dyn FnOnce(&Reply) -> Fit + Send> {
        let (source, missing) = (Arc::clone(self.source), self.missing(received));
        Box::new(move |reply| match source.examine(reply, missing) {
            Ok(()) => Fit::Same,
            Err(Fault::Failed) => Fit::Nothing,
            Err(_) if is_absence(reply.status) => Fit::Nothing,
            Err(Fault::Changed | Fault::NoParts) => Fit::Another,
        })
    }

    fn is_shown(&self) -> bool {
        true
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn left_before(&self) -> EndpointSet {
        let since = self.source.left.lock().all();
        since.and(self.source.left_before)
    }
}

impl Source {
    /// Those that stopped in the middle of it a moment ago.
    fn left(&self) -> EndpointSet {
        let now = Instant::now();
        let before = self.series.left_at(now);
        self.left.lock().within(AVOIDED, now).and(before)
    }

    /// An endpoint stopped in the middle, and no other has the rest of this object: whoever asks anew finds
    /// what another one has, which may have another name for it.
    pub(super) fn leave(&self, endpoint: usize) {
        let (now, cache) = (Instant::now(), &self.shield.cache);
        let noted = cache.noted(&self.found.slot, now);
        let is_ours =
            matches!(noted, Some(Known::Sliced(series)) if series.etag == self.series.etag);
        let left = self.left().with(endpoint);
        if is_ours && self.origin().another_stands(left) {
            cache.note(
                &self.found,
                Note {
                    until: now + AVOIDED,
                    what: Known::Avoid(left),
                },
            );
        }
    }

    fn origin(&self) -> &Origin {
        &self.shield.origins[self.route.origin_index]
    }

    /// Twins may name the same object differently, or have another one for a while: where one endpoint does
    /// not have this one, another is asked.
    pub(super) async fn fetch(&self, fill: &Fill, span: Span) -> Result<Reply, Fault> {
        let upstream = || fill.upstream().clone();
        let none = EndpointSet::default();
        let reply = self.ask(upstream(), span, none).await?;
        let Err(fault) = self.examine(&reply, span) else {
            return Ok(reply);
        };
        let origin = self.origin();
        if fault == Fault::Failed || !origin.has_others() {
            return Err(fault);
        }
        let endpoint = reply.endpoint;
        // What it holds of the origin's limits is needed now.
        drop(reply);
        let than = EndpointSet::of(endpoint);
        let other = self.ask(upstream(), span, than).await;
        let other = other.ok().filter(|other| other.endpoint != endpoint);
        let fit = other.filter(|other| self.examine(other, span).is_ok());
        fit.ok_or(fault)
    }

    /// `avoided`: endpoints that do not have it.
    async fn ask(
        &self,
        headers: HeaderMap,
        span: Span,
        avoided: EndpointSet,
    ) -> Result<Reply, Fault> {
        let errand = self.errand(self.part(headers, span)?, avoided);
        self.origin().fetch(errand).await.map_err(|_| Fault::Failed)
    }

    /// Headers of a request for a part of this object, and of no other.
    fn part(&self, mut headers: HeaderMap, span: Span) -> Result<HeaderMap, Fault> {
        let range = format!("bytes={}-{}", span.start, span.end - 1);
        let range = HeaderValue::try_from(range).map_err(|_| Fault::Failed)?;
        headers.insert(header::RANGE, range);
        headers.insert(header::IF_MATCH, self.series.etag.clone());
        Ok(headers)
    }

    fn errand(&self, headers: HeaderMap, avoided: EndpointSet) -> Errand {
        let (target, host) = (self.target.clone(), self.host.clone());
        let rank = rank::waited_for(self.found.kind, || false);
        Errand {
            class: self.found.kind.into(),
            avoided: avoided.and(self.left()),
            ..Errand::get(target, host, headers, rank)
        }
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
