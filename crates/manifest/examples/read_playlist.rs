//! Prints what an HLS playlist says.
//!
//! ```sh
//! cargo run --example read_playlist tests/fixtures/hls/unified_live.m3u8
//! curl -s https://example.com/live/index.m3u8 | cargo run --example read_playlist
//! ```

use std::error::Error;
use std::io::Read;

use seawall_manifest::{Kind, ListedResource, ManifestInfo, PlaylistInfo, read_manifest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut body = Vec::new();
    match std::env::args().nth(1) {
        Some(path) => body = std::fs::read(path)?,
        None => _ = std::io::stdin().read_to_end(&mut body)?,
    }
    let manifest = read_manifest(Kind::Hls, &body)?;
    if let ManifestInfo::Hls(playlist) = &manifest.info {
        print_playlist(playlist);
    }
    for name in &manifest.listing.renditions {
        println!("rendition        {name}");
    }
    print_list("initialization", &manifest.listing.inits);
    print_list("segment", &manifest.listing.segments);
    print_list("part of", &manifest.listing.parts);
    print_list("hint", &manifest.listing.preload_hints);
    Ok(())
}

fn print_playlist(playlist: &PlaylistInfo) {
    println!("liveness         {:?}", playlist.liveness);
    if playlist.is_multivariant {
        println!("multivariant     lists renditions");
    }
    for (name, duration) in [
        ("target duration ", playlist.target_duration),
        ("part target     ", playlist.part_target),
        ("segment duration", playlist.segment_duration),
    ] {
        if let Some(duration) = duration {
            println!("{name} {duration:?}");
        }
    }
    if playlist.server_control.can_block_reload {
        println!("server           blocks reloads");
    }
    if let Some(edge) = &playlist.edge {
        let (first, last) = (edge.media_sequence, edge.last_sequence);
        let parts = edge.next_segment_parts;
        println!("segments         {first} to {last}, and {parts} parts");
    }
}

fn print_list(what: &str, listed: &[ListedResource]) {
    for ListedResource {
        position,
        uri,
        range,
        ..
    } in listed
    {
        print!("{what:<16} {position} {uri}");
        match range {
            Some((start, Some(length))) => println!(" (bytes {length}@{start})"),
            Some((start, None)) => println!(" (bytes from {start})"),
            None => println!(),
        }
    }
}
