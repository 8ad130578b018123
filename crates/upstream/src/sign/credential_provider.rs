//! Fetches credentials from a source: reads files, and requests endpoints through this module's own
//! connections. Deadlines are short: a request waits for the signature.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use seawall_manifest::date_time;
use serde::Deserialize;

use super::credential_error::CredentialError;
use super::source::{ContainerToken, CredentialSource, CredentialUrl};
use super::{Credentials, file, header_file, profile};
use crate::{
    Deadlines, Origin, Priority, Protocol, Resolver, Settings, SetupError, UpstreamRequest,
};

/// These endpoints are local or close.
const DEADLINES: Deadlines = Deadlines {
    queue: Duration::from_secs(1),
    connect: Duration::from_secs(1),
    manifest: Duration::from_secs(2),
    first_byte: Duration::from_secs(2),
    blocking: Duration::from_secs(2),
    between_bytes: Duration::from_secs(1),
    total: Duration::from_secs(3),
};
/// A longer response cannot be credentials.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Lifetime of an instance metadata session in seconds: one round needs a few.
const SESSION_SECONDS: HeaderValue = HeaderValue::from_static("60");
const SESSION_SECONDS_FIELD: HeaderName =
    HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const SESSION_FIELD: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const SESSIONS: PathAndQuery = PathAndQuery::from_static("/latest/api/token");
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// A credential source, ready to be used.
pub(super) enum CredentialProvider {
    Given(Credentials),
    File {
        path: PathBuf,
        profile: String,
    },
    Container {
        origin: Origin,
        target: PathAndQuery,
        token: ContainerToken,
    },
    Instance {
        origin: Origin,
    },
}

impl CredentialProvider {
    pub(super) fn new(
        source: CredentialSource,
        lookup: &Resolver,
    ) -> Result<CredentialProvider, SetupError> {
        Ok(match source {
            CredentialSource::Given(credentials) => CredentialProvider::Given(credentials),
            CredentialSource::File { path, profile } => CredentialProvider::File { path, profile },
            CredentialSource::Container { address, token } => CredentialProvider::Container {
                target: address.target.clone(),
                origin: origin("container credentials", address, lookup)?,
                token,
            },
            CredentialSource::Instance { address } => CredentialProvider::Instance {
                origin: origin("instance metadata", address, lookup)?,
            },
        })
    }

    /// The log word.
    pub(super) fn name(&self) -> &'static str {
        match self {
            CredentialProvider::Given(_) => "environment",
            CredentialProvider::File { .. } => "file",
            CredentialProvider::Container { .. } => "container",
            CredentialProvider::Instance { .. } => "instance",
        }
    }

    pub(super) async fn fetch(&self) -> Result<Credentials, CredentialError> {
        let credentials = match self {
            CredentialProvider::Given(credentials) => credentials.clone(),
            CredentialProvider::File { path, profile } => {
                let (path_read, profile_read) = (path.clone(), profile.clone());
                let read = run_blocking(move || from_file(&path_read, &profile_read)).await?;
                read.map_err(|error| CredentialError {
                    why: format!("{}, profile {profile}: {}", path.display(), error.why),
                    ..error
                })?
            }
            CredentialProvider::Container {
                origin,
                target,
                token,
            } => from_container(origin, target, token).await?,
            CredentialProvider::Instance { origin } => from_instance(origin).await?,
        };
        match credentials.expiry() {
            Some(expiry) if expiry <= SystemTime::now() => {
                Err(CredentialError::broken("its credentials have expired"))
            }
            _ => Ok(credentials),
        }
    }
}

fn origin(name: &str, address: CredentialUrl, lookup: &Resolver) -> Result<Origin, SetupError> {
    let settings = Settings {
        protocol: Protocol::H1,
        deadlines: DEADLINES,
        ..Settings::single(name, address.endpoint)
    };
    Origin::new(settings, lookup.clone())
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CredentialError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| CredentialError::broken("the program is stopping"))
}

fn from_file(path: &Path, profile: &str) -> Result<Credentials, CredentialError> {
    let text = file::text(path).map_err(|error| CredentialError {
        absent: error.kind() == std::io::ErrorKind::NotFound,
        why: error.to_string(),
    })?;
    profile::read(&text, profile)
}

/// Checks that a file has a profile's credentials, or says why not. Blocks.
pub fn check_profile(path: &Path, profile: &str) -> Result<(), String> {
    let read = from_file(path, profile);
    read.map(drop).map_err(|error| error.why)
}

async fn from_container(
    origin: &Origin,
    target: &PathAndQuery,
    token: &ContainerToken,
) -> Result<Credentials, CredentialError> {
    let mut headers = HeaderMap::new();
    let token = match token {
        ContainerToken::Nothing => None,
        ContainerToken::Given(value) => Some(value.clone()),
        ContainerToken::File(path) => {
            let path = path.clone();
            let read = run_blocking(move || header_file::header_value(&path)).await?;
            Some(read.map_err(|why| CredentialError::broken(format!("its token's file: {why}")))?)
        }
    };
    headers.extend(token.map(|token| (header::AUTHORIZATION, token)));
    let response = fetch_text(
        origin,
        UpstreamRequest::get(target.clone(), None, headers, Priority::Manifest),
    )
    .await?;
    parse_credentials(&response)
}

/// IMDSv2: get a session token, then the role name, then its credentials.
async fn from_instance(origin: &Origin) -> Result<Credentials, CredentialError> {
    let mut headers = HeaderMap::new();
    headers.insert(SESSION_SECONDS_FIELD, SESSION_SECONDS);
    let opening = UpstreamRequest {
        method: Method::PUT,
        ..UpstreamRequest::get(SESSIONS, None, headers, Priority::Manifest)
    };
    let session = fetch_text(origin, opening).await?;
    let unreadable = || CredentialError::broken("it gave a session that cannot be sent back");
    let mut session = HeaderValue::from_bytes(&session).map_err(|_| unreadable())?;
    session.set_sensitive(true);
    let get = async |path: &str| {
        let target = path.parse().map_err(|_| unreadable())?;
        let headers = HeaderMap::from_iter([(SESSION_FIELD, session.clone())]);
        fetch_text(
            origin,
            UpstreamRequest::get(target, None, headers, Priority::Manifest),
        )
        .await
    };
    let roles = get(ROLES).await.map_err(|error| CredentialError {
        why: format!("no role, {}", error.why),
        ..error
    })?;
    let role = std::str::from_utf8(&roles)
        .unwrap_or_default()
        .lines()
        .next();
    let role = role.map(str::trim).filter(|role| !role.is_empty());
    let role = role.ok_or_else(|| CredentialError::broken("the instance has no role"))?;
    parse_credentials(&get(&format!("{ROLES}{role}")).await?)
}

/// Sends a request and reads the whole body.
async fn fetch_text(origin: &Origin, request: UpstreamRequest) -> Result<Bytes, CredentialError> {
    let failed = |failure: crate::Failure| {
        CredentialError::broken(format!("no response ({})", failure.as_str()))
    };
    let mut response = origin.fetch(request).await.map_err(failed)?;
    if response.status != StatusCode::OK {
        let status = response.status.as_u16();
        return Err(CredentialError::broken(format!(
            "answered with status {status}"
        )));
    }
    let mut content = Vec::new();
    while let Some(chunk) = response.body.next().await {
        content.extend_from_slice(&chunk.map_err(failed)?);
        if content.len() > ANSWER_BYTES_MAX {
            return Err(CredentialError::broken("answered with too much"));
        }
    }
    Ok(content.into())
}

/// The JSON document of both kinds of endpoints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialDocument {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

/// Parses credentials. JSON errors may quote a secret, so they are not passed on.
fn parse_credentials(response: &[u8]) -> Result<Credentials, CredentialError> {
    let document: CredentialDocument = serde_json::from_slice(response)
        .map_err(|_| CredentialError::broken("answered with something else than credentials"))?;
    let expiry = document.expiration.as_deref().map(parse_time).transpose()?;
    let (id, secret) = (document.access_key_id, document.secret_access_key);
    if id.is_empty() || secret.is_empty() {
        return Err(CredentialError::broken("answered with an empty key"));
    }
    Ok(Credentials::new(id, secret, document.token, expiry))
}

fn parse_time(text: &str) -> Result<SystemTime, CredentialError> {
    let unreadable = || CredentialError::broken("answered with a time that cannot be read");
    date_time(text).ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn parses_aws_credentials_document() {
        let response =
            br#"{"Code":"Success","LastUpdated":"2015-08-30T12:00:00Z","Type":"AWS-HMAC",
            "AccessKeyId":"AKID","SecretAccessKey":"s","Token":"t",
            "Expiration":"2015-08-30T12:36:00Z"}"#;
        let read = parse_credentials(response).unwrap();
        assert_eq!(
            (read.access_key_id(), read.secret_access_key()),
            ("AKID", "s")
        );
        assert_eq!(read.session_token(), Some("t"));
        let expiry = UNIX_EPOCH + Duration::from_mins(24_015_636);
        assert_eq!(read.expiry(), Some(expiry));
    }

    #[test]
    fn malformed_credentials_error_does_not_quote_the_document() {
        for response in [
            "hunter2",
            r#"{"AccessKeyId":"A","SecretAccessKey":["hunter2"]}"#,
            r#"{"AccessKeyId":"","SecretAccessKey":"hunter2"}"#,
            r#"{"AccessKeyId":"A","SecretAccessKey":"hunter2","Expiration":"hunter2"}"#,
        ] {
            let error = parse_credentials(response.as_bytes()).unwrap_err();
            assert!(!error.absent && !error.why.contains("hunter2"), "{error:?}");
        }
    }
}
