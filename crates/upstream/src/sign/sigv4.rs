//! Signs requests with AWS Signature Version 4 in headers, over what is really sent.
//!
//! Pure: the time and the credentials are parameters.

use std::fmt::Write;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use super::{Service, Sigv4};
use crate::{Endpoint, Failure};

/// The header fields of a signature; other values for these fields are dropped.
pub(crate) const FIELDS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-amz-content-sha256"),
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
];

/// Longer targets are not signed. Encoding triples the length at most, and the signing crate panics
/// if a URI that it builds exceeds 65,534 bytes.
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
        let region = |(place, endpoint): (usize, &Endpoint)| -> Result<String, usize> {
            let own = endpoint.region.as_deref().or(endpoint.region_in_host());
            let region = own.or(sigv4.region.as_deref()).ok_or(place)?;
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
    pub(crate) fn target(&self, asked: &PathAndQuery) -> Result<PathAndQuery, Failure> {
        let target = match self.service {
            Service::S3 if asked.path().starts_with('/') => spelling(asked)?,
            _ => asked.clone(),
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
        let place = CredentialScope {
            region: self.regions.get(endpoint).ok_or(Failure::Protocol)?,
            name: self.service.as_str(),
            is_s3: self.service == Service::S3,
        };
        place.sign(message, credentials, now)
    }
}

/// The scope in terms of the signing crate.
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
        let unsignable = |_| Failure::Protocol;
        let host = message.host.to_str().map_err(|_| Failure::Protocol)?;
        let fields = message.headers.iter().filter_map(|(name, value)| {
            let own = name.as_str().starts_with("x-amz-") && !FIELDS.contains(name);
            Some((name.as_str(), value.to_str().ok()?)).filter(|_| own)
        });
        let headers = std::iter::once(("host", host)).chain(fields);
        // Bodies are streamed: their hash is not known before their end.
        let body = if message.bodiless && !self.is_s3 {
            SignableBody::Bytes(&[])
        } else {
            SignableBody::UnsignedPayload
        };
        let settings = self.settings(&body);
        let target = message.target.as_str();
        let request = SignableRequest::new(message.method.as_str(), target, headers, body);
        let identity = credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.name)
            .time(now)
            .settings(settings)
            .build()
            .map_err(|_| Failure::Protocol)?
            .into();
        let signed = sign(request.map_err(unsignable)?, &params).map_err(unsignable)?;
        let (fields, _) = signed.into_parts().0.into_parts();
        let fields = fields.iter().map(|field| {
            let name = HeaderName::from_bytes(field.name().as_bytes());
            let mut value = HeaderValue::from_str(field.value()).map_err(|_| Failure::Protocol)?;
            value.set_sensitive(true);
            Ok((name.map_err(|_| Failure::Protocol)?, value))
        });
        fields.collect()
    }

    /// S3 uses the path as it is, encoded once; other services normalise it and encode it twice.
    fn settings(&self, body: &SignableBody<'_>) -> SigningSettings {
        let mut settings = SigningSettings::default();
        if self.is_s3 {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        if *body == SignableBody::UnsignedPayload {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        settings
    }
}

/// The target as it is sent. S3 signs the object key with a prescribed encoding; a path in that
/// encoding means the same to S3, and to compatible services that sign the path as received. A `+`
/// is encoded, because S3 itself reads it as a space.
fn spelling(target: &PathAndQuery) -> Result<PathAndQuery, Failure> {
    let mut spelling = String::with_capacity(target.as_str().len() + 16);
    for byte in decoded(target.path().as_bytes()) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                spelling.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(spelling, "%{byte:02X}")),
        }
    }
    if let Some(query) = target.query() {
        spelling.push('?');
        spelling.push_str(query);
    }
    spelling.parse().map_err(|_| Failure::Protocol)
}

/// Percent-decodes a path; a `%` that begins no escape is kept.
fn decoded(path: &[u8]) -> impl Iterator<Item = u8> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *path.get(at)?;
        at += 1;
        let digit = |offset: usize| char::from(*path.get(at + offset)?).to_digit(16);
        if byte == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
        {
            at += 2;
            return u8::try_from(high * 16 + low).ok();
        }
        Some(byte)
    })
}

#[cfg(test)]
mod tests;
