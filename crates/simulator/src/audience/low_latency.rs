//! Playback of LL-HLS: requests the next version of the playlist as soon as it has one (blocking
//! reload), and each part as soon as it is listed or hinted.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch::{self, Receiver, Sender};

use super::{Player, resolve};
use crate::resource::Resource;
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_manifest::{Listing, PlaylistEdge};

/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Number of recent parts that it remembers, to request each once.
const FETCHED_MAX: usize = 64;

pub(super) async fn watch(player: &Player) {
    let (listings, latest) = watch::channel(Listing::default());
    tokio::join!(playlists(player, listings), parts(player, latest));
}

async fn playlists(player: &Player, listings: Sender<Listing>) {
    let mut connection = player.connection();
    let entry = Resource::Multivariant(player.packaging);
    player.fetch(&mut connection, entry, "").await;
    let playlist = Resource::Playlist(player.packaging, player.rendition);
    let mut edge = None;
    loop {
        let query = edge.as_ref().map(next_query).unwrap_or_default();
        let fetch = player.fetch(&mut connection, playlist, &query).await;
        if let Some(manifest) = fetch.and_then(|fetch| fetch.manifest) {
            edge = manifest.info.playlist_edge().cloned();
            listings.send_replace(manifest.listing);
        } else {
            // The known position may be from before a restart.
            edge = None;
            player
                .clock
                .wait_until(player.clock.now() + RETRY_PAUSE)
                .await;
        }
    }
}

/// The query for the first version after this one.
fn next_query(edge: &PlaylistEdge) -> String {
    let next = ReloadDirectives {
        msn: Some(edge.last_sequence + 1),
        part: Some(edge.next_segment_parts),
        skip: None,
    };
    format!("?{}", next.canonical())
}

async fn parts(player: &Player, mut latest: Receiver<Listing>) {
    let mut connection = player.connection();
    let init = Resource::Init(player.packaging, player.rendition);
    player.fetch(&mut connection, init, "").await;
    let playlist = Resource::Playlist(player.packaging, player.rendition);
    let mut fetched = VecDeque::new();
    while latest.changed().await.is_ok() {
        let listing = latest.borrow_and_update().clone();
        let listed_parts = listing.parts.iter().chain(&listing.preload_hints);
        // Parts with byte ranges arrive as part of their growing segment.
        let separate_parts = listed_parts.filter(|listed| listed.range.is_none());
        for resource in separate_parts.filter_map(|listed| resolve(playlist, &listed.uri)) {
            if fetched.contains(&resource)
                || player.fetch(&mut connection, resource, "").await.is_none()
            {
                continue;
            }
            fetched.push_back(resource);
            if fetched.len() > FETCHED_MAX {
                fetched.pop_front();
            }
        }
    }
}
