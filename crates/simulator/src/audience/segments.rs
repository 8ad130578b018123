//! Playback of whole segments. HLS: reloads the playlist after a target duration, or after half of
//! one if it did not change (RFC 8216 §6.3.4). DASH: reloads the MPD after its update period, and
//! meanwhile requests segments when they become available.

use std::time::{Duration, SystemTime};

use super::line::PlayerConnection;
use super::{Player, resolve};
use crate::place::{Packaging, Resource};
use crate::utc::Utc;
use seawall_manifest::{Manifest, ManifestInfo, SegmentNaming};

/// Playback starts this many segments before the end.
const START_BEHIND: usize = 3;

/// Reload interval without a duration in the manifest, and pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a player has requested so far.
#[derive(Default)]
struct PlayerProgress {
    /// The last segment, by the number or time in its name.
    last: Option<u64>,
    /// The end of the last manifest.
    end: Option<u64>,
    begun: bool,
}

pub(super) async fn watch(player: &Player) {
    let (mut manifests, mut media) = (player.connection(), player.connection());
    let manifest = if player.packaging.is_dash() {
        Resource::Mpd(player.packaging)
    } else {
        let entry = Resource::Multivariant(player.packaging);
        player.fetch(&mut manifests, entry, "").await;
        Resource::Playlist(player.packaging, player.rendition)
    };
    let mut progress = PlayerProgress::default();
    loop {
        let asked = player.clock.now();
        let seen = player.fetch(&mut manifests, manifest, "").await;
        let Some(read) = seen.and_then(|seen| seen.manifest) else {
            player.clock.wait_until(asked + RETRY_PAUSE).await;
            continue;
        };
        if !progress.begun && player.packaging != Packaging::Ts {
            progress.begun = true;
            let init = Resource::Init(player.packaging, player.rendition);
            player.fetch(&mut media, init, "").await;
        }
        let again = asked + progress.reload_interval(&read);
        progress.catch_up(player, &mut media, manifest, &read).await;
        while let Some(next) = next_by_clock(player, &read, again) {
            player.clock.wait_until(next).await;
            progress.catch_up(player, &mut media, manifest, &read).await;
        }
        player.clock.wait_until(again).await;
    }
}

impl PlayerProgress {
    /// The time until the next reload.
    fn reload_interval(&mut self, manifest: &Manifest) -> Duration {
        let facts = &manifest.info;
        let end = match facts {
            ManifestInfo::Hls(playlist) => playlist.edge.as_ref().map(|edge| edge.last_sequence),
            ManifestInfo::Dash(mpd) => mpd.edge.as_ref().map(|edge| edge.end_ms),
        };
        if end < self.end {
            // The packager restarted: the player starts again.
            self.last = None;
        }
        let changed = end != std::mem::replace(&mut self.end, end);
        let pause = facts
            .reload_interval()
            .or(facts.segment_duration())
            .unwrap_or(RETRY_PAUSE);
        if facts.playlist_edge().is_some() && !changed {
            pause / 2
        } else {
            pause
        }
    }

    /// Requests the segments that are available and were not requested yet.
    async fn catch_up(
        &mut self,
        player: &Player,
        line: &mut PlayerConnection,
        place: Resource,
        read: &Manifest,
    ) {
        let there = available_segments(player, place, read);
        let from = match self.last {
            Some(last) => there.iter().position(|(name, _)| *name > last),
            None => Some(there.len().saturating_sub(START_BEHIND)),
        };
        for (name, segment) in there.into_iter().skip(from.unwrap_or(usize::MAX)) {
            if player.fetch(line, segment, "").await.is_none() {
                return;
            }
            self.last = Some(name);
        }
    }
}

/// When the next segment becomes available without a new manifest, if that is before `before`.
fn next_by_clock(player: &Player, read: &Manifest, before: Utc) -> Option<Utc> {
    let now = player.clock.now();
    let template = clock_template(player, read)?;
    let next = template.available_at(template.next(system_time(now))?)?;
    let next = next.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (next > now && next < before).then_some(next)
}

/// The available segments of the player's rendition, in order.
fn available_segments(
    player: &Player,
    manifest: Resource,
    read: &Manifest,
) -> Vec<(u64, Resource)> {
    if let Some(template) = clock_template(player, read) {
        let newest = template.newest(system_time(player.clock.now()));
        let first = newest.map_or(0, |newest| newest.saturating_sub(START_BEHIND as u64));
        let numbers = newest.map(|newest| first..=newest).into_iter().flatten();
        return numbers
            .map(|number| {
                let place = Resource::Segment(player.packaging, player.rendition, number);
                (number, place)
            })
            .collect();
    }
    let listed = read.listing.segments.iter();
    let places = listed.filter_map(|listed| resolve(manifest, &listed.uri));
    let own = places.filter(|place| place.rendition() == Some(player.rendition));
    own.filter_map(|place| match place {
        Resource::Segment(_, _, name) => Some((name, place)),
        _ => None,
    })
    .collect()
}

fn clock_template<'a>(player: &Player, read: &'a Manifest) -> Option<&'a SegmentNaming> {
    let templates = read.listing.templates.iter();
    let mut by_clock = templates.filter(|template| template.is_by_clock());
    by_clock.find(|template| template.name(0).starts_with(player.rendition.name()))
}

fn system_time(now: Utc) -> SystemTime {
    SystemTime::UNIX_EPOCH + now
}
