//! Does anybody want a live manifest just now, and what it lists; and with what is that asked for behind those
//! who do?

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::PlaylistTracker;
use super::watch_size::own_values;
use crate::policy::headers;

/// Players ask a little later than once a segment, and networks are slow.
const DAWDLING: Duration = Duration::from_millis(500);

impl PlaylistTracker {
    /// A request that was made for a viewer, with these headers, may be made again for all with those of
    /// them that are `for_others`; where its answer is everybody's (`alike`), and not one for each choice
    /// of headers.
    pub(in crate::proxy) fn asked_with(&self, sent: &HeaderMap, alike: bool) {
        let others = headers::for_others(sent, &self.entry.route).filter(|_| alike);
        self.course.lock().asked_with = others.map(|others| Arc::new(own_values(&others)));
    }

    /// With what it, and what it lists, is asked for behind viewers; `None`: it is not.
    pub(in crate::proxy) fn asking_with(&self) -> Option<Arc<HeaderMap>> {
        self.course.lock().asked_with.clone()
    }

    /// Players ask about once a segment: if nobody has asked for one of a rendition for so long, nobody
    /// watches that.
    pub(in crate::proxy) fn patience(&self) -> Duration {
        self.course.lock().step * 2 + DAWDLING
    }

    /// A viewer has asked for it a moment ago. Players ask for a playlist once a segment, for an MPD once
    /// an update period.
    pub(in crate::proxy) fn is_wanted(&self, now: Instant) -> bool {
        let patience = {
            let course = self.course.lock();
            course.segment + course.step + DAWDLING
        };
        let unasked = self.attention.unasked_for(now);
        unasked.is_some_and(|unasked| unasked <= patience)
    }
}
