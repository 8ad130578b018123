//! Prints what a DASH MPD says, and which segments are available now.
//!
//! ```sh
//! cargo run --example read_mpd tests/fixtures/dash/unified_live.mpd
//! curl -s https://example.com/live.mpd | cargo run --example read_mpd
//! ```

use std::error::Error;
use std::io::Read;
use std::time::SystemTime;

use seawall_manifest::{Kind, ManifestInfo, MpdInfo, SegmentNaming, read_manifest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut body = Vec::new();
    match std::env::args().nth(1) {
        Some(path) => body = std::fs::read(path)?,
        None => _ = std::io::stdin().read_to_end(&mut body)?,
    }
    let manifest = read_manifest(Kind::Dash, &body)?;
    if let ManifestInfo::Dash(mpd) = &manifest.info {
        print_mpd(mpd);
    }
    for init in &manifest.listing.inits {
        println!("initialization   {}", init.uri);
    }
    for segment in &manifest.listing.segments {
        let end = segment.position;
        println!("segment          {} (ends at {end} ms)", segment.uri);
    }
    for naming in &manifest.listing.templates {
        print_segments(naming, SystemTime::now());
    }
    for time_server in &manifest.listing.time_servers {
        println!("time server      {time_server}");
    }
    Ok(())
}

fn print_mpd(mpd: &MpdInfo) {
    println!("liveness         {:?}", mpd.liveness);
    if mpd.is_patch {
        println!("patch            to another version");
    }
    for (name, duration) in [
        ("update period   ", mpd.update_period),
        ("segment duration", mpd.segment_duration),
    ] {
        if let Some(duration) = duration {
            println!("{name} {duration:?}");
        }
    }
    if let Some(edge) = &mpd.edge {
        let (start, end) = (edge.start_ms, edge.end_ms);
        println!("segments         from {start} ms to {end} ms");
    }
}

/// The newest segment of a representation, and when the next one is available.
fn print_segments(naming: &SegmentNaming, now: SystemTime) {
    if let Some(newest) = naming.newest(now) {
        println!("newest           {}", naming.name(newest));
    }
    if let Some(next) = naming.next(now) {
        let at = naming.available_at(next);
        let wait = at.and_then(|at| at.duration_since(now).ok());
        let name = naming.name(next);
        match wait {
            Some(wait) => println!("next             {name} in {wait:.1?}"),
            None => println!("next             {name}"),
        }
    }
}
