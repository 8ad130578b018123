//! When are the segments of an MPD there, and which of its representations does anybody watch? An
//! MPD lists all of them in one, and names segments by number that no version of it announces.

use std::time::{Duration, SystemTime};

use crate::media::{Listed, Listing, Template};
use crate::policy::access::Entry;
use crate::policy::{Key, Rules};

/// Players stay a few segments behind the newest: who watches has asked for one of so many before
/// it.
const BEFORE_MAX: u64 = 6;

/// Something new, and what shows that anybody wants it.
pub(in crate::shield) struct Coming {
    pub(in crate::shield) entry: Entry,
    pub(in crate::shield) wanted: Wanted,
}

impl Coming {
    pub(super) fn surely(entry: Entry) -> Coming {
        let wanted = Wanted::Surely;
        Coming { entry, wanted }
    }
}

/// Does anybody want what is new?
pub(in crate::shield) enum Wanted {
    /// It is of the one rendition that its playlist is for, and the playlist is watched.
    Surely,
    /// If a viewer asked for one of these, which came before it.
    AfterAny(Vec<Entry>),
}

/// The representations of an MPD, as far as their segments have names to reckon with.
#[derive(Default)]
pub(super) struct Lanes {
    templates: Vec<Template>,
}

impl Lanes {
    pub(super) fn of(listing: &Listing) -> Lanes {
        Lanes {
            templates: listing.templates.clone(),
        }
    }

    /// A name of each, to tell where they lie.
    pub(super) fn examples(&self) -> impl Iterator<Item = String> {
        self.templates.iter().map(|template| template.name(1))
    }

    /// When something is to be had that the MPD at `mpd` names and does not list. What a timeline
    /// lists is there, whatever the clock says: many a packager's is a little off.
    pub(super) fn available_at(
        &self,
        rules: &Rules,
        mpd: &Entry,
        entry: &Entry,
        now: SystemTime,
    ) -> Option<SystemTime> {
        self.templates.iter().find_map(|template| {
            let value = template.number_of(entry.target.path())?;
            let named = mpd.sibling(rules, &template.name(value))?;
            let newest = template.newest(now).filter(|_| !template.is_by_clock());
            let is_listed = newest.is_some_and(|newest| value <= newest);
            // Names of other representations may end alike.
            let is_named = named.spot() == entry.spot();
            (is_named && !is_listed).then(|| template.available_at(value))?
        })
    }

    /// What is new in a listing, with those before it in the same representation.
    pub(super) fn listed(
        &self,
        rules: &Rules,
        mpd: &Entry,
        listing: &Listing,
        is_new: impl Fn(&Key) -> bool,
    ) -> Vec<Coming> {
        let mut coming = Vec::new();
        for template in &self.templates {
            let own = |listed: &&Listed| template.number_of(&listed.uri).is_some();
            let own = listing.segments.iter().filter(own);
            let own: Vec<Entry> = own
                .filter_map(|listed| mpd.sibling(rules, &listed.uri))
                .collect();
            for (at, entry) in own.iter().enumerate() {
                if is_new(&entry.key) {
                    let before = own[..at].iter().rev().filter(|other| !is_new(&other.key));
                    coming.push(Coming {
                        entry: entry.clone(),
                        wanted: Wanted::AfterAny(before.cloned().collect()),
                    });
                }
            }
        }
        coming
    }

    /// The newest segment of each representation whose clock says that it is there, with those
    /// before it.
    pub(super) fn newest(&self, rules: &Rules, mpd: &Entry, now: SystemTime) -> Vec<Coming> {
        let by_clock = self.by_clock(now);
        by_clock
            .filter_map(|(template, newest)| {
                let named = |value| mpd.sibling(rules, &template.name(value));
                let before =
                    (1..=BEFORE_MAX).filter_map(|back| named(template.before(newest, back)?));
                Some(Coming {
                    entry: named(newest)?,
                    wanted: Wanted::AfterAny(before.collect()),
                })
            })
            .collect()
    }

    /// When to look what is newest: when the next one is there, and twice after it, as packagers
    /// are late.
    pub(super) fn next_look(&self, now: SystemTime) -> Option<SystemTime> {
        /// A clock need not be read more often.
        const WAIT_MIN: Duration = Duration::from_millis(20);
        let looks = self.by_clock(now).flat_map(|(template, newest)| {
            let step = template.step();
            let there = template.available_at(newest);
            let late = [step / 20, step / 5].map(|late| there?.checked_add(late));
            let next = template
                .next(now)
                .and_then(|next| template.available_at(next));
            late.into_iter().chain([next]).flatten()
        });
        looks
            .filter(|look| *look > now)
            .min()
            .map(|look| look.max(now + WAIT_MIN))
    }

    fn by_clock(&self, now: SystemTime) -> impl Iterator<Item = (&Template, u64)> {
        let templates = self
            .templates
            .iter()
            .filter(|template| template.is_by_clock());
        templates.filter_map(move |template| Some((template, template.newest(now)?)))
    }
}
