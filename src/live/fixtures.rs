//! What the unit tests of `live` share: one route for everything, requests, and manifests.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::version_effects::VersionEffects;
use super::{LiveStreams, ManifestTracker, ManifestVersion, Variant};
use seawall_manifest::{Kind, Manifest, read_manifest};
use seawall_policy::access::CacheRequest;
use seawall_policy::progress::Progress;
use seawall_policy::{Now, Route, Rules};

pub(super) fn rules() -> Rules {
    Rules {
        routes: vec![Arc::new(Route::everything("main"))],
        name: "seawall".into(),
        trusted_proxies: seawall_policy::TrustedProxies::default(),
        client_classes: seawall_policy::ClientClasses::default(),
    }
}

pub(super) fn request(uri: &str) -> CacheRequest {
    CacheRequest::asked(&rules(), "a", Box::leak(uri.to_owned().into_boxed_str()))
}

/// A playlist of these lines, with a target duration of 4 s.
pub(super) fn playlist(lines: &str) -> Manifest {
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{lines}");
    read_manifest(Kind::Hls, text.as_bytes()).unwrap()
}

/// A playlist of one segment with this number.
pub(super) fn one_segment(number: usize) -> Manifest {
    playlist(&format!(
        "#EXT-X-MEDIA-SEQUENCE:{number}\n#EXTINF:4,\n{number}.ts\n"
    ))
}

/// Both clocks at this instant; the wall clock is at zero.
pub(super) fn at(now: Instant) -> Now {
    Now {
        mono: now,
        wall: SystemTime::UNIX_EPOCH,
    }
}

pub(super) fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A version that became the newest at `current_at`.
pub(super) fn version<'a>(
    request: &'a CacheRequest,
    manifest: &'a Manifest,
    progress: Progress,
    current_at: Instant,
) -> ManifestVersion<'a> {
    ManifestVersion {
        request,
        manifest,
        variant: Variant::default(),
        progress,
        current_at,
        may_be_from_blocking_request: false,
    }
}

/// Records the next version of a manifest. Returns its tracker, how it relates to the version
/// before, and what it changes.
pub(super) fn publish(
    live: &LiveStreams,
    uri: &str,
    manifest: &Manifest,
    now: Instant,
) -> (Arc<ManifestTracker>, Progress, VersionEffects) {
    let request = request(uri);
    let tracker = live
        .tracker_or_new(&request, 1, &manifest.info, now)
        .unwrap();
    let progress = tracker.progress_of(Variant::default(), &manifest.info, now);
    let version = version(&request, manifest, progress, now);
    let effects = live.record_version(&rules(), Some(&tracker), &version, at(now));
    (tracker, progress, effects)
}
