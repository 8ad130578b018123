//! Lists what a manifest names, for one request of an operator: all its lists together have a
//! bound, and few requests have lists at once.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use crate::proxy::{Shield, coding};
use seawall_manifest::{Kind, ObjectRole, each_object};
use seawall_policy::access::CacheRequest;

/// Names of one manifest that are looked at, at most: a few bytes of text can name any number.
const NAMES_MAX: u64 = 200_000;

/// Of all lists of one request together, in bytes of JSON: each name may be as long as the base URL
/// of its manifest.
const LIST_BYTES_MAX: usize = 32 << 20;

/// What a name takes in JSON besides itself.
const NAME_OVERHEAD: usize = 40;

/// One request of an operator, which may name several objects.
#[derive(Debug)]
pub struct WarmBatch {
    /// When it is answered at the latest.
    pub deadline: Instant,
    lists: Mutex<ListRoom>,
    /// Bytes of slices that it may still request.
    bytes_left: AtomicU64,
}

/// Room for lists. They are made one after the other.
#[derive(Debug, Default)]
struct ListRoom {
    bytes_used: usize,
    /// Held from the first list to the end of the request.
    permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// The objects that a manifest names on its own host.
#[derive(Clone, Debug, Default)]
pub struct ListedObjects {
    /// In the order of the manifest.
    pub objects: Vec<WarmTarget>,
    /// Names on other hosts, or that no route takes.
    pub elsewhere: u64,
    /// It names more.
    pub has_more: bool,
    /// In JSON.
    bytes: usize,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct WarmTarget {
    /// What it is.
    pub role: ObjectRole,
    /// Its rendition's bits per second.
    pub bandwidth: Option<u64>,
    /// Its path and query.
    pub target: String,
    /// The track of its rendition.
    pub track: usize,
}

/// A manifest in memory, as the origin sent it.
pub(super) struct ManifestBody {
    pub(super) kind: Kind,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// How the list of a manifest ended.
pub(super) enum ListOutcome {
    Listed(ListedObjects),
    /// Its text cannot be decoded.
    Unreadable,
    /// There was no room for it, or no time.
    Busy,
}

impl WarmBatch {
    /// A request that is answered by the deadline, and requests no slice after this many bytes of
    /// them.
    pub fn until(deadline: Instant, bytes_max: u64) -> WarmBatch {
        WarmBatch {
            deadline,
            lists: Mutex::default(),
            bytes_left: AtomicU64::new(bytes_max),
        }
    }

    /// Admits a slice of this many bytes. The last one may have more than are left.
    pub(in crate::proxy) fn take_bytes(&self, bytes: u64) -> bool {
        let rest = |left: u64| (left > 0).then(|| left.saturating_sub(bytes));
        self.bytes_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest)
            .is_ok()
    }
}

impl Shield {
    /// What a manifest names.
    pub(super) async fn list(
        &self,
        request: &CacheRequest,
        manifest: ManifestBody,
        batch: &WarmBatch,
    ) -> ListOutcome {
        let deadline = batch.deadline;
        let listed = timeout_at(deadline.into(), self.list_in_turn(request, manifest, batch));
        listed.await.unwrap_or(ListOutcome::Busy)
    }

    async fn list_in_turn(
        &self,
        request: &CacheRequest,
        manifest: ManifestBody,
        batch: &WarmBatch,
    ) -> ListOutcome {
        let mut room = batch.lists.lock().await;
        if room.permit.is_none() {
            let permit = self.live.prefetch_limits.warm_list_permit().await;
            room.permit = permit.map(Arc::new);
        }
        let bytes_max = LIST_BYTES_MAX.saturating_sub(room.bytes_used);
        let text_max = self.settings.manifest_bytes_max;
        let (rules, request, deadline) = (self.rules.clone(), request.clone(), batch.deadline);
        let permit = room.permit.clone();
        // The text may have a million lines.
        let listed = spawn_blocking(move || {
            // It takes its memory until it ends, also if the operator has left by then.
            let _permit = permit;
            let ManifestBody {
                kind,
                headers,
                body,
            } = manifest;
            let Ok(Some(text)) = coding::decoded_text(&headers, &body, text_max) else {
                return ListOutcome::Unreadable;
            };
            let resolve = |name: &str| {
                let found = request.resolve_same_host(&rules, name)?;
                Some(found.target.to_string())
            };
            let listed = names_of(kind, &text, resolve, (bytes_max, deadline));
            listed.map_or(ListOutcome::Busy, ListOutcome::Listed)
        });
        match listed.await {
            // The next request begins with it.
            Ok(ListOutcome::Listed(listed)) if listed.has_more && room.bytes_used > 0 => {
                ListOutcome::Busy
            }
            Ok(ListOutcome::Listed(listed)) => {
                room.bytes_used += listed.bytes;
                ListOutcome::Listed(listed)
            }
            Ok(other) => other,
            Err(_) => ListOutcome::Unreadable,
        }
    }
}

/// Lists what a manifest names. `resolve` returns the target of a name of the same host. `None`:
/// the deadline has passed.
fn names_of(
    kind: Kind,
    text: &[u8],
    resolve: impl Fn(&str) -> Option<String>,
    (bytes_max, deadline): (usize, Instant),
) -> Option<ListedObjects> {
    let mut listed = ListedObjects::default();
    let (mut names, mut is_late) = (0, false);
    let _ = each_object(kind, text, SystemTime::now(), |named| {
        is_late = Instant::now() >= deadline;
        listed.has_more = names >= NAMES_MAX || listed.bytes >= bytes_max;
        if is_late || listed.has_more {
            return ControlFlow::Break(());
        }
        names += 1;
        if let Some(target) = resolve(named.uri) {
            listed.bytes += json_length(&target);
            listed.objects.push(WarmTarget {
                role: named.role,
                bandwidth: named.bandwidth,
                target,
                track: named.track,
            });
        } else {
            listed.bytes += named.uri.len();
            listed.elsewhere += 1;
        }
        ControlFlow::Continue(())
    });
    (!is_late).then_some(listed)
}

/// What a target takes in the answer.
fn json_length(target: &str) -> usize {
    let escaped = target.bytes().filter(|byte| matches!(byte, b'"' | b'\\'));
    NAME_OVERHEAD + target.len() + escaped.count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// An MPD of one line that names nearly 2^63 segments.
    fn endless(base: &str) -> String {
        format!(
            "<MPD type='static' mediaPresentationDuration='PT8S'><BaseURL>{base}</BaseURL><Period>\
             <AdaptationSet><SegmentTemplate media='$Number$.m4s'><SegmentTimeline>\
             <S t=\"0\" d=\"1\" r=\"9000000000000000000\"/></SegmentTimeline></SegmentTemplate>\
             <Representation id='a' bandwidth='1'/></AdaptationSet></Period></MPD>"
        )
    }

    fn later() -> (usize, Instant) {
        (LIST_BYTES_MAX, Instant::now() + Duration::from_hours(1))
    }

    #[test]
    fn names_of_other_hosts_count_against_the_limit() {
        let text = endless("https://elsewhere.test/");
        let listed = names_of(Kind::Dash, text.as_bytes(), |_| None, later()).unwrap();
        assert_eq!((listed.elsewhere, listed.has_more), (NAMES_MAX, true));
    }

    #[test]
    fn long_names_end_the_list_early() {
        let text = endless(&format!("/{}/", "x".repeat(1000)));
        let whole = |name: &str| Some(name.to_owned());
        let listed = names_of(Kind::Dash, text.as_bytes(), whole, later()).unwrap();
        let lengths = listed.objects.iter().map(|object| object.target.len());
        let bytes: usize = lengths.sum();
        assert!(listed.has_more && bytes <= LIST_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn list_ends_at_the_deadline() {
        let text = endless("/");
        let now = (LIST_BYTES_MAX, Instant::now());
        let listed = names_of(Kind::Dash, text.as_bytes(), |_| None, now);
        assert!(listed.is_none());
    }
}
