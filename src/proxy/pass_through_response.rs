//! Defines an origin response that goes to one viewer, unstored.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::ResponseBody;
use super::clients::PrivateFetch;
use super::manifest_tap::ManifestTap;
use super::pass_through_stream::PassThroughStream;
use seawall_policy::headers;
use seawall_policy::lifetime::UncacheableReason;
use seawall_upstream::{Framing, UpstreamBody, UpstreamResponse};

/// An origin response for one viewer.
pub(super) struct PassThroughResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: PassThroughBody,
    pub(super) reason: Option<UncacheableReason>,
    /// Parses the body on the way, if it is a manifest.
    pub(super) manifest_tap: Option<Box<ManifestTap>>,
    /// Counts as abandoned if it is dropped before the end of the body.
    pub(super) private_fetch: Option<PrivateFetch>,
}

/// The body; a manifest was read completely before it turned out to be uncacheable.
pub(super) enum PassThroughBody {
    Flowing(UpstreamBody, Framing),
    Whole(Bytes),
}

impl PassThroughResponse {
    /// Its status, headers, reason and body.
    pub(super) fn parts(
        self,
    ) -> (
        StatusCode,
        HeaderMap,
        Option<UncacheableReason>,
        ResponseBody,
    ) {
        let body = self.body.into_body(self.private_fetch, self.manifest_tap);
        (self.status, self.headers, self.reason, body)
    }

    /// `bodiless`: the response to a HEAD, which keeps the origin's `Content-Length`.
    pub(super) fn of(
        response: UpstreamResponse,
        reason: Option<UncacheableReason>,
        bodiless: bool,
        name: &str,
    ) -> PassThroughResponse {
        let length = response.headers.get(header::CONTENT_LENGTH).cloned();
        let mut headers = passed_headers(response.headers, name);
        headers.extend(
            length
                .filter(|_| bodiless)
                .map(|length| (header::CONTENT_LENGTH, length)),
        );
        PassThroughResponse {
            status: response.status,
            headers,
            body: PassThroughBody::Flowing(response.body, response.framing),
            reason,
            manifest_tap: None,
            private_fetch: None,
        }
    }

    /// The headers and the body, if that has been read to its end.
    pub(super) fn into_whole(self) -> Option<(HeaderMap, Bytes)> {
        match self.body {
            PassThroughBody::Whole(body) => Some((self.headers, body)),
            PassThroughBody::Flowing(..) => None,
        }
    }

    /// Charges the client if it leaves before the end of the body.
    pub(super) fn abandoned_with(self, private_fetch: PrivateFetch) -> PassThroughResponse {
        let private_fetch = Some(private_fetch);
        PassThroughResponse {
            private_fetch,
            ..self
        }
    }

    pub(super) fn whole(
        response: UpstreamResponse,
        body: Bytes,
        reason: UncacheableReason,
        name: &str,
    ) -> PassThroughResponse {
        PassThroughResponse {
            status: response.status,
            headers: passed_headers(response.headers, name),
            body: PassThroughBody::Whole(body),
            reason: Some(reason),
            manifest_tap: None,
            private_fetch: None,
        }
    }
}

/// The shield does not store the response, so it keeps the origin's `Age`.
fn passed_headers(origin: HeaderMap, name: &str) -> HeaderMap {
    let age = headers::age(&origin);
    let mut headers = headers::downstream(origin, name);
    headers.extend(age);
    headers
}

impl PassThroughBody {
    fn into_body(
        self,
        private_fetch: Option<PrivateFetch>,
        manifest_tap: Option<Box<ManifestTap>>,
    ) -> ResponseBody {
        let ended = |private_fetch: Option<PrivateFetch>| {
            private_fetch.map(|mut private_fetch| private_fetch.ended())
        };
        match self {
            PassThroughBody::Whole(bytes) => {
                ended(private_fetch);
                ResponseBody::whole(bytes)
            }
            PassThroughBody::Flowing(_, Framing::Length(0)) => {
                ended(private_fetch);
                ResponseBody::Empty
            }
            PassThroughBody::Flowing(upstream_body, framing) => ResponseBody::Passing(Box::new(
                PassThroughStream::new(upstream_body, framing, private_fetch, manifest_tap),
            )),
        }
    }
}
