//! When will something be there that is asked for and is not there yet?

use std::sync::Arc;
use std::time::Duration;

use super::{Streams, Watch};
use crate::media::Kind;
use crate::policy::access::Entry;
use crate::policy::{Moment, Rules};

/// What is known of a segment's coming.
pub(in crate::shield) enum Due {
    /// A watched MPD says in how long it is to be had; nothing: it should be there.
    Reckoned(Duration, Arc<Watch>),
    /// The next version of a playlist, which may list it, is due in so long.
    Listed(Duration),
}

impl Due {
    pub(in crate::shield) fn due_in(&self) -> Duration {
        match self {
            Due::Reckoned(due_in, _) | Due::Listed(due_in) => *due_in,
        }
    }
}

impl Streams {
    /// Looks into the manifests that list what lies beside it.
    pub(in crate::shield) fn due(&self, rules: &Rules, entry: &Entry, now: Moment) -> Option<Due> {
        if entry.kind != Kind::Segment {
            return None;
        }
        let listing = self.listing(entry);
        let reckoned = listing.iter().find_map(|watch| {
            let at = watch
                .lanes()
                .available_at(rules, &watch.entry, entry, now.wall)?;
            let due_in = at.duration_since(now.wall).unwrap_or_default();
            Some(Due::Reckoned(due_in, Arc::clone(watch)))
        });
        // Of an MPD the times are known, whichever version lists what.
        let playlists = listing.iter().filter(|watch| watch.entry.kind == Kind::Hls);
        let versions = playlists.filter_map(|watch| watch.next_version(now.mono));
        reckoned.or_else(|| versions.min().map(Due::Listed))
    }
}
