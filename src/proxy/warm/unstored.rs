//! Reads manifests that may not be stored: what they name may be.

use http::{HeaderMap, StatusCode};
use tokio::time::timeout_at;

use super::listing::{ManifestBody, WarmBatch};
use super::{WarmOutcome, WarmStep, WarmedObject, ended};
use crate::live::{PrefetchSource, PrefetchedObject};
use crate::proxy::Shield;
use crate::proxy::pass_through_response::PassThroughResponse;
use crate::proxy::read_whole::{ReadWholeError, read_whole};
use seawall_manifest::Kind;
use seawall_policy::access::CacheRequest;
use seawall_upstream::{ExpectedContent, Failure, UpstreamRequest};

impl Shield {
    /// What is known to be uncacheable: a manifest is fetched and read, and nothing else is.
    pub(super) async fn warm_unstored(
        &self,
        request: &CacheRequest,
        headers: &HeaderMap,
        batch: &WarmBatch,
    ) -> WarmStep {
        if !self.live.kind_of(request).is_manifest() {
            return WarmStep::Done(ended(request, WarmOutcome::Uncacheable));
        }
        let Some(_permit) =
            self.prefetch_permit(request, PrefetchedObject::Exists, PrefetchSource::Warm)
        else {
            return WarmStep::Wait;
        };
        let read = self.read_unstored(request, headers);
        let read = timeout_at(batch.deadline.into(), read).await;
        let Ok(read) = read else {
            return WarmStep::Done(ended(request, WarmOutcome::Busy));
        };
        WarmStep::Done(match read {
            Ok((status, manifest)) => {
                let uncacheable = WarmedObject {
                    status: Some(status),
                    bytes: manifest.body.len() as u64,
                    received: manifest.body.len() as u64,
                    ..ended(request, WarmOutcome::Uncacheable)
                };
                if status == StatusCode::OK {
                    self.with_names(request, uncacheable, manifest, batch).await
                } else {
                    WarmedObject {
                        outcome: WarmOutcome::Failed,
                        ..uncacheable
                    }
                }
            }
            Err(error) => WarmedObject {
                reason: Some(format!("may not be stored, and is not read: {error}")),
                ..ended(request, WarmOutcome::Failed)
            },
        })
    }

    async fn read_unstored(
        &self,
        request: &CacheRequest,
        headers: &HeaderMap,
    ) -> Result<(StatusCode, ManifestBody), ReadWholeError> {
        let upstream_request = UpstreamRequest {
            expected_content: ExpectedContent::Manifest,
            ..self.unstored_request(request, headers)
        };
        let origin = self.origin_of(&request.route);
        let fetched: Result<_, Failure> = origin.fetch(upstream_request).await;
        let mut response = fetched?;
        // Few are read at once: each holds a permit of warm fetches.
        let bytes_max = self.settings.manifest_bytes_max;
        let body = read_whole(&mut response.body, bytes_max, |_| true).await?;
        let manifest = ManifestBody {
            kind: self.live.kind_of(request),
            headers: response.headers,
            body,
        };
        Ok((response.status, manifest))
    }

    /// A response that the fill could not share. A manifest has been read to its end.
    pub(super) async fn warm_passed(
        &self,
        request: &CacheRequest,
        passed: PassThroughResponse,
        batch: &WarmBatch,
    ) -> WarmedObject {
        let status = passed.status;
        let uncacheable = WarmedObject {
            status: Some(status),
            ..ended(request, WarmOutcome::Uncacheable)
        };
        let Some((headers, body)) = passed.into_whole().filter(|_| status == StatusCode::OK) else {
            return uncacheable;
        };
        let kind = match self.live.kind_of(request) {
            kind if kind.is_manifest() => kind,
            _ => kind_of_text(&body),
        };
        let read = WarmedObject {
            kind,
            bytes: body.len() as u64,
            received: body.len() as u64,
            ..uncacheable
        };
        let manifest = ManifestBody {
            kind,
            headers,
            body,
        };
        self.with_names(request, read, manifest, batch).await
    }
}

/// Which kind of manifest begins like this.
fn kind_of_text(body: &[u8]) -> Kind {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if text.starts_with(b"#EXTM3U") {
        Kind::Hls
    } else {
        Kind::Dash
    }
}
