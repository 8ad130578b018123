//! Writes the shield's explanation of a URL as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::proxy::{Explanation, StoredObject, TrackedManifest};
use seawall_manifest::{ManifestInfo, MpdEdge, PlaylistEdge};
use seawall_policy::freshness::Freshness;

/// The body of `/explain`. Fields that do not apply are left out.
pub fn explanation(explanation: &Explanation) -> Value {
    let request = &explanation.request;
    let host = request.sent_host().and_then(|host| host.to_str().ok());
    let info = explanation
        .stored
        .as_ref()
        .and_then(|held| held.object.head.manifest_info.as_deref());
    without_nulls(json!({
        "route": &*request.route.name,
        "kind": explanation.kind.as_str(),
        "key": format!("{:016x}", request.key.fingerprint()),
        "target": request.target.as_str(),
        "host": host,
        "origin": &*request.route.origin,
        "endpoint": explanation.endpoint.as_deref(),
        "varies": explanation.varies.then_some(true),
        "held": explanation.stored.as_ref().map(stored_object),
        "manifest": info.map(manifest),
        "followed": explanation.tracked.as_ref().map(tracked_manifest),
        "known": explanation.memo,
        "due_in_seconds": seconds(explanation.due_in),
        "varying_parameters": Some(&explanation.varying_parameters).filter(|names| !names.is_empty()),
    }))
}

fn stored_object(held: &StoredObject) -> Value {
    let StoredObject {
        object,
        age,
        freshness,
        refreshed_max_age,
    } = held;
    let lifetime = &object.head.lifetime;
    let refreshed_max_age = Some(*refreshed_max_age).filter(|_| object.head.kind.is_manifest());
    without_nulls(json!({
        "status": object.head.status.as_u16(),
        "bytes": object.body.len(),
        "state": match freshness {
            Freshness::Fresh => "fresh",
            Freshness::Stale => "stale, served while it is refreshed",
            Freshness::IfError => "stale, served if the origin fails",
            Freshness::Unusable => "too old to be served",
        },
        "age_seconds": seconds(Some(*age)),
        "fresh_for_seconds": seconds(Some(lifetime.fresh_for)),
        "because": lifetime.rule.as_str(),
        "stale_while_revalidate_seconds": seconds(Some(lifetime.stale_while_revalidate)),
        "stale_if_error_seconds": seconds(Some(lifetime.stale_if_error)),
        "refreshed_until_age_seconds": seconds(refreshed_max_age),
    }))
}

fn manifest(info: &ManifestInfo) -> Value {
    let time = |time: Option<std::time::SystemTime>| time.map(httpdate::fmt_http_date);
    let (edge, publish_time) = match info {
        ManifestInfo::Hls(playlist) => (playlist.edge.as_ref().map(playlist_edge), None),
        ManifestInfo::Dash(mpd) => (mpd.edge.as_ref().map(mpd_edge), mpd.publish_time),
    };
    without_nulls(json!({
        "is_live": info.is_live(),
        "is_multivariant": info.is_multivariant().then_some(true),
        "period_seconds": seconds(info.stated_reload_interval()),
        "part_seconds": seconds(info.part_target()),
        "segment_seconds": seconds(info.segment_duration()),
        "published": time(publish_time),
        "edge": edge,
        "ends": time(info.end_time()),
    }))
}

/// The numbers of the first and last segment, and of the parts after it.
fn playlist_edge(edge: &PlaylistEdge) -> Value {
    let (first, last) = (edge.media_sequence, edge.last_sequence);
    json!({ "first": first, "last": last, "parts": edge.next_segment_parts })
}

/// Start and end of the listed segments on the media timeline.
fn mpd_edge(edge: &MpdEdge) -> Value {
    let at = |millis| seconds(Some(Duration::from_millis(millis)));
    json!({ "from_seconds": at(edge.start_ms), "to_seconds": at(edge.end_ms) })
}

fn tracked_manifest(followed: &TrackedManifest) -> Value {
    without_nulls(json!({
        "stream": &*followed.stream,
        "is_refreshed": followed.is_refreshed,
        "is_stalled": followed.is_stalled,
        "idle_seconds": seconds(followed.idle_for),
        "next_poll_in_seconds": seconds(followed.next_poll_in),
    }))
}

/// Rounded to milliseconds.
fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| (duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    value
}
