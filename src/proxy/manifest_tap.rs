//! Parses uncacheable manifests while they are passed to one viewer. A short one is parsed before
//! its last bytes are sent, so that the viewer's next request does not get an object that the
//! manifest has made invalid.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Shield;
use super::blocking_work::WorkSize;
use super::coding;
use crate::live::Variant;
use seawall_manifest::{Kind, Manifest};
use seawall_policy::Now;
use seawall_policy::access::CacheRequest;
use seawall_policy::vary::Vary;
use seawall_upstream::UpstreamResponse;

/// A longer manifest is passed on without being parsed.
const TEXT_BYTES_MAX: usize = 2 << 20;
/// Maximum manifests tapped at once; further ones are passed on without being parsed.
const AT_ONCE_MAX: usize = 32;

static PERMITS: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

/// An uncacheable manifest, as far as it has arrived.
pub(super) struct ManifestTap {
    shield: Arc<Shield>,
    request: CacheRequest,
    kind: Kind,
    /// The response headers.
    headers: HeaderMap,
    variant: Variant,
    sent: Instant,
    text: Vec<u8>,
    _permit: SemaphorePermit<'static>,
}

impl ManifestTap {
    /// Begins with a response head. `None`: it is no manifest, or too many are being parsed.
    pub(super) fn of(
        shield: &Arc<Shield>,
        request: &CacheRequest,
        upstream_headers: &HeaderMap,
        response: &UpstreamResponse,
    ) -> Option<Box<ManifestTap>> {
        let content_type = response.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let kind = request.kind.refined(content_type);
        if response.status != StatusCode::OK || !kind.is_manifest() {
            return None;
        }
        let permit = PERMITS.try_acquire().ok()?;
        let values = match Vary::of(&response.headers) {
            Vary::On(names) => Some(Vary::values(&names, upstream_headers)),
            Vary::Nothing | Vary::Everything => None,
        };
        let now = Instant::now();
        Some(Box::new(ManifestTap {
            shield: Arc::clone(shield),
            request: request.clone(),
            kind,
            headers: response.headers.clone(),
            variant: shield.live.variant(values.as_deref()),
            sent: now.checked_sub(response.waited).unwrap_or(now),
            text: Vec::new(),
            _permit: permit,
        }))
    }

    /// Adds bytes. False: the manifest is too long.
    pub(super) fn push(&mut self, bytes: &Bytes) -> bool {
        let fits = self.text.len() + bytes.len() <= TEXT_BYTES_MAX;
        if fits {
            self.text.extend_from_slice(bytes);
        }
        fits
    }

    /// The manifest is complete: parses it, and applies it to its stream.
    pub(super) fn apply(mut self: Box<Self>) {
        let text = Bytes::from(std::mem::take(&mut self.text));
        let (kind, headers) = (self.kind, std::mem::take(&mut self.headers));
        let is_coded = headers.contains_key(header::CONTENT_ENCODING);
        let size = WorkSize::of(text.len(), is_coded);
        let read = move || coding::decode_and_parse(kind, &headers, &text, TEXT_BYTES_MAX as u64);
        if size == WorkSize::Short {
            return self.record(read().ok().flatten());
        }
        tokio::spawn(async move {
            let manifest = size.run(read).await.and_then(Result::ok);
            self.record(manifest.flatten());
        });
    }

    fn record(&self, manifest: Option<Manifest>) {
        if let Some(manifest) = manifest {
            let what = (&self.request, self.variant);
            self.shield.record_unstored(what, &manifest, self.sent);
        }
    }
}

impl Shield {
    /// Applies what a manifest says that is forwarded and not stored: a restart, or that files have
    /// grown, makes stored objects invalid.
    pub(super) fn record_unstored(
        &self,
        (request, variant): (&CacheRequest, Variant),
        manifest: &Manifest,
        sent: Instant,
    ) {
        let what = (request, variant);
        let effects = self
            .live
            .record_unstored(&self.rules, what, manifest, sent, Now::read());
        for epoch in &effects.epochs_to_end {
            self.cache.end_epoch(epoch);
        }
        if effects.is_restart {
            let path = request.target.path();
            tracing::warn!(path, "stream restarted: its stored objects are dropped");
        }
    }
}
