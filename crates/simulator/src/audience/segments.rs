//! Playback of whole segments. HLS: reloads the playlist after a target duration, or after half of
//! one if it did not change (RFC 8216 §6.3.4). DASH: reloads the MPD after its update period, and
//! meanwhile requests segments when they become available.

use std::time::{Duration, SystemTime};

use super::connection::PlayerConnection;
use super::{Player, resolve};
use crate::resource::{Packaging, Resource};
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
    has_init: bool,
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
        let requested_at = player.clock.now();
        let fetch = player.fetch(&mut manifests, manifest, "").await;
        let Some(parsed) = fetch.and_then(|fetch| fetch.manifest) else {
            player.clock.wait_until(requested_at + RETRY_PAUSE).await;
            continue;
        };
        if !progress.has_init && player.packaging != Packaging::Ts {
            progress.has_init = true;
            let init = Resource::Init(player.packaging, player.rendition);
            player.fetch(&mut media, init, "").await;
        }
        let next_reload = requested_at + progress.reload_interval(&parsed);
        progress
            .catch_up(player, &mut media, manifest, &parsed)
            .await;
        while let Some(next) = next_by_clock(player, &parsed, next_reload) {
            player.clock.wait_until(next).await;
            progress
                .catch_up(player, &mut media, manifest, &parsed)
                .await;
        }
        player.clock.wait_until(next_reload).await;
    }
}

impl PlayerProgress {
    /// The time until the next reload.
    fn reload_interval(&mut self, manifest: &Manifest) -> Duration {
        let info = &manifest.info;
        let end = match info {
            ManifestInfo::Hls(playlist) => playlist.edge.as_ref().map(|edge| edge.last_sequence),
            ManifestInfo::Dash(mpd) => mpd.edge.as_ref().map(|edge| edge.end_ms),
        };
        if end < self.end {
            // The packager restarted: the player starts again.
            self.last = None;
        }
        let changed = end != std::mem::replace(&mut self.end, end);
        let pause = info
            .stated_reload_interval()
            .or(info.segment_duration())
            .unwrap_or(RETRY_PAUSE);
        if info.playlist_edge().is_some() && !changed {
            pause / 2
        } else {
            pause
        }
    }

    /// Requests the segments that are available and were not requested yet.
    async fn catch_up(
        &mut self,
        player: &Player,
        connection: &mut PlayerConnection,
        resource: Resource,
        parsed: &Manifest,
    ) {
        let available = available_segments(player, resource, parsed);
        let from = match self.last {
            Some(last) => available.iter().position(|(name, _)| *name > last),
            None => Some(available.len().saturating_sub(START_BEHIND)),
        };
        for (name, segment) in available.into_iter().skip(from.unwrap_or(usize::MAX)) {
            if player.fetch(connection, segment, "").await.is_none() {
                return;
            }
            self.last = Some(name);
        }
    }
}

/// When the next segment becomes available without a new manifest, if that is before `deadline`.
fn next_by_clock(player: &Player, parsed: &Manifest, deadline: Utc) -> Option<Utc> {
    let now = player.clock.now();
    let template = clock_template(player, parsed)?;
    let next = template.available_at(template.next(system_time(now))?)?;
    let next = next.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (next > now && next < deadline).then_some(next)
}

/// The available segments of the player's rendition, in order.
fn available_segments(
    player: &Player,
    manifest: Resource,
    parsed: &Manifest,
) -> Vec<(u64, Resource)> {
    if let Some(template) = clock_template(player, parsed) {
        let newest = template.newest(system_time(player.clock.now()));
        let first = newest.map_or(0, |newest| newest.saturating_sub(START_BEHIND as u64));
        let numbers = newest.map(|newest| first..=newest).into_iter().flatten();
        return numbers
            .map(|number| {
                let resource = Resource::Segment(player.packaging, player.rendition, number);
                (number, resource)
            })
            .collect();
    }
    let listed = parsed.listing.segments.iter();
    let places = listed.filter_map(|listed| resolve(manifest, &listed.uri));
    let of_rendition = places.filter(|resource| resource.rendition() == Some(player.rendition));
    of_rendition
        .filter_map(|resource| match resource {
            Resource::Segment(_, _, name) => Some((name, resource)),
            _ => None,
        })
        .collect()
}

fn clock_template<'a>(player: &Player, parsed: &'a Manifest) -> Option<&'a SegmentNaming> {
    let templates = parsed.listing.templates.iter();
    let mut by_clock = templates.filter(|template| template.is_by_clock());
    by_clock.find(|template| template.name(0).starts_with(player.rendition.name()))
}

fn system_time(now: Utc) -> SystemTime {
    SystemTime::UNIX_EPOCH + now
}
