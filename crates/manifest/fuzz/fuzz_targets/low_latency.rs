//! Delivery directives are the same after writing and reading, and a delta update reaches as far as
//! its playlist.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_manifest::low_latency::{ReloadDirectives, delta};
use seawall_manifest::{Kind, PlaylistEdge, read_manifest};

fuzz_target!(|text: &str| {
    let (query, playlist) = text.split_once('\n').unwrap_or((text, ""));
    let directives = ReloadDirectives::of(query);
    if let Ok(directives) = directives {
        assert_eq!(ReloadDirectives::of(&directives.canonical()), Ok(directives));
    }
    let Ok(whole) = read_manifest(Kind::Hls, playlist.as_bytes()) else {
        let _ = delta(playlist);
        return;
    };
    if let (Ok(directives), Some(edge)) = (directives, whole.info.playlist_edge()) {
        let msn = directives.msn.unwrap_or(edge.last_sequence);
        // A playlist that has a segment has the one before it.
        let has = edge.has(msn, directives.part);
        assert!(!has || msn == 0 || edge.has(msn - 1, None));
    }
    let Some(update) = delta(playlist) else {
        return;
    };
    let read = read_manifest(Kind::Hls, update.as_bytes()).expect("an update is a playlist");
    assert_eq!(
        read.info.playlist_edge().map(extent),
        whole.info.playlist_edge().map(extent)
    );
    assert_eq!(delta(&update), None);
});

/// What a delta update and its whole playlist have in common.
fn extent(edge: &PlaylistEdge) -> (u64, u64, u64, u64) {
    (
        edge.media_sequence,
        edge.last_sequence,
        edge.last_segment_parts,
        edge.next_segment_parts,
    )
}
