//! When will something be there that is asked for and is not there yet?

use std::sync::Arc;
use std::time::Duration;

use super::{Streams, Watch};
use crate::media::Kind;
use crate::policy::access::Entry;
use crate::policy::{Moment, Rules};

/// What is known of a segment's coming.
pub(in crate::shield) enum Due {
    /// A watched MPD says in how long it is to be had.
    Reckoned(Duration, Arc<Watch>),
    /// It says that it has been there for so long.
    Past(Duration, Arc<Watch>),
    /// The next version of a playlist, which may list it, is due in so long.
    Listed(Duration),
}

/// Packagers are late by so much, mostly …
const LATE_MAX: Duration = Duration::from_secs(2);
/// … and what is late may be there at any moment.
const LATE_STEP: Duration = Duration::from_millis(100);

/// What has been there for longer may have left the window again.
const EXPECTED_MAX: Duration = Duration::from_mins(1);

impl Due {
    /// It should be there now.
    pub(in crate::shield) fn is_expected(&self) -> bool {
        matches!(self, Due::Past(since, _) if *since < EXPECTED_MAX)
    }

    /// For how long it may be believed at most that it is not there. Nothing: as long as anything else.
    pub(in crate::shield) fn absent_for(&self) -> Option<Duration> {
        match self {
            Due::Reckoned(due_in, _) => Some(*due_in),
            Due::Listed(due_in) => Some(*due_in).filter(|due_in| !due_in.is_zero()),
            Due::Past(since, _) => (*since < LATE_MAX).then_some(LATE_STEP),
        }
    }
}

impl Streams {
    /// Looks into the manifests that list what lies beside it.
    pub(in crate::shield) fn due(&self, rules: &Rules, entry: &Entry, now: Moment) -> Option<Due> {
        // Not all segments have names that tell.
        if entry.kind.is_manifest() || matches!(entry.kind, Kind::Key | Kind::Clock) {
            return None;
        }
        let listing = self.listing(entry);
        let reckoned = listing.iter().find_map(|watch| {
            let at = watch
                .lanes()
                .available_at(rules, &watch.entry, entry, now.wall)?;
            let watch = Arc::clone(watch);
            Some(match at.duration_since(now.wall) {
                Ok(due_in) => Due::Reckoned(due_in, watch),
                Err(past) => Due::Past(past.duration(), watch),
            })
        });
        // Of an MPD the times are known, whichever version lists what.
        let playlists = listing.iter().filter(|watch| watch.entry.kind == Kind::Hls);
        let versions = playlists.filter_map(|watch| watch.next_version(now.mono));
        reckoned.or_else(|| versions.min().map(Due::Listed))
    }
}
