//! What does a player say that it will ask for next (`nor` of CMCD)? A hint and no more: what it
//! names is fetched behind everything else, once, and only where the request itself might have
//! gone.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use super::live::{Availability, PrefetchSource};
use super::{Shield, ViewerRequest};
use crate::manifest::{Cmcd, Kind};
use crate::policy::access::CacheRequest;
use crate::policy::{Now, headers};

/// The header for what goes with a single request.
const CMCD_REQUEST: HeaderName = HeaderName::from_static("cmcd-request");

/// What will be asked for, and what the request says besides.
pub(super) struct CmcdPrefetch {
    next: CacheRequest,
    with: HeaderMap,
}

impl Shield {
    /// The request that a viewer announces with this one: for media, on the same host and route.
    pub(super) fn hinted(
        &self,
        arrival: &ViewerRequest,
        entry: &CacheRequest,
    ) -> Option<CmcdPrefetch> {
        if !entry.route.live.prefetch || arrival.method != Method::GET {
            return None;
        }
        let in_query = arrival
            .uri
            .query()
            .is_some_and(|query| query.contains("CMCD="));
        if !in_query && !arrival.headers.contains_key(&CMCD_REQUEST) {
            return None;
        }
        let told = Cmcd::of(arrival.uri.query(), &arrival.headers)?;
        // Of something large, a part is wanted: it may be all there is.
        let name = told.next_object.filter(|_| told.next_range.is_none())?;
        let next = entry.sibling(&self.rules, &name)?;
        let is_media = matches!(next.kind, Kind::Segment | Kind::Init);
        let same_route = next.route.index == entry.route.index;
        let wanted = is_media && same_route && next.key != entry.key;
        let with = headers::for_others(&arrival.headers, &next.route).filter(|_| wanted)?;
        Some(CmcdPrefetch { next, with })
    }

    /// Fetches it, unless it is known not to be there yet.
    pub(super) fn take_hint(self: &Arc<Self>, hint: Option<CmcdPrefetch>) {
        let Some(CmcdPrefetch { next, with }) = hint else {
            return;
        };
        match self.streams.due(&self.rules, &next, Now::now()) {
            Some(Availability::Reckoned(..)) => {}
            _ => drop(self.fetch_ahead(&[next], PrefetchSource::Nor, &with)),
        }
    }
}
