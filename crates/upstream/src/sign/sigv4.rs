//! Signs requests with AWS Signature Version 4 in headers, over what is really sent.
//!
//! Pure: the time and the credentials are parameters.

mod canonical_request;

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use super::{Credentials, Service, Sigv4};
use crate::{Endpoint, Failure};
use canonical_request::{
    CanonicalRequest, EMPTY_PAYLOAD, SigningScope, SigningTime, UNSIGNED_PAYLOAD, canonical_query,
    canonical_spelling, normalized_path,
};

/// The header fields of a signature; other values for these fields are dropped.
pub(crate) const FIELDS: [HeaderName; 4] =
    [header::AUTHORIZATION, CONTENT_SHA256, DATE, SECURITY_TOKEN];
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Longer targets are not signed: encoding triples the length at most, and `http` takes no URI of
/// 64 KiB.
const TARGET_BYTES_MAX: usize = 20_000;

/// The parts of a request that a signature covers.
pub(crate) struct Message<'a> {
    pub(crate) method: &'a Method,
    /// As sent, in `Host` or `:authority`.
    pub(crate) host: &'a HeaderValue,
    /// As sent: the result of [`Scope::target`].
    pub(crate) target: &'a PathAndQuery,
    pub(crate) headers: &'a HeaderMap,
    /// The request has no body.
    pub(crate) bodiless: bool,
}

/// Regions and service that signatures are valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The region of each endpoint, in order. A signature for another region is refused.
    pub(crate) regions: Vec<String>,
    pub(crate) service: Service,
}

impl Scope {
    /// `Err`: the index of an endpoint without a known region.
    pub(super) fn of(sigv4: &Sigv4, endpoints: &[Endpoint]) -> Result<Scope, usize> {
        let region = |(index, endpoint): (usize, &Endpoint)| -> Result<String, usize> {
            let own = endpoint.region.as_deref().or(endpoint.region_in_host());
            let region = own.or(sigv4.region.as_deref()).ok_or(index)?;
            Ok(region.to_owned())
        };
        Ok(Scope {
            regions: endpoints
                .iter()
                .enumerate()
                .map(region)
                .collect::<Result<_, _>>()?,
            service: sigv4.service,
        })
    }

    /// The target to send and sign; an error if it is too long.
    pub(crate) fn target(&self, requested: &PathAndQuery) -> Result<PathAndQuery, Failure> {
        let target = match self.service {
            Service::S3 if requested.path().starts_with('/') => spelling(requested)?,
            _ => requested.clone(),
        };
        let signable = target.as_str().len() <= TARGET_BYTES_MAX;
        signable.then_some(target).ok_or(Failure::Protocol)
    }

    /// The header fields to add to a request.
    pub(crate) fn sign(
        &self,
        endpoint: usize,
        message: &Message<'_>,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let scope = CredentialScope {
            region: self.regions.get(endpoint).ok_or(Failure::Protocol)?,
            name: self.service.as_str(),
            is_s3: self.service == Service::S3,
        };
        scope.sign(message, credentials, now)
    }
}

/// The scope of one endpoint.
struct CredentialScope<'a> {
    region: &'a str,
    name: &'a str,
    is_s3: bool,
}

impl CredentialScope<'_> {
    fn sign(
        &self,
        message: &Message<'_>,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let time = SigningTime::new(now);
        // Bodies are streamed: their hash is not known before their end.
        let is_payload_signed = message.bodiless && !self.is_s3;
        let mut added = vec![(DATE, time.as_str())];
        if !is_payload_signed {
            added.push((CONTENT_SHA256, UNSIGNED_PAYLOAD));
        }
        if let Some(token) = credentials.session_token() {
            added.push((SECURITY_TOKEN, token));
        }
        // S3 signs the path as it is, encoded once; other services normalise and encode it again.
        let path = message.target.path();
        let mut request = CanonicalRequest {
            method: message.method.as_str(),
            path: if self.is_s3 {
                path.to_owned()
            } else {
                normalized_path(path)
            },
            query: canonical_query(message.target.query().unwrap_or_default()),
            fields: BTreeMap::new(),
            payload: if is_payload_signed {
                EMPTY_PAYLOAD
            } else {
                UNSIGNED_PAYLOAD
            },
        };
        let host = message.host.to_str().map_err(|_| Failure::Protocol)?;
        request.add_field("host", host);
        for (name, value) in message.headers {
            if name.as_str().starts_with("x-amz-")
                && !FIELDS.contains(name)
                && let Ok(value) = value.to_str()
            {
                request.add_field(name.as_str(), value);
            }
        }
        for (name, value) in &added {
            request.add_field(name.as_str(), value);
        }
        let scope = SigningScope {
            time: &time,
            region: self.region,
            service: self.name,
        };
        let authorization = request.authorization(&scope, credentials);
        added.push((header::AUTHORIZATION, &authorization));
        let fields = added.into_iter().map(|(name, value)| {
            let mut value = HeaderValue::from_str(value).map_err(|_| Failure::Protocol)?;
            value.set_sensitive(true);
            Ok((name, value))
        });
        fields.collect()
    }
}

/// The target as it is sent. S3 signs the object key with a prescribed encoding; a path in that
/// encoding means the same to S3, and to compatible services that sign the path as received. A `+`
/// is encoded, because S3 itself reads it as a space.
fn spelling(target: &PathAndQuery) -> Result<PathAndQuery, Failure> {
    let mut spelling = canonical_spelling(target.path());
    if let Some(query) = target.query() {
        spelling.push('?');
        spelling.push_str(query);
    }
    spelling.parse().map_err(|_| Failure::Protocol)
}

#[cfg(test)]
mod tests;
