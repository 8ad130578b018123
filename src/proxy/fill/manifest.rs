//! Reads a manifest whole, parses it, and compares it with the version that viewers have seen
//! before sending it on. A broken manifest is a failed fetch. If it is broken or behind, another
//! endpoint is tried.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, header};
use tokio::time::timeout;

use super::{FillTask, StoredAs};
use crate::live::{ManifestTracker, RejectReason, Variant};
use crate::proxy::blocking_work::WorkSize;
use crate::proxy::coding::{self, DecodeError};
use crate::proxy::race::SILENCE;
use crate::proxy::read_whole::{ReadWholeError, read_whole};
use seawall_manifest::{Kind, Manifest, ManifestInfo, low_latency};
use seawall_policy::headers;
use seawall_policy::lifetime::StorageDecision;
use seawall_policy::progress::Progress;
use seawall_upstream::{Failure, UpstreamResponse};

/// A manifest that has arrived completely, and what is known of it.
pub(super) struct FetchedManifest {
    pub(super) response: UpstreamResponse,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    /// `None`: it has an unsupported content coding.
    pub(super) manifest: Option<Manifest>,
    /// The delta update, if the shield makes it.
    pub(super) delta: Option<String>,
    pub(super) tracker: Option<Arc<ManifestTracker>>,
    pub(super) variant: Variant,
    /// When it was current, as far as known: when its request was sent, or when its response
    /// arrived if that was a blocking request.
    pub(super) current_at: Instant,
    /// Its last-updated header (MediaPackage) says that it has not changed for several reload
    /// intervals.
    pub(super) is_old: bool,
}

/// The result of parsing, as in [`FetchedManifest`].
struct ParsedManifest {
    manifest: Option<Manifest>,
    delta: Option<String>,
}

/// The result of reading a manifest from one endpoint.
pub(super) enum ManifestOutcome {
    /// It may be served.
    Servable(Box<FetchedManifest>),
    /// It is behind the version that viewers have seen.
    Behind(Box<FetchedManifest>),
    /// It is no usable manifest.
    Broken,
    /// It did not arrive completely.
    FetchFailed(Failure),
}

impl ManifestOutcome {
    /// Another endpoint may have a better version, or should confirm this one.
    fn is_doubtful(&self) -> bool {
        match self {
            ManifestOutcome::Servable(fetched) => fetched.is_doubtful(),
            ManifestOutcome::Behind(_) | ManifestOutcome::Broken => true,
            ManifestOutcome::FetchFailed(failure) => *failure == Failure::Truncated,
        }
    }
}

impl FetchedManifest {
    pub(super) fn info(&self) -> Option<&ManifestInfo> {
        self.manifest.as_ref().map(|manifest| &manifest.info)
    }

    /// A second endpoint should confirm it, if there is one.
    fn is_doubtful(&self) -> bool {
        self.manifest.is_none()
            || self.is_old
            || self.progress() == Progress::Restarted
            || self.ends_suddenly()
    }

    fn is_live(&self) -> bool {
        self.info().is_some_and(ManifestInfo::is_live)
    }

    /// It says that a stream has ended that was live until now. A packager that is stopped says so,
    /// and players that read it never come back.
    fn ends_suddenly(&self) -> bool {
        let Some(tracker) = &self.tracker else {
            return false;
        };
        let ends = self.info().is_some() && !self.is_live();
        ends && tracker.is_progressing(Instant::now())
    }

    fn reject_reason(&self) -> RejectReason {
        if self.manifest.is_none() {
            RejectReason::Coded
        } else if self.is_old {
            RejectReason::Stalled
        } else {
            RejectReason::Behind
        }
    }

    /// Its position relative to the newest version that viewers have seen.
    pub(super) fn progress(&self) -> Progress {
        match (&self.tracker, self.info()) {
            (Some(tracker), Some(info)) => tracker.progress_of(self.variant, info, self.current_at),
            _ => Progress::Newer,
        }
    }
}

impl FillTask {
    pub(super) async fn handle_manifest(self, response: UpstreamResponse) {
        let endpoint = response.endpoint;
        let mut outcome = self.read_first_complete(response).await;
        if outcome.is_doubtful()
            && let Some(other) = self.request_elsewhere(endpoint).await
        {
            outcome = self.choose_version(outcome, self.read_manifest(other).await);
        }
        match outcome {
            ManifestOutcome::Servable(fetched) => self.publish(*fetched).await,
            ManifestOutcome::Behind(fetched) => self.settle_behind(*fetched),
            ManifestOutcome::Broken => self.handle_failure(Failure::Protocol),
            ManifestOutcome::FetchFailed(failure) => self.handle_failure(failure),
        }
    }

    /// Chooses between the versions of two endpoints; the first is doubtful.
    fn choose_version(&self, first: ManifestOutcome, other: ManifestOutcome) -> ManifestOutcome {
        match (first, other) {
            (ManifestOutcome::Servable(first), other) => self.confirm_or_replace(first, other),
            (ManifestOutcome::Behind(_), ManifestOutcome::Servable(other))
                if !other.is_doubtful() =>
            {
                ManifestOutcome::Servable(other)
            }
            // A version that lags proves that a newer one exists; one that may be from another
            // timeline proves nothing.
            (first @ ManifestOutcome::Behind(_), _) => first,
            (ManifestOutcome::Broken | ManifestOutcome::FetchFailed(_), other) => other,
        }
    }

    /// A doubtful version is served, unless another endpoint shows that it is wrong.
    fn confirm_or_replace(
        &self,
        doubtful: Box<FetchedManifest>,
        other: ManifestOutcome,
    ) -> ManifestOutcome {
        match other {
            ManifestOutcome::Servable(other) if !other.is_doubtful() => {
                let why = "another endpoint has a usable one";
                self.reject_version(&doubtful, doubtful.reject_reason(), why);
                ManifestOutcome::Servable(other)
            }
            // The other endpoint lags but has not ended, and viewers have seen a newer version.
            ManifestOutcome::Behind(other) if doubtful.ends_suddenly() && other.is_live() => {
                ManifestOutcome::Behind(other)
            }
            _ => ManifestOutcome::Servable(doubtful),
        }
    }

    /// The tracker of the requested manifest.
    pub(super) fn tracker(&self) -> Option<Arc<ManifestTracker>> {
        self.shield.live.tracker(&self.request)
    }

    /// Reads a manifest. If it is not complete within [`SILENCE`], another endpoint is requested
    /// too, and its manifest is read if its response begins before the first one is complete.
    async fn read_first_complete(&self, response: UpstreamResponse) -> ManifestOutcome {
        let first = response.endpoint;
        let mut reading = pin!(self.read_manifest(response));
        if let Ok(outcome) = timeout(SILENCE, &mut reading).await {
            return outcome;
        }
        tokio::select! {
            biased;
            outcome = &mut reading => outcome,
            Some(other) = self.request_elsewhere(first) => {
                self.avoid_endpoint(first);
                self.read_manifest(other).await
            }
        }
    }

    /// Reads and parses a manifest, and compares it with what viewers have seen.
    pub(super) async fn read_manifest(&self, mut response: UpstreamResponse) -> ManifestOutcome {
        let (sent, current_at) = self.sent_and_current_at(&response);
        let kind = self.kind(response.status, &response.headers);
        let body = match self.read_body(&mut response).await {
            Ok(body) => body,
            Err(outcome) => return outcome,
        };
        let ParsedManifest { manifest, delta } = match self.parse(kind, &response, &body).await {
            Ok(parsed) => parsed,
            Err(outcome) => return outcome,
        };
        let tracker = self.tracker_of(manifest.as_ref(), &response, kind, current_at);
        let has_old_update_time = |tracker| has_old_update_time(tracker, &response.headers);
        let fetched = FetchedManifest {
            is_old: tracker.as_deref().is_some_and(has_old_update_time),
            variant: self.variant(&response.headers),
            tracker,
            response,
            kind,
            body,
            manifest,
            delta,
            current_at,
        };
        self.compare_with_seen(Box::new(fetched), sent)
    }

    async fn read_body(&self, response: &mut UpstreamResponse) -> Result<Bytes, ManifestOutcome> {
        let bytes_max = self.shield.settings.manifest_bytes_max;
        let reserve = |bytes| self.fill.reserve(bytes);
        let body = read_whole(&mut response.body, bytes_max, reserve).await;
        body.map_err(|error| match error {
            ReadWholeError::Origin(failure) => ManifestOutcome::FetchFailed(failure),
            ReadWholeError::NoRoom => ManifestOutcome::FetchFailed(Failure::Busy),
            error @ ReadWholeError::TooLarge => self.reject_broken(response.endpoint, &error),
        })
    }

    /// Compares a manifest, requested at `sent`, with what viewers have seen. An endpoint that sent
    /// a version that is behind is avoided, unless another request has brought a newer version
    /// since `sent`.
    fn compare_with_seen(&self, fetched: Box<FetchedManifest>, sent: Instant) -> ManifestOutcome {
        let is_overtaken =
            |tracker: &Arc<ManifestTracker>| tracker.has_newer_version(fetched.variant, sent);
        if fetched.progress() != Progress::Behind
            || fetched.tracker.as_ref().is_some_and(is_overtaken)
        {
            return ManifestOutcome::Servable(fetched);
        }
        self.reject_version(
            &fetched,
            RejectReason::Behind,
            "behind what viewers have seen",
        );
        ManifestOutcome::Behind(fetched)
    }

    /// The tracker of a manifest that may be shared. A response for one viewer must not change the
    /// timeline that others share.
    fn tracker_of(
        &self,
        manifest: Option<&Manifest>,
        response: &UpstreamResponse,
        kind: Kind,
        current_at: Instant,
    ) -> Option<Arc<ManifestTracker>> {
        let info = &manifest?.info;
        if matches!(
            self.decide_storage(response, kind, Some(info), StoredAs::Newest),
            StorageDecision::Pass(_)
        ) {
            return None;
        }
        let generation = self.shield.generation();
        let live = &self.shield.live;
        live.tracker_or_new(&self.request, generation, info, current_at)
    }

    /// Parses the manifest and makes its delta update, on a blocking thread if that may take long.
    async fn parse(
        &self,
        kind: Kind,
        response: &UpstreamResponse,
        body: &Bytes,
    ) -> Result<ParsedManifest, ManifestOutcome> {
        let bytes_max = self.shield.settings.manifest_bytes_max;
        let makes_delta = self.request.route.live.delta_updates && kind != Kind::Dash;
        let (headers, text) = (response.headers.clone(), body.clone());
        let is_coded = headers.contains_key(header::CONTENT_ENCODING);
        let work = move || -> Result<ParsedManifest, DecodeError> {
            let manifest = coding::decode_and_parse(kind, &headers, &text, bytes_max)?;
            let info = manifest.as_ref().map(|manifest| &manifest.info);
            let offered = info.is_some_and(ManifestInfo::can_skip);
            let text = std::str::from_utf8(&text).ok();
            let text = text.filter(|_| makes_delta && offered);
            let delta = text.and_then(low_latency::delta);
            Ok(ParsedManifest { manifest, delta })
        };
        let parsed = WorkSize::of(body.len(), is_coded).run(work).await;
        // No thread was free in time, or parsing panicked.
        let parsed = parsed.ok_or(ManifestOutcome::FetchFailed(Failure::Busy))?;
        parsed.map_err(|error| self.reject_broken(response.endpoint, &error))
    }

    /// When the request was sent, and when the response was current.
    pub(super) fn sent_and_current_at(&self, response: &UpstreamResponse) -> (Instant, Instant) {
        let now = Instant::now();
        let sent = now.checked_sub(response.waited).unwrap_or(now);
        (sent, if self.may_be_blocking { now } else { sent })
    }

    fn reject_broken(&self, endpoint: usize, why: &dyn Display) -> ManifestOutcome {
        let tracker = self.tracker();
        self.reject(tracker.as_deref(), endpoint, RejectReason::Broken, why);
        ManifestOutcome::Broken
    }

    fn reject_version(&self, fetched: &FetchedManifest, reason: RejectReason, why: &str) {
        let (tracker, endpoint) = (fetched.tracker.as_deref(), fetched.response.endpoint);
        self.reject(tracker, endpoint, reason, &why);
    }

    /// Counts and logs a rejected manifest, and avoids its endpoint for a time.
    pub(super) fn reject(
        &self,
        tracker: Option<&ManifestTracker>,
        endpoint: usize,
        reason: RejectReason,
        why: &dyn Display,
    ) {
        let path = self.request.target.path();
        self.shield.live.count_rejection(reason);
        // One endpoint may fail this check many times a second; log it once.
        if tracker.is_none_or(|tracker| tracker.avoid(endpoint, Instant::now())) {
            tracing::warn!(path, endpoint, "manifest rejected: {why}");
        }
    }
}

/// The manifest's last-updated header (MediaPackage) says that it has not changed for several
/// reload intervals.
fn has_old_update_time(tracker: &ManifestTracker, headers: &HeaderMap) -> bool {
    let updated = headers::last_updated(headers);
    updated.is_some_and(|updated| tracker.is_old(updated, SystemTime::now()))
}
