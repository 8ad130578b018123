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

use super::FillTask;
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

/// A manifest that may be served.
pub(super) struct ManifestText {
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
    /// arrived if the origin held that back.
    pub(super) current_at: Instant,
    /// Its last-updated header (MediaPackage) says that it has not changed for several periods.
    pub(super) is_old: bool,
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
        let first = response.endpoint;
        let mut text = self.read_or_elsewhere(response).await;
        let doubtful = match &text {
            Ok(text) => text.is_doubtful(),
            Err(ManifestRejection::FetchFailed(failure)) => *failure == Failure::Truncated,
            Err(ManifestRejection::Unusable | ManifestRejection::Behind(_)) => true,
        };
        if doubtful && let Some(other) = self.request_elsewhere(first).await {
            let other = self.read_manifest(other).await;
            text = self.choose_version(text, other);
        }
        match text {
            Ok(text) => self.publish(text).await,
            Err(ManifestRejection::FetchFailed(failure)) => self.handle_failure(failure),
            Err(ManifestRejection::Behind(text)) => self.settle_behind(*text),
            Err(ManifestRejection::Unusable) => self.handle_failure(Failure::Protocol),
        }
    }

    /// Chooses between two endpoints' versions after the first was unusable or doubtful.
    fn choose_version(
        &self,
        first: Result<ManifestText, ManifestRejection>,
        other: Result<ManifestText, ManifestRejection>,
    ) -> Result<ManifestText, ManifestRejection> {
        match (first, other) {
            (Ok(first), Ok(other)) if !other.is_doubtful() => {
                let reason = first.reject_reason();
                let why = "another endpoint has a usable one";
                self.reject(
                    first.tracker.as_deref(),
                    first.response.endpoint,
                    reason,
                    &why,
                );
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

    /// The tracker of the requested manifest.
    pub(super) fn tracker(&self) -> Option<Arc<ManifestTracker>> {
        self.shield.live.tracker(&self.request)
    }

    /// Reads a manifest. If it is not complete within [`SILENCE`], also reads another endpoint's.
    async fn read_or_elsewhere(
        &self,
        response: UpstreamResponse,
    ) -> Result<ManifestText, ManifestRejection> {
        let first = response.endpoint;
        let mut reading = pin!(self.read_manifest(response));
        if let Ok(text) = timeout(SILENCE, &mut reading).await {
            return text;
        }
        tokio::select! {
            biased;
            text = &mut reading => text,
            Some(other) = self.request_elsewhere(first) => {
                self.avoid_endpoint(first);
                self.read_manifest(other).await
            }
        }
    }

    async fn read_manifest(
        &self,
        mut response: UpstreamResponse,
    ) -> Result<ManifestText, ManifestRejection> {
        let (sent, current_at) = self.sent_and_current_at(&response);
        let kind = self.kind(response.status, &response.headers);
        let bytes_max = self.shield.settings.manifest_bytes_max;
        let reserve = |bytes| self.fill.reserve(bytes);
        let body = match read_whole(&mut response.body, bytes_max, reserve).await {
            Ok(body) => body,
            Err(ReadWholeError::Origin(failure)) => {
                return Err(ManifestRejection::FetchFailed(failure));
            }
            Err(ReadWholeError::NoRoom) => {
                return Err(ManifestRejection::FetchFailed(Failure::Busy));
            }
            Err(error) => return Err(self.reject_broken(response.endpoint, &error)),
        };
        let ParsedManifest { manifest, delta } = match self.parse(kind, &response, &body).await {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Err(ManifestRejection::FetchFailed(Failure::Busy)),
            Err(error) => return Err(self.reject_broken(response.endpoint, &error)),
        };
        let tracker = self.tracker_of(manifest.as_ref(), &response, kind, current_at);
        let text = ManifestText {
            is_old: tracker
                .as_ref()
                .is_some_and(|tracker| is_old(tracker, &response.headers)),
            variant: self.variant(&response.headers),
            tracker,
            response,
            kind,
            body,
            manifest,
            delta,
            current_at,
        };
        if text.progress() != Progress::Behind {
            return Ok(text);
        }
        if let Some(tracker) = &text.tracker
            && tracker.has_newer_version(text.variant, sent)
        {
            // The endpoint is not to blame: another request has brought a newer version since.
            return Ok(text);
        }
        let reason = RejectReason::Behind;
        let why = "behind what viewers have seen";
        self.reject(
            text.tracker.as_deref(),
            text.response.endpoint,
            reason,
            &why,
        );
        Err(ManifestRejection::Behind(Box::new(text)))
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
            self.decide_storage(response, kind, Some(info), false),
            StorageDecision::Pass(_)
        ) {
            return None;
        }
        self.shield
            .live
            .tracker_or_new(&self.request, info, current_at)
    }

    /// Parses the manifest and makes its delta update, on a blocking thread if that may take long.
    /// `None`: no thread was free in time, or parsing panicked.
    async fn parse(
        &self,
        kind: Kind,
        response: &UpstreamResponse,
        body: &Bytes,
    ) -> Result<Option<ParsedManifest>, DecodeError> {
        let bytes_max = self.shield.settings.manifest_bytes_max;
        let makes_delta = self.request.route.live.delta_updates && kind != Kind::Dash;
        let (headers, text) = (response.headers.clone(), body.clone());
        let is_coded = headers.contains_key(header::CONTENT_ENCODING);
        let work = move || {
            let manifest = coding::decode_and_parse(kind, &headers, &text, bytes_max)?;
            let info = manifest.as_ref().map(|manifest| &manifest.info);
            let offered = info.is_some_and(ManifestInfo::can_skip);
            let text = std::str::from_utf8(&text).ok();
            let text = text.filter(|_| makes_delta && offered);
            let delta = text.and_then(low_latency::delta);
            Ok(ParsedManifest { manifest, delta })
        };
        match WorkSize::of(body.len(), is_coded).run(work).await {
            Some(parsed) => parsed.map(Some),
            None => Ok(None),
        }
    }

    /// When the request was sent, and when the response was current.
    pub(super) fn sent_and_current_at(&self, response: &UpstreamResponse) -> (Instant, Instant) {
        let now = Instant::now();
        let sent = now.checked_sub(response.waited).unwrap_or(now);
        (sent, if self.held_back { now } else { sent })
    }

    fn reject_broken(&self, endpoint: usize, why: &dyn Display) -> ManifestRejection {
        self.reject(
            self.tracker().as_deref(),
            endpoint,
            RejectReason::Broken,
            why,
        );
        ManifestRejection::Unusable
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
            tracing::warn!(path, endpoint, "manifest refused: {why}");
        }
    }
}

/// The manifest's last-updated header (MediaPackage) says that it has not changed for several
/// periods.
fn is_old(tracker: &ManifestTracker, headers: &HeaderMap) -> bool {
    let updated = headers::last_updated(headers);
    updated.is_some_and(|updated| tracker.is_old(updated, SystemTime::now()))
}
