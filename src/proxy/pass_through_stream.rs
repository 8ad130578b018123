//! Streams an origin's body to one viewer, at that viewer's rate.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::body_bytes::count_down;
use super::clients::PrivateFetch;
use super::manifest_tap::ManifestTap;
use seawall_cache::BodyTruncated;
use seawall_upstream::{Framing, UpstreamBody, ViewerRelay};

/// An origin's body, read as fast as one viewer takes it.
pub struct PassThroughStream {
    relay: ViewerRelay,
    remaining: Option<u64>,
    over: bool,
    private_fetch: Option<PrivateFetch>,
    manifest_tap: Option<Box<ManifestTap>>,
}

impl PassThroughStream {
    pub(super) fn new(
        upstream_body: UpstreamBody,
        framing: Framing,
        private_fetch: Option<PrivateFetch>,
        manifest_tap: Option<Box<ManifestTap>>,
    ) -> PassThroughStream {
        PassThroughStream {
            relay: upstream_body.relay(),
            remaining: match framing {
                Framing::Length(length) => Some(length),
                Framing::Delimited | Framing::UntilClose => None,
            },
            over: false,
            private_fetch,
            manifest_tap,
        }
    }

    pub(super) fn remaining(&self) -> Option<u64> {
        self.remaining
    }

    pub(super) fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyTruncated>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.relay.poll_next(cx));
        self.over = !matches!(next, Some(Ok(_)));
        let cut = if self.relay.viewer_was_cut() {
            BodyTruncated::Viewer
        } else {
            BodyTruncated::Origin
        };
        let next = next.map(|bytes| bytes.map_err(|_| cut));
        let next = count_down(next, &mut self.remaining);
        if let Some(Ok(bytes)) = &next
            && let Some(manifest_tap) = &mut self.manifest_tap
            && !manifest_tap.push(bytes)
        {
            self.manifest_tap = None;
        }
        // The viewer may not poll again after the last byte.
        if self.over || self.remaining == Some(0) {
            self.private_fetch.iter_mut().for_each(PrivateFetch::ended);
            let is_whole = !matches!(next, Some(Err(_)));
            let manifest_tap = self.manifest_tap.take().filter(|_| is_whole);
            manifest_tap.into_iter().for_each(ManifestTap::apply);
        }
        Poll::Ready(next)
    }
}
