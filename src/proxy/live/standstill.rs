//! Does a live manifest go on as it should, stand still, or end?

use std::time::{Duration, Instant, SystemTime};

use super::PlaylistTracker;
use crate::policy::progress::STALLED_PERIODS;

/// A manifest that said it was live so lately may say so again.
const LATELY: Duration = Duration::from_mins(2);

impl PlaylistTracker {
    /// The origin says that it has not changed for longer than it may: it stands still, and knows.
    pub(in crate::proxy) fn is_old(&self, updated: SystemTime, now: SystemTime) -> bool {
        let course = self.course.lock();
        let since = now.duration_since(updated).unwrap_or_default();
        !course.ended && since > course.segment * STALLED_PERIODS
    }

    /// It should have changed by now, and another endpoint's may have.
    pub(in crate::proxy) fn is_late(&self, now: Instant) -> bool {
        let course = self.course.lock();
        !course.ended && course.variants.late(now)
    }

    /// It was live when it was seen last, and it is not long ago that it changed.
    pub(in crate::proxy) fn goes_on(&self, now: Instant) -> bool {
        let course = self.course.lock();
        course.live.is_some() && !course.ended && !course.variants.stalled(now)
    }

    /// It should have changed long ago.
    pub(in crate::proxy) fn stalled(&self, now: Instant) -> bool {
        let course = self.course.lock();
        !course.ended && course.variants.stalled(now)
    }

    /// It has ended, and was live a moment ago: an encoder that stops and starts again says so.
    pub(in crate::proxy) fn lately_live(&self, now: Instant) -> bool {
        let live = self.course.lock().live;
        live.is_some_and(|live| now.saturating_duration_since(live) < LATELY)
    }
}
