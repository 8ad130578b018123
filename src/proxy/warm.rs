//! Fetches one object ahead of viewers, because an operator wants it stored: at the priority of
//! prefetches, and only while the origin, the memory of fills and a limit have room. What a
//! manifest names is listed for the caller, who decides what to fetch next.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout_at};

use super::fill::FillTrigger;
use super::{Shield, coding};
use crate::live::{PrefetchSource, PrefetchedObject};
use seawall_cache::{FillHead, Follower, KeyMemo, Object, Verdict};
use seawall_manifest::{Kind, ObjectRole, each_object};
use seawall_policy::access::CacheRequest;
use seawall_policy::encoding::is_requested_uncoded;
use seawall_policy::freshness::{Freshness, freshness};

/// Names of one manifest that are looked at, at most: a few bytes of text can name any number.
const NAMES_MAX: u64 = 200_000;

/// Their bytes, at most: each may be as long as the base URL of its manifest.
const NAME_BYTES_MAX: usize = 32 << 20;

/// How often it looks whether there is room for a fetch.
pub(super) const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// What became of one object.
#[derive(Clone, Debug)]
pub struct WarmedObject {
    /// Whether it is stored now.
    pub outcome: WarmOutcome,
    /// Its kind.
    pub kind: Kind,
    /// The status of the response, if there is one.
    pub status: Option<StatusCode>,
    /// The length of its body, if it is stored or was fetched.
    pub bytes: u64,
    /// What it names, if it is a manifest.
    pub listed: ListedObjects,
}

/// How a warm fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmOutcome {
    /// It was stored already, and may be served without a request to the origin.
    Held,
    /// It was fetched and stored.
    Fetched,
    /// It was fetched and may not be stored.
    Uncacheable,
    /// The origin failed, or does not have it.
    Failed,
    /// There was no room for the fetch in time, or it has not ended yet.
    Busy,
}

/// The objects that a manifest names on its own host.
#[derive(Clone, Debug, Default)]
pub struct ListedObjects {
    /// Each with its role, its rendition's bits per second, and its path and query.
    pub objects: Vec<(ObjectRole, Option<u64>, String)>,
    /// Names on other hosts, or that no route takes.
    pub elsewhere: u64,
    /// It names more.
    pub has_more: bool,
}

impl WarmOutcome {
    /// Its name in the answer.
    pub fn as_str(self) -> &'static str {
        match self {
            WarmOutcome::Held => "held",
            WarmOutcome::Fetched => "fetched",
            WarmOutcome::Uncacheable => "uncacheable",
            WarmOutcome::Failed => "failed",
            WarmOutcome::Busy => "busy",
        }
    }
}

/// One step towards the object.
enum WarmStep {
    Done(WarmedObject),
    /// Look again after a moment.
    Wait,
}

impl Shield {
    /// Sees to it that the object of a URL is stored, until the deadline. `None`: no route serves
    /// the URL.
    pub async fn warm(self: &Arc<Self>, url: &Uri, deadline: Instant) -> Option<WarmedObject> {
        let request = self.request_of_url(url)?;
        let mut headers = HeaderMap::new();
        if !is_requested_uncoded(request.kind, request.target.path()) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        loop {
            if let WarmStep::Done(warmed) = self.warm_step(&request, &headers, deadline).await {
                return Some(warmed);
            }
            if Instant::now() + ROOM_INTERVAL >= deadline {
                return Some(ended(&request, WarmOutcome::Busy));
            }
            sleep(ROOM_INTERVAL).await;
        }
    }

    async fn warm_step(
        self: &Arc<Self>,
        request: &CacheRequest,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> WarmStep {
        let now = Instant::now();
        let upstream_headers = || self.upstream_headers_for(headers, request);
        let lookup = self
            .cache
            .lookup(&request.key, request.kind, now, upstream_headers);
        if let Some(object) = &lookup.object
            && freshness(&object.head.lifetime, now) == Freshness::Fresh
        {
            return WarmStep::Done(
                self.held(request, object, WarmOutcome::Held, deadline)
                    .await,
            );
        }
        match self.memo_for(&lookup, headers, request, now) {
            Some(KeyMemo::Failed(error_object)) => {
                return WarmStep::Done(WarmedObject {
                    status: Some(error_object.head.status),
                    ..ended(request, WarmOutcome::Failed)
                });
            }
            Some(KeyMemo::Pass) => {
                return WarmStep::Done(ended(request, WarmOutcome::Uncacheable));
            }
            Some(KeyMemo::Sliced(slice_set)) => {
                let warmed = self.warm_slices(request, &lookup, slice_set, headers, deadline);
                let (outcome, bytes) = warmed.await;
                return WarmStep::Done(WarmedObject {
                    bytes,
                    ..ended(request, outcome)
                });
            }
            _ => {}
        }
        let Some(permit) =
            self.prefetch_permit(request, PrefetchedObject::Exists, PrefetchSource::Warm)
        else {
            return WarmStep::Wait;
        };
        let Some(fill) = self.cache.lead(&lookup, upstream_headers) else {
            return WarmStep::Wait;
        };
        let limits = &self.live.prefetch_limits;
        let prefetch = limits.begin(permit, PrefetchSource::Warm, now);
        let follower = fill.follower();
        self.spawn_fill(request, fill, FillTrigger::Prefetch(prefetch));
        self.follow_warm(request, follower, deadline).await
    }

    async fn follow_warm(
        &self,
        request: &CacheRequest,
        mut follower: Follower,
        deadline: Instant,
    ) -> WarmStep {
        let head = timeout_at(deadline.into(), follower.wait_for_head()).await;
        let verdict = match head {
            Err(_) => return WarmStep::Done(ended(request, WarmOutcome::Busy)),
            Ok(FillHead::Settled(verdict)) => verdict,
            Ok(FillHead::Growing(head)) => {
                let read = timeout_at(deadline.into(), read_to_end(&mut follower)).await;
                let (outcome, bytes) = match read {
                    Err(_) => (WarmOutcome::Busy, 0),
                    Ok(None) => (WarmOutcome::Failed, 0),
                    Ok(Some(bytes)) if head.will_be_stored => (WarmOutcome::Fetched, bytes),
                    Ok(Some(bytes)) => (WarmOutcome::Uncacheable, bytes),
                };
                return WarmStep::Done(WarmedObject {
                    status: Some(head.status),
                    bytes,
                    ..ended(request, outcome)
                });
            }
        };
        match verdict {
            Verdict::Object(object) | Verdict::Revalidated(object) => {
                let outcome = if object.head.will_be_stored {
                    WarmOutcome::Fetched
                } else {
                    WarmOutcome::Uncacheable
                };
                WarmStep::Done(self.held(request, &object, outcome, deadline).await)
            }
            Verdict::Failed(object) | Verdict::Exhausted(object) | Verdict::Refused(object) => {
                WarmStep::Done(WarmedObject {
                    status: Some(object.head.status),
                    ..ended(request, WarmOutcome::Failed)
                })
            }
            Verdict::Pass => WarmStep::Done(ended(request, WarmOutcome::Uncacheable)),
            // Its memo says how to fetch it, or it is revalidated next.
            Verdict::Sliced | Verdict::StoredStale => WarmStep::Wait,
            Verdict::Lost => WarmStep::Done(ended(request, WarmOutcome::Failed)),
        }
    }

    /// An object that is in memory, with what it names.
    async fn held(
        &self,
        request: &CacheRequest,
        object: &Arc<Object>,
        outcome: WarmOutcome,
        deadline: Instant,
    ) -> WarmedObject {
        let head = &object.head;
        let is_good = head.status == StatusCode::OK;
        let listed = if is_good && head.kind.is_manifest() {
            self.list(request, object, deadline).await
        } else {
            Some(ListedObjects::default())
        };
        WarmedObject {
            outcome: if is_good && listed.is_some() {
                outcome
            } else {
                WarmOutcome::Failed
            },
            kind: head.kind,
            status: Some(head.status),
            bytes: object.body.len() as u64,
            listed: listed.unwrap_or_default(),
        }
    }

    /// What a manifest names. `None`: that is not known by the deadline.
    async fn list(
        &self,
        request: &CacheRequest,
        object: &Arc<Object>,
        deadline: Instant,
    ) -> Option<ListedObjects> {
        let (rules, request, object) = (self.rules.clone(), request.clone(), Arc::clone(object));
        let bytes_max = self.settings.manifest_bytes_max;
        // The text may have a million lines.
        let listed = spawn_blocking(move || {
            let headers = object.head.headers.to_map();
            let Ok(Some(text)) = coding::decoded_text(&headers, &object.body, bytes_max) else {
                return Some(ListedObjects::default());
            };
            let resolve = |name: &str| {
                let found = request.resolve_same_host(&rules, name)?;
                Some(found.target.to_string())
            };
            names_of(object.head.kind, &text, resolve, deadline)
        });
        timeout_at(deadline.into(), listed).await.ok()?.ok()?
    }
}

/// Lists what a manifest names. `resolve` returns the target of a name of the same host. `None`:
/// the deadline has passed.
fn names_of(
    kind: Kind,
    text: &[u8],
    resolve: impl Fn(&str) -> Option<String>,
    deadline: Instant,
) -> Option<ListedObjects> {
    let mut listed = ListedObjects::default();
    let (mut names, mut bytes, mut is_late) = (0, 0_usize, false);
    let _ = each_object(kind, text, SystemTime::now(), |named| {
        is_late = Instant::now() >= deadline;
        listed.has_more = names >= NAMES_MAX || bytes >= NAME_BYTES_MAX;
        if is_late || listed.has_more {
            return ControlFlow::Break(());
        }
        names += 1;
        bytes = bytes.saturating_add(named.uri.len());
        match resolve(named.uri) {
            Some(target) => {
                bytes = bytes.saturating_add(target.len());
                listed.objects.push((named.role, named.bandwidth, target));
            }
            None => listed.elsewhere += 1,
        }
        ControlFlow::Continue(())
    });
    (!is_late).then_some(listed)
}

/// An outcome without a response.
fn ended(request: &CacheRequest, outcome: WarmOutcome) -> WarmedObject {
    WarmedObject {
        outcome,
        kind: request.kind,
        status: None,
        bytes: 0,
        listed: ListedObjects::default(),
    }
}

/// Reads a body as it arrives. `None`: it was truncated.
pub(super) async fn read_to_end(follower: &mut Follower) -> Option<u64> {
    let mut length = 0;
    while let Some(bytes) = poll_fn(|cx| follower.poll_bytes(cx)).await {
        length += bytes.ok()?.len() as u64;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
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

    fn later() -> Instant {
        Instant::now() + Duration::from_hours(1)
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
        let bytes: usize = listed.objects.iter().map(|(_, _, name)| name.len()).sum();
        assert!(listed.has_more && bytes <= NAME_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn list_ends_at_the_deadline() {
        let text = endless("/");
        let listed = names_of(Kind::Dash, text.as_bytes(), |_| None, Instant::now());
        assert!(listed.is_none());
    }
}
