//! Tests with playlists as packagers write them, each with the expected result:
//! `tests/fixtures/hls/NAME.m3u8` and `NAME.facts`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::read;
use crate::low_latency::delta;
use crate::{
    Kind, ListedResource, Manifest, ManifestInfo, PlaylistEdge, ServerControl, read_manifest,
};

fn playlists() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hls");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut playlists: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|it| it == "m3u8"))
        .collect();
    playlists.sort();
    playlists
}

/// The format of the `.facts` files: absent values have no line.
fn summary(Manifest { info, listing }: &Manifest) -> String {
    let ManifestInfo::Hls(playlist) = info else {
        panic!("a playlist is HLS");
    };
    let mut text = format!("{:?}\n", playlist.liveness);
    let durations = [
        ("target duration", playlist.target_duration),
        ("part target", playlist.part_target),
        ("segments of", playlist.segment_duration),
    ];
    for (name, duration) in durations {
        if let Some(duration) = duration {
            writeln!(text, "{name} {duration:?}").unwrap();
        }
    }
    if playlist.is_multivariant {
        text += "multivariant\n";
    }
    if let Some(edge) = &playlist.edge {
        tell_edge(&mut text, edge);
    }
    tell_control(&mut text, playlist.server_control);
    for rendition in &listing.renditions {
        writeln!(text, "rendition {rendition}").unwrap();
    }
    let lists = [
        ("init", &listing.inits),
        ("segment", &listing.segments),
        ("part", &listing.parts),
        ("coming", &listing.preload_hints),
    ];
    for (name, list) in lists {
        for listed in list {
            tell_listed(&mut text, name, listed);
        }
    }
    text
}

fn tell_edge(text: &mut String, edge: &PlaylistEdge) {
    writeln!(
        text,
        "from {} to {}",
        edge.media_sequence, edge.last_sequence
    )
    .unwrap();
    writeln!(
        text,
        "parts {}, then {}",
        edge.last_segment_parts, edge.next_segment_parts
    )
    .unwrap();
    writeln!(text, "discontinuity {}", edge.discontinuity_sequence).unwrap();
    let mut names = edge.name_fingerprints.to_vec();
    names.dedup();
    writeln!(
        text,
        "names {}, {} in a row differ",
        edge.name_fingerprints.len(),
        names.len()
    )
    .unwrap();
    if let Some(ends) = edge.end_time {
        let since = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        writeln!(text, "ends {}.{:09}", since.as_secs(), since.subsec_nanos()).unwrap();
    }
}

fn tell_control(text: &mut String, control: ServerControl) {
    if control.can_block_reload {
        *text += "can block\n";
    }
    if let Some(until) = control.can_skip_until {
        writeln!(text, "can skip until {until:?}").unwrap();
    }
}

fn tell_listed(text: &mut String, name: &str, listed: &ListedResource) {
    write!(text, "{name} {} {}", listed.position, listed.uri).unwrap();
    match listed.range {
        None => text.push('\n'),
        Some((start, None)) => writeln!(text, " from {start}").unwrap(),
        Some((start, Some(length))) => writeln!(text, " {length}@{start}").unwrap(),
    }
}

#[test]
fn fixtures_match_their_facts_files() {
    let playlists = playlists();
    assert!(playlists.len() > 10);
    let mut others = String::new();
    for path in playlists {
        let manifest = read_manifest(Kind::Hls, &fs::read(&path).unwrap()).unwrap();
        let expected = fs::read_to_string(path.with_extension("facts")).unwrap_or_default();
        let summary = summary(&manifest);
        if summary != expected {
            writeln!(others, "{} says:\n{summary}", path.display()).unwrap();
        }
    }
    assert!(others.is_empty(), "{others}");
}

#[test]
fn live_edge_end_follows_program_date_time() {
    let path = playlists()
        .into_iter()
        .find(|path| path.ends_with("ffmpeg_fmp4.m3u8"));
    let manifest = read(&fs::read_to_string(path.unwrap()).unwrap()).unwrap();
    let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_255_260_460);
    assert_eq!(manifest.info.end_time(), Some(expected));
}

proptest! {
    #[test]
    fn mutated_fixture_does_not_panic(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        width in 0_usize..40, new in proptest::collection::vec(any::<u8>(), 0..9),
        tag in "(#EXT(INF|-X-(PART|MAP|SKIP|BYTERANGE|PRELOAD-HINT|MEDIA-SEQUENCE)):)?[0-9@]{0,20}",
    ) {
        let playlists = playlists();
        let mut body = fs::read(which.get(&playlists)).unwrap();
        let at = at.index(body.len());
        let end = (at + width).min(body.len());
        body.splice(at..end, tag.bytes().chain(new));
        let _ = read_manifest(Kind::Hls, &body);
        let _ = delta(&String::from_utf8_lossy(&body));
    }

    #[test]
    fn truncated_playlist_never_looks_ended(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
    ) {
        let text = fs::read_to_string(which.get(&playlists())).unwrap();
        let whole = read(&text).unwrap().info;
        let at = at.index(text.len());
        prop_assume!(text.is_char_boundary(at));
        if let Ok(cut) = read(&text[..at]) {
            let last = |info: &ManifestInfo| info.playlist_edge().map(|edge| edge.last_sequence);
            prop_assert!(cut.info.liveness() == whole.liveness() || text[at..].contains("ENDLIST")
                || text[at..].contains("VOD"));
            prop_assert!(last(&cut.info) <= last(&whole));
        }
    }
}
