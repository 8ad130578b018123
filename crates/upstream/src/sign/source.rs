//! Credential sources in the order they are tried, from the environment and the settings. Reads no
//! file and sends no request.

use std::net::IpAddr;
use std::path::PathBuf;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use super::Credentials;
use crate::Endpoint;

/// Reads an environment variable; a closure, so that tests need no process-wide state.
pub type AwsEnvironment<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// Settings of AWS Signature Version 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sigv4 {
    /// Region of endpoints that neither set one nor have one in their host name.
    pub region: Option<String>,
    /// The AWS service.
    pub service: Service,
    /// Credential sources; the first that has credentials is used.
    pub sources: Vec<CredentialSource>,
}

/// The AWS service that verifies signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// AWS Elemental MediaPackage v2.
    MediaPackageV2,
    /// S3 and compatible services.
    S3,
}

/// A source of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// Environment variables.
    Given(Credentials),
    /// A profile of the shared credentials file.
    File {
        /// The file.
        path: PathBuf,
        /// The profile.
        profile: String,
    },
    /// The credential endpoint of an ECS or EKS container.
    Container {
        /// The URL.
        address: CredentialUrl,
        /// The token it requires.
        token: ContainerToken,
    },
    /// The EC2 instance metadata service.
    Instance {
        /// The URL; its path is not used.
        address: CredentialUrl,
    },
}

/// The authorization token for a container endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerToken {
    /// No token.
    Nothing,
    /// This value, marked as sensitive.
    Given(HeaderValue),
    /// The content of this file, read each time: it changes.
    File(PathBuf),
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialUrl {
    /// Server.
    pub endpoint: Endpoint,
    /// Path and query.
    pub target: PathAndQuery,
}

/// An environment variable with an invalid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}")]
pub struct BadVariable {
    /// Its name.
    pub name: &'static str,
    /// The reason, without quoting the value.
    pub why: &'static str,
}

type SourceResult = Result<Option<CredentialSource>, BadVariable>;

const CONTAINERS: &str = "http://169.254.170.2";
const INSTANCES: &str = "http://169.254.169.254";
const INSTANCES_V6: &str = "http://[fd00:ec2::254]";
/// Hosts besides loopback that may receive a container token without TLS.
const CONTAINER_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

impl Service {
    /// The service name in a signature.
    pub fn as_str(self) -> &'static str {
        match self {
            Service::MediaPackageV2 => "mediapackagev2",
            Service::S3 => "s3",
        }
    }
}

impl CredentialSource {
    /// All sources, in the standard AWS order.
    pub fn chain(environment: &AwsEnvironment<'_>) -> Result<Vec<CredentialSource>, BadVariable> {
        let found = [
            CredentialSource::given(environment)?,
            CredentialSource::file(environment, None, None),
            CredentialSource::container(environment)?,
            CredentialSource::instance(environment)?,
        ];
        Ok(found.into_iter().flatten().collect())
    }

    /// `AWS_ACCESS_KEY_ID` and related variables.
    pub fn given(environment: &AwsEnvironment<'_>) -> SourceResult {
        const ID: &str = "AWS_ACCESS_KEY_ID";
        const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
        let half_a_key = |name| {
            let why = "the other half of the key is not set";
            Err(BadVariable { name, why })
        };
        match (set(environment, ID), set(environment, SECRET)) {
            (Some(id), Some(secret)) => {
                let token = set(environment, "AWS_SESSION_TOKEN");
                let credentials = Credentials::new(id, secret, token, None);
                Ok(Some(CredentialSource::Given(credentials)))
            }
            (None, None) => Ok(None),
            (Some(_), None) => half_a_key(ID),
            (None, Some(_)) => half_a_key(SECRET),
        }
    }

    /// The shared credentials file. Missing arguments come from the environment, or are defaults.
    pub fn file(
        environment: &AwsEnvironment<'_>,
        path: Option<PathBuf>,
        profile: Option<String>,
    ) -> Option<CredentialSource> {
        let variable = |name| set(environment, name);
        let named = || variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let default = || Some(PathBuf::from(variable("HOME")?).join(".aws/credentials"));
        let profile = profile.or_else(|| variable("AWS_PROFILE"));
        Some(CredentialSource::File {
            path: path.or_else(named).or_else(default)?,
            profile: profile.unwrap_or_else(|| "default".to_owned()),
        })
    }

    /// The container endpoint of ECS and EKS.
    pub fn container(environment: &AwsEnvironment<'_>) -> SourceResult {
        const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
        const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
        let variable = |name| set(environment, name);
        let (name, url) = match (variable(RELATIVE), variable(FULL)) {
            (Some(path), _) if path.starts_with('/') => (RELATIVE, format!("{CONTAINERS}{path}")),
            (Some(path), _) => (RELATIVE, path),
            (None, Some(url)) => (FULL, url),
            (None, None) => return Ok(None),
        };
        let bad = |why| BadVariable { name, why };
        let address = CredentialUrl::parse(&url).ok_or(bad("not a valid http or https URL"))?;
        if !address.may_receive_token() {
            return Err(bad(
                "without TLS, only loopback and container addresses are allowed",
            ));
        }
        let token = match (
            variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            variable(TOKEN),
        ) {
            (Some(path), _) => ContainerToken::File(path.into()),
            (None, Some(text)) => {
                let why = "characters that a header cannot carry";
                let mut value =
                    HeaderValue::from_str(&text).map_err(|_| BadVariable { name: TOKEN, why })?;
                value.set_sensitive(true);
                ContainerToken::Given(value)
            }
            (None, None) => ContainerToken::Nothing,
        };
        Ok(Some(CredentialSource::Container { address, token }))
    }

    /// The instance metadata service, unless disabled.
    pub fn instance(environment: &AwsEnvironment<'_>) -> SourceResult {
        const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        let variable = |name| set(environment, name);
        let is_set_to =
            |name, word: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        if is_set_to("AWS_EC2_METADATA_DISABLED", "true") {
            return Ok(None);
        }
        let default = if is_set_to("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv6") {
            INSTANCES_V6
        } else {
            INSTANCES
        };
        let url = variable(ENDPOINT).unwrap_or_else(|| default.to_owned());
        let (name, why) = (ENDPOINT, "not the URL of a metadata service");
        let address = CredentialUrl::parse(&url).ok_or(BadVariable { name, why })?;
        Ok(Some(CredentialSource::Instance { address }))
    }
}

/// The trimmed value of a variable; `None` if empty.
fn set(environment: &AwsEnvironment<'_>, name: &str) -> Option<String> {
    let value = environment(name)?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

impl CredentialUrl {
    /// Parses an `http` or `https` URL; `None` if invalid.
    pub fn parse(url: &str) -> Option<CredentialUrl> {
        let uri: Uri = url.parse().ok()?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let default_port = if tls { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(default_port);
        let endpoint = Endpoint::new(tls, host, port);
        let slash = PathAndQuery::from_static("/");
        let target = uri.path_and_query().cloned().unwrap_or(slash);
        Some(CredentialUrl { endpoint, target })
    }

    fn may_receive_token(&self) -> bool {
        let Endpoint { tls, host, .. } = &self.endpoint;
        let loopback = match host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => host == "localhost",
        };
        *tls || loopback || CONTAINER_HOSTS.contains(&host.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let set: Vec<_> = set
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        move |wanted| {
            let found = set.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        }
    }

    fn chain(set: &[(&str, &str)]) -> Result<Vec<String>, &'static str> {
        let sources = CredentialSource::chain(&environment(set)).map_err(|bad| bad.name)?;
        let said = sources.iter().map(|source| format!("{source:?}"));
        Ok(said.collect())
    }

    #[test]
    fn credential_sources_are_tried_in_aws_order() {
        let said = chain(&[
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_SESSION_TOKEN", "hunter3"),
            ("HOME", "/home/me"),
            ("AWS_PROFILE", "live"),
            (
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "/v2/credentials?id=1",
            ),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hunter4"),
        ])
        .unwrap();
        let expected = [
            "Given(Credentials { access_key_id: \"AKID\"",
            "File { path: \"/home/me/.aws/credentials\", profile: \"live\" }",
            "Container { address: CredentialUrl { endpoint: Endpoint { tls: false, \
             host: \"169.254.170.2\"",
            "Instance { address: CredentialUrl { endpoint: Endpoint { tls: false, \
             host: \"169.254.169.254\"",
        ];
        assert_eq!(said.len(), expected.len());
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}");
            assert!(!said.contains("hunter"), "{said}");
        }
        assert!(said[2].contains("/v2/credentials?id=1"), "{}", said[2]);
    }

    #[test]
    fn rejects_half_a_key_and_invalid_urls_by_variable_name() {
        let id = ("AWS_ACCESS_KEY_ID", "AKID");
        assert_eq!(chain(&[id]), Err(id.0));
        let secret = ("AWS_SECRET_ACCESS_KEY", "hunter2");
        assert_eq!(chain(&[secret, ("AWS_ACCESS_KEY_ID", " ")]), Err(secret.0));
        let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        for url in [
            "nowhere",
            "ftp://127.0.0.1/",
            "http://10.0.0.1/x",
            "http://me@127.0.0.1/",
        ] {
            assert_eq!(chain(&[(full, url)]), Err(full), "{url}");
        }
        let endpoint = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        assert_eq!(chain(&[(endpoint, "169.254.169.254")]), Err(endpoint));
    }

    #[test]
    fn container_full_uri_with_token_file_is_the_only_source() {
        for url in [
            "http://[fd00:ec2::23]/x",
            "http://127.0.0.1:9/x",
            "https://auth.example/x",
        ] {
            let said = chain(&[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/run/token"),
                ("AWS_EC2_METADATA_DISABLED", "TRUE"),
            ]);
            let [container] = &said.unwrap()[..] else {
                panic!("one place");
            };
            assert!(
                container.ends_with("token: File(\"/var/run/token\") }"),
                "{container}"
            );
        }
    }
}
