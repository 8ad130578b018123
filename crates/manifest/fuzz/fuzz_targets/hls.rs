//! Parses any playlist: its lists are bounded and in order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_manifest::{
    Kind, LISTED_MAX, ListedResource, NAMES_MAX, RENDITIONS_MAX, read_manifest,
};

fuzz_target!(|body: &[u8]| {
    let Ok(read) = read_manifest(Kind::Hls, body) else {
        return;
    };
    let listing = &read.listing;
    assert!(listing.renditions.len() <= RENDITIONS_MAX);
    for list in [
        &listing.inits,
        &listing.segments,
        &listing.parts,
        &listing.preload_hints,
    ] {
        assert!(list.len() <= LISTED_MAX);
        assert!(list.is_sorted_by_key(|listed: &ListedResource| listed.position));
        assert!(list.iter().all(|listed| !listed.uri.is_empty()));
    }
    if let Some(edge) = read.info.playlist_edge() {
        assert!(edge.name_fingerprints.len() <= NAMES_MAX);
        assert!(edge.media_sequence <= edge.last_sequence.saturating_add(1));
        let last = listing.segments.last();
        assert!(last.is_none_or(|last| last.position <= edge.last_sequence));
    }
    // The first half, truncated anywhere, has not ended unless it says so itself.
    let half = &body[..body.len() / 2];
    if let Ok(cut) = read_manifest(Kind::Hls, half) {
        let says = |word: &[u8]| half.windows(word.len()).any(|window| window == word);
        assert!(cut.info.is_live() || says(b"ENDLIST") || says(b"VOD"));
    }
});
