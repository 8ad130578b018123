//! A query's directives survive being written, and a delta update reaches as far as its playlist.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_manifest::low_latency::{ReloadDirectives, delta};
use seawall_manifest::{Kind, read_manifest};

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
    if let (Ok(directives), Some(edge)) = (directives, &whole.facts.edge) {
        let msn = directives.msn.unwrap_or(edge.last);
        // To have a segment is to have the one before it.
        let has = edge.has(msn, directives.part);
        assert!(!has || msn == 0 || edge.has(msn - 1, None));
    }
    let Some(update) = delta(playlist) else {
        return;
    };
    let told = read_manifest(Kind::Hls, update.as_bytes()).map(|read| read.facts);
    let (told, whole) = (told.expect("an update is a playlist"), whole.facts);
    let reach = |edge: &seawall_manifest::LiveEdge| (edge.first, edge.last, edge.last_parts, edge.parts);
    assert_eq!(
        told.edge.as_ref().map(reach),
        whole.edge.as_ref().map(reach)
    );
    assert_eq!(delta(&update), None);
});
