//! Playback of LL-HLS: requests the next version of the playlist as soon as it has one (blocking
//! reload), and each part as soon as it is listed or hinted.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch::{self, Receiver, Sender};

use super::{Player, resolve};
use crate::place::Resource;
use seawall_manifest::low_latency::ReloadDirectives;
use seawall_manifest::{Listing, PlaylistEdge};

/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Number of recent parts that it remembers, to request each once.
const FETCHED_MAX: usize = 64;

pub(super) async fn watch(player: &Player) {
    let (news, newest) = watch::channel(Listing::default());
    tokio::join!(playlists(player, news), parts(player, newest));
}

async fn playlists(player: &Player, news: Sender<Listing>) {
    let mut line = player.connection();
    let entry = Resource::Multivariant(player.packaging);
    player.fetch(&mut line, entry, "").await;
    let playlist = Resource::Playlist(player.packaging, player.rendition);
    let mut edge = None;
    loop {
        let query = edge.as_ref().map(next_query).unwrap_or_default();
        let seen = player.fetch(&mut line, playlist, &query).await;
        if let Some(read) = seen.and_then(|seen| seen.manifest) {
            edge = read.info.playlist_edge().cloned();
            news.send_replace(read.listing);
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

async fn parts(player: &Player, mut newest: Receiver<Listing>) {
    let mut line = player.connection();
    let init = Resource::Init(player.packaging, player.rendition);
    player.fetch(&mut line, init, "").await;
    let playlist = Resource::Playlist(player.packaging, player.rendition);
    let mut had = VecDeque::new();
    while newest.changed().await.is_ok() {
        let listing = newest.borrow_and_update().clone();
        let wanted = listing.parts.iter().chain(&listing.preload_hints);
        // Parts with byte ranges arrive as part of their growing segment.
        let whole = wanted.filter(|listed| listed.range.is_none());
        for place in whole.filter_map(|listed| resolve(playlist, &listed.uri)) {
            if had.contains(&place) || player.fetch(&mut line, place, "").await.is_none() {
                continue;
            }
            had.push_back(place);
            if had.len() > FETCHED_MAX {
                had.pop_front();
            }
        }
    }
}
