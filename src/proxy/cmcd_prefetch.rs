//! Prefetches the object that a player announces as its next request (CMCD `nor`). Such a prefetch
//! has the lowest priority, happens once, and only for a URL that the request itself could have
//! used.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use super::{Shield, ViewerRequest};
use crate::live::{Availability, PrefetchSource};
use seawall_manifest::{Cmcd, Kind};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Now, headers};

/// The CMCD header for fields of a single request.
const CMCD_REQUEST: HeaderName = HeaderName::from_static("cmcd-request");

/// The announced request, and the headers to send with it.
pub(super) struct CmcdPrefetch {
    request: CacheRequest,
    headers: HeaderMap,
}

impl Shield {
    /// The request that a viewer announces with this one: for media, on the same host and route.
    pub(super) fn announced_request(
        &self,
        viewer_request: &ViewerRequest,
        request: &CacheRequest,
    ) -> Option<CmcdPrefetch> {
        if !request.route.live.prefetch || viewer_request.method != Method::GET {
            return None;
        }
        let in_query = viewer_request
            .uri
            .query()
            .is_some_and(|query| query.contains("CMCD="));
        if !in_query && !viewer_request.headers.contains_key(&CMCD_REQUEST) {
            return None;
        }
        let cmcd = Cmcd::of(viewer_request.uri.query(), &viewer_request.headers)?;
        // With a range, the player wants only a part of an object that may be large.
        let name = cmcd.next_object.filter(|_| cmcd.next_range.is_none())?;
        let next = request.resolve_same_host(&self.rules, &name)?;
        let is_media = matches!(next.kind, Kind::Segment | Kind::Init);
        let same_route = Arc::ptr_eq(&next.route, &request.route);
        let wanted = is_media && same_route && next.key != request.key;
        let headers =
            headers::shareable_headers(&viewer_request.headers, &next.route).filter(|_| wanted)?;
        Some(CmcdPrefetch {
            request: next,
            headers,
        })
    }

    /// Prefetches the object, unless it is known not to exist yet.
    pub(super) fn prefetch_announced(self: &Arc<Self>, announced: Option<CmcdPrefetch>) {
        let Some(CmcdPrefetch { request, headers }) = announced else {
            return;
        };
        match self
            .live
            .availability_of(&self.rules, &request, Now::read())
        {
            Some(Availability::DueIn(..)) => {}
            _ => drop(self.prefetch(&[request], PrefetchSource::Nor, &headers)),
        }
    }
}
