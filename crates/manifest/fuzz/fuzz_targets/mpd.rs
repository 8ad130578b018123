//! Parses any MPD, and calls every function of its segment names.

#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use seawall_manifest::{EACH_MIN, Kind, LISTED_MAX, read_manifest};

fuzz_target!(|body: &[u8]| {
    let Ok(manifest) = read_manifest(Kind::Dash, body) else {
        return;
    };
    assert!(manifest.listing.segments.len() <= LISTED_MAX * EACH_MIN);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200);
    for template in &manifest.listing.templates {
        let values = [
            template.newest(now),
            template.next(now),
            Some(0),
            Some(u64::MAX),
        ];
        for value in values.into_iter().flatten() {
            let _ = (
                template.available_at(value),
                template.number_of(&template.name(value)),
            );
        }
    }
});
