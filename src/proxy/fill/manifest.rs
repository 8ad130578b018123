//! Reads a manifest whole, parses it, and compares it with the version that viewers have seen
//! before sending it on. A broken manifest is a failed fetch. If it is broken or behind, another
//! endpoint is tried.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header;
use tokio::time::timeout;

use super::{FillTask, FillTrigger};
use crate::live::{
    ManifestVersion, PlaylistTracker, PrefetchSource, RejectReason, Variant, WindowChange,
};
use crate::proxy::blocking_work::WorkSize;
use crate::proxy::coding::{self, DecodeError};
use crate::proxy::race::SILENCE;
use crate::proxy::read_whole::{ReadWholeError, whole};
use seawall_cache::{Follower, StoredHead};
use seawall_manifest::{Kind, Manifest, ManifestInfo, low_latency};
use seawall_policy::lifetime::Storage;
use seawall_policy::progress::Progress;
use seawall_policy::vary::Vary;
use seawall_policy::{Lifetime, Now, headers};
use seawall_upstream::{Failure, UpstreamResponse};

/// A manifest that may be served.
pub(super) struct ManifestText {
    pub(super) reply: UpstreamResponse,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    /// `None`: it has an unsupported content coding.
    pub(super) manifest: Option<Manifest>,
    /// The delta update, if the shield makes it.
    pub(super) delta: Option<String>,
    pub(super) watch: Option<Arc<PlaylistTracker>>,
    pub(super) variant: Variant,
    /// When it was current, as far as known: when its request was sent, or when its response
    /// arrived if the origin held that back.
    pub(super) seen: Instant,
    /// Its last-updated header (MediaPackage) says that it has not changed for several periods.
    pub(super) old: bool,
}

/// The result of parsing, as in [`ManifestText`].
struct ParsedManifest {
    manifest: Option<Manifest>,
    delta: Option<String>,
}

/// Why there is no manifest to serve.
pub(super) enum ManifestRejection {
    /// It did not arrive.
    FetchFailed(Failure),
    /// It is behind the version that viewers have seen.
    Behind(Box<ManifestText>),
    /// It is unusable; another endpoint may have a better one.
    Unusable,
}

impl ManifestText {
    pub(super) fn facts(&self) -> Option<&ManifestInfo> {
        self.manifest.as_ref().map(|manifest| &manifest.info)
    }

    /// A second endpoint should confirm it, if there is one.
    fn is_doubtful(&self) -> bool {
        self.manifest.is_none()
            || self.old
            || self.progress() == Progress::Restarted
            || self.ends_suddenly()
    }

    fn is_live(&self) -> bool {
        self.facts().is_some_and(ManifestInfo::is_live)
    }

    /// It says that a stream has ended that was live until now. A packager that is stopped says so,
    /// and players that read it never come back.
    fn ends_suddenly(&self) -> bool {
        let goes_on = |watch: &Arc<PlaylistTracker>| watch.is_progressing(Instant::now());
        let ends = self.facts().is_some() && !self.is_live();
        ends && self.watch.as_ref().is_some_and(goes_on)
    }

    fn fault(&self) -> RejectReason {
        if self.manifest.is_none() {
            RejectReason::Coded
        } else if self.old {
            RejectReason::Stalled
        } else {
            RejectReason::Behind
        }
    }

    /// Its position relative to the newest version that viewers have seen.
    fn progress(&self) -> Progress {
        match (&self.watch, self.facts()) {
            (Some(watch), Some(facts)) => watch.judge(self.variant, facts, self.seen),
            _ => Progress::Onward,
        }
    }
}

impl FillTask {
    pub(super) async fn manifest(self, reply: UpstreamResponse) {
        let first = reply.endpoint;
        let mut text = self.read_or_elsewhere(reply).await;
        let doubtful = match &text {
            Ok(text) => text.is_doubtful(),
            Err(ManifestRejection::FetchFailed(failure)) => *failure == Failure::Truncated,
            Err(ManifestRejection::Unusable | ManifestRejection::Behind(_)) => true,
        };
        if doubtful && let Some(other) = self.request_elsewhere(first).await {
            let other = self.read(other).await;
            text = self.better(text, other);
        }
        match text {
            Ok(text) => self.publish(text).await,
            Err(ManifestRejection::FetchFailed(failure)) => self.failed(failure),
            Err(ManifestRejection::Behind(text)) => self.outdated(*text),
            Err(ManifestRejection::Unusable) => self.failed(Failure::Protocol),
        }
    }

    /// Chooses between two endpoints' versions after the first was unusable or doubtful.
    fn better(
        &self,
        first: Result<ManifestText, ManifestRejection>,
        other: Result<ManifestText, ManifestRejection>,
    ) -> Result<ManifestText, ManifestRejection> {
        match (first, other) {
            (Ok(first), Ok(other)) if !other.is_doubtful() => {
                let (why, fault) = ("another endpoint has a usable one", first.fault());
                self.refuse(first.watch, first.reply.endpoint, fault, &why);
                Ok(other)
            }
            // The other endpoint lags but has not ended, and viewers have seen a newer version.
            (Ok(first), Err(ManifestRejection::Behind(other)))
                if first.ends_suddenly() && other.is_live() =>
            {
                Err(ManifestRejection::Behind(other))
            }
            (Ok(first), _) => Ok(first),
            // A version that lags proves that a newer one exists; one that may be from another
            // timeline proves nothing.
            (Err(ManifestRejection::Behind(first)), other)
                if other.as_ref().is_ok_and(ManifestText::is_doubtful) =>
            {
                Err(ManifestRejection::Behind(first))
            }
            (Err(ManifestRejection::Behind(first)), Err(_)) => {
                Err(ManifestRejection::Behind(first))
            }
            (Err(_), other) => other,
        }
    }

    pub(super) fn watched(&self) -> Option<Arc<PlaylistTracker>> {
        self.shield.live.watched(&self.entry)
    }

    /// Reads a manifest. If it is not complete within [`SILENCE`], also reads another endpoint's.
    async fn read_or_elsewhere(
        &self,
        reply: UpstreamResponse,
    ) -> Result<ManifestText, ManifestRejection> {
        let first = reply.endpoint;
        let mut reading = pin!(self.read(reply));
        if let Ok(text) = timeout(SILENCE, &mut reading).await {
            return text;
        }
        tokio::select! {
            biased;
            text = &mut reading => text,
            Some(other) = self.request_elsewhere(first) => {
                self.avoid_endpoint(first);
                self.read(other).await
            }
        }
    }

    async fn read(&self, mut reply: UpstreamResponse) -> Result<ManifestText, ManifestRejection> {
        let (sent, seen) = self.times(&reply);
        let bytes_max = self.shield.settings.manifest_bytes_max;
        let kind = self.kind(reply.status, &reply.headers);
        let reserve = |bytes| self.fill.reserve(bytes);
        let body = match whole(&mut reply.body, bytes_max, reserve).await {
            Ok(body) => body,
            Err(ReadWholeError::Origin(failure)) => {
                return Err(ManifestRejection::FetchFailed(failure));
            }
            Err(ReadWholeError::NoRoom) => {
                return Err(ManifestRejection::FetchFailed(Failure::Busy));
            }
            Err(why) => {
                return Err(self.refuse(
                    self.watched(),
                    reply.endpoint,
                    RejectReason::Broken,
                    &why,
                ));
            }
        };
        let understood = match self.parse(kind, &reply, &body).await {
            Ok(Some(understood)) => understood,
            Ok(None) => return Err(ManifestRejection::FetchFailed(Failure::Busy)),
            Err(why) => {
                return Err(self.refuse(
                    self.watched(),
                    reply.endpoint,
                    RejectReason::Broken,
                    &why,
                ));
            }
        };
        let ParsedManifest { manifest, delta } = understood;
        let facts = manifest.as_ref().map(|manifest| &manifest.info);
        let streams = &self.shield.live;
        // A response for one viewer must not change the timeline that others share.
        let is_shared = !matches!(self.judge(&reply, kind, facts, false), Storage::Pass(_));
        let shared = facts.filter(|_| is_shared);
        let mut text = ManifestText {
            watch: shared.and_then(|facts| streams.watch(&self.entry, facts, seen)),
            variant: self.variant(&reply.headers),
            reply,
            kind,
            body,
            manifest,
            delta,
            seen,
            old: false,
        };
        let updated = headers::last_updated(&text.reply.headers);
        let is_old = |watch: &Arc<PlaylistTracker>| {
            updated.is_some_and(|updated| watch.is_old(updated, SystemTime::now()))
        };
        text.old = text.watch.as_ref().is_some_and(is_old);
        // Another request may have brought a newer version in the meantime.
        let overtaken = |watch: &Arc<PlaylistTracker>| watch.has_newer_version(text.variant, sent);
        if text.progress() == Progress::Behind && !text.watch.as_ref().is_some_and(overtaken) {
            let why = "behind what viewers have seen";
            let watch = text.watch.clone();
            self.refuse(watch, text.reply.endpoint, RejectReason::Behind, &why);
            return Err(ManifestRejection::Behind(Box::new(text)));
        }
        Ok(text)
    }

    /// Parses the manifest and makes its delta update, on a blocking thread if that may take long.
    /// `None`: no thread was free in time, or parsing panicked.
    async fn parse(
        &self,
        kind: Kind,
        reply: &UpstreamResponse,
        body: &Bytes,
    ) -> Result<Option<ParsedManifest>, DecodeError> {
        let bytes_max = self.shield.settings.manifest_bytes_max;
        let makes_delta = self.entry.route.live.delta_updates && kind != Kind::Dash;
        let (headers, text) = (reply.headers.clone(), body.clone());
        let is_coded = headers.contains_key(header::CONTENT_ENCODING);
        let work = move || {
            let manifest = coding::read(kind, &headers, &text, bytes_max)?;
            let facts = manifest.as_ref().map(|manifest| &manifest.info);
            let offered = facts.is_some_and(ManifestInfo::can_skip);
            let text = std::str::from_utf8(&text).ok();
            let text = text.filter(|_| makes_delta && offered);
            let delta = text.and_then(low_latency::delta);
            Ok(ParsedManifest { manifest, delta })
        };
        match WorkSize::of(body.len(), is_coded).put_in(work).await {
            Some(understood) => understood.map(Some),
            None => Ok(None),
        }
    }

    /// When the request was sent, and when the response was current.
    pub(super) fn times(&self, reply: &UpstreamResponse) -> (Instant, Instant) {
        let now = Instant::now();
        let sent = now.checked_sub(reply.waited).unwrap_or(now);
        (sent, if self.held_back { now } else { sent })
    }

    pub(super) fn refuse(
        &self,
        watch: Option<Arc<PlaylistTracker>>,
        endpoint: usize,
        reason: RejectReason,
        why: &dyn Display,
    ) -> ManifestRejection {
        let path = self.entry.target.path();
        self.shield.live.unfit(reason);
        // One endpoint may fail this check many times a second; log it once.
        if watch.is_none_or(|watch| watch.avoid(endpoint, Instant::now())) {
            tracing::warn!(path, endpoint, "manifest refused: {why}");
        }
        ManifestRejection::Unusable
    }

    /// Serves a version to all followers and stores it. Versions of one manifest arrive by several
    /// paths; they are served one after another, never an older one after a newer one.
    async fn publish(self, text: ManifestText) {
        let (learnt, since) = {
            let watch = text.watch.clone();
            let _turn = watch.as_ref().map(|watch| watch.turn());
            let progress = text.progress();
            if progress == Progress::Behind {
                return self.settle_with_newest(text);
            }
            let lifetime = match self.judge(&text.reply, text.kind, text.facts(), false) {
                Storage::Store(_) if text.manifest.is_none() => return self.hand_over_unread(text),
                Storage::Store(lifetime) => lifetime,
                Storage::Pass(reason) => return self.hand_over_text(text, reason),
                // Other results need a status other than 200.
                _ => return self.failed(Failure::Protocol),
            };
            let coming = self.apply_to_stream(&text, progress);
            ((lifetime, progress, coming), Instant::now())
        };
        let (lifetime, progress, coming) = learnt;
        if let Some(span) = self.keeps_for(text.watch.as_deref(), progress) {
            let landed = async {
                for mut one in coming {
                    one.wait_for_head().await;
                }
            };
            // The version is served even if the prefetches have not begun in time.
            let _ = timeout(span, landed).await;
        }
        self.store_version(text, lifetime, progress, since);
    }

    /// Stores a version and gives it to all followers, unless a newer one has been stored since.
    fn store_version(
        mut self,
        text: ManifestText,
        lifetime: Lifetime,
        progress: Progress,
        since: Instant,
    ) {
        let watch = text.watch.clone();
        let turn = watch.as_ref().map(|watch| watch.turn());
        let variant = text.variant;
        if watch
            .as_ref()
            .is_some_and(|watch| watch.has_newer_version(variant, since))
        {
            return self.settle_with_newest(text);
        }
        if text.facts().is_some_and(|facts| self.is_state(facts)) {
            self.outdone(watch.as_deref(), text.reply.lacking_endpoint);
        }
        let (shield, seen) = (Arc::clone(&self.shield), text.seen);
        let version = self.version(text, lifetime, progress);
        if let Some(watch) = &watch {
            watch.set_fresh_for(left(&version.object.head, seen), seen);
        }
        self.file(version);
        drop(turn);
        if let Some(watch) = &watch {
            watch.filed.notify_waiters();
            shield.start_refresher(watch);
        }
    }

    /// How long a version may be held back until its new segments begin to arrive: only when no
    /// viewer waits for it, the version before may still be served, and this one continues it.
    fn keeps_for(&self, watch: Option<&PlaylistTracker>, progress: Progress) -> Option<Duration> {
        let no_viewer_waits = matches!(self.viewer, FillTrigger::Refresh) && !self.held_back;
        let goes_on = progress == Progress::Onward;
        let before = self.held().filter(|_| no_viewer_waits && goes_on)?;
        let left = left(&before.head, Instant::now());
        Some(watch?.hold_max().min(left))
    }

    /// Applies a version to its stream before any viewer sees it: a viewer with the new text must
    /// not get objects from before a restart. Prefetches new segments; returns a follower of each.
    fn apply_to_stream(&self, text: &ManifestText, progress: Progress) -> Vec<Follower> {
        let shield = &self.shield;
        let Some(manifest) = &text.manifest else {
            return Vec::new();
        };
        if let Some(watch) = &text.watch {
            let alike = self.vary(&text.reply.headers) == Vary::Nothing;
            watch.asked_with(self.fill.upstream(), alike);
        }
        let version = ManifestVersion {
            request: &self.entry,
            manifest,
            variant: text.variant,
            progress,
            seen: text.seen,
            held_back: self.held_back,
        };
        let effects = shield
            .live
            .record_version(text.watch.as_ref(), &version, Now::read());
        for named in &effects.uncacheable {
            shield.cache.purge(&named.key, named.kind);
        }
        let WindowChange { advances, departed } = &effects.window;
        if !(advances.is_empty() && departed.is_empty()) {
            shield.cache.update_live_windows(advances, departed);
        }
        for epoch in &effects.ended_epochs {
            shield.cache.end_epoch(epoch);
        }
        let Some(watch) = &text.watch else {
            return Vec::new();
        };
        if progress == Progress::Restarted {
            shield.cache.end_epoch(&self.entry.playlist_epoch_key());
            let path = self.entry.target.path();
            tracing::warn!(path, "stream restarted: its stored objects are dropped");
        }
        self.look_elsewhere_if_stalled(watch, text.reply.endpoint, text.old);
        // The refresher may run for longer than any viewer stays.
        let waits = matches!(self.viewer, FillTrigger::Viewer(..));
        if !waits && !watch.is_wanted(Instant::now()) {
            return Vec::new();
        }
        let with = watch.background_headers();
        let said = with.as_deref().cloned().unwrap_or_default();
        let coming = shield.segments_wanted(effects.to_prefetch, &said, watch.patience());
        watch.grew(coming.len());
        let Some(with) = with else {
            return Vec::new();
        };
        shield.prefetch_announced_parts(effects.announced, &with);
        shield.prefetch(&coming, PrefetchSource::Playlist, &with)
    }

    /// The origin confirmed the stored version.
    pub(super) fn confirmed(&self, reply: &UpstreamResponse, head: &StoredHead, variant: Variant) {
        // A confirmed state of the playlist does not prove that it is the newest version.
        if self.entry.is_directed() {
            return;
        }
        let Some(watch) = self.watched() else {
            return;
        };
        let (_, seen) = self.times(reply);
        watch.record_unchanged(variant, seen);
        watch.set_fresh_for(left(head, seen), seen);
        self.look_elsewhere_if_stalled(&watch, reply.endpoint, false);
        self.shield.start_refresher(&watch);
    }

    pub(super) fn look_elsewhere_if_stalled(
        &self,
        watch: &PlaylistTracker,
        endpoint: usize,
        is_old: bool,
    ) {
        let now = Instant::now();
        let origin = self.origin();
        // Players buffer about three segments: another endpoint is requested before these run out.
        let late = origin.has_others() && watch.is_late(now);
        if is_old || late || watch.stalled(now) {
            self.shield.live.unfit(RejectReason::Stalled);
            watch.avoid(endpoint, now);
        }
    }
}

/// How long it may still be served at `now` while the refresher keeps it current.
pub(super) fn left(head: &StoredHead, now: Instant) -> Duration {
    let lifetime = &head.lifetime;
    let tended = lifetime.refreshed_max_age(head.facts.as_deref());
    tended.saturating_sub(lifetime.age(now))
}
