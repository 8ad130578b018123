//! How does an origin know who is asking? By header values that are secrets, by a signature, by a
//! certificate: what a group shows, kept up to date behind the requests.
//!
//! A request takes a [`Seal`] along: the values and credentials it is sent with. Knows nothing of
//! connections; secrets are in no log, error or `Debug` of this room.

mod background_task;
mod certificate;
mod credential_cache;
mod credential_provider;
mod file;
mod header_file;
mod profile;
mod sigv4;
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use tokio::time::{Instant, sleep};

pub use certificate::ClientCertificate;
pub use credential_provider::look_for_profile;
pub use header_file::header_value;
pub use source::{
    AwsEnvironment, BadVariable, ContainerToken, CredentialSource, CredentialUrl, Service, Sigv4,
};

#[cfg(test)]
pub(super) use sigv4::Scope;
pub(super) use sigv4::{FIELDS, Message};

use super::{Failure, Resolver, Settings, SetupError};
use background_task::SingleTask;
use credential_cache::CredentialCache;
use header_file::HeaderFile;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether a header is one that signatures are made of.
pub fn is_of_signature(name: &str) -> bool {
    FIELDS
        .iter()
        .any(|field| field.as_str().eq_ignore_ascii_case(name))
}

/// What a group shows to its origin.
pub(super) struct Signer {
    /// Whose, for logs.
    owner: Arc<str>,
    /// Values that stay as they are.
    fixed: Vec<(HeaderName, HeaderValue)>,
    /// Values that change.
    files: Vec<HeaderFile>,
    looking: SingleTask,
    /// The origin took the values before the last change, and refused those after it.
    former_first: AtomicBool,
    /// What makes signatures.
    signing: Option<(Arc<sigv4::Scope>, Arc<CredentialCache>)>,
}

/// What one request is sent with.
#[derive(Clone)]
pub(super) struct RequestAuth {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The values are those before the last change.
    former: bool,
    /// What the signature is made for, and with.
    signing: Option<(Arc<sigv4::Scope>, Credentials)>,
    signer: Arc<Signer>,
}

impl Signer {
    /// Reads the files for the first time, and starts looking after them if there is a runtime to
    /// do that in.
    pub(super) fn new(settings: &Settings, lookup: &Resolver) -> Result<Arc<Signer>, SetupError> {
        let files = settings.header_files.iter().map(|(name, path)| {
            let watched = HeaderFile::new(name.clone(), path.clone());
            watched.map_err(|(path, why)| SetupError::HeaderFile { path, why })
        });
        let signing = settings.sigv4.as_ref().map(|sigv4| {
            let keyring = CredentialCache::new(&settings.name, &sigv4.sources, lookup)?;
            let scope = sigv4::Scope::of(sigv4, &settings.endpoints).map_err(|place| {
                let host = settings.endpoints[place].host.clone();
                SetupError::Region { host }
            })?;
            Ok((Arc::new(scope), keyring))
        });
        let signer = Arc::new(Signer {
            owner: Arc::clone(&settings.name),
            fixed: settings.headers.clone(),
            files: files.collect::<Result<_, _>>()?,
            looking: SingleTask::default(),
            former_first: AtomicBool::new(false),
            signing: signing.transpose()?,
        });
        if tokio::runtime::Handle::try_current().is_ok() {
            signer.tend();
        }
        Ok(signer)
    }

    /// Waits until there is something to sign with: only where there is nothing, and not for long.
    pub(super) async fn ready(&self, until: Instant) -> Result<(), Failure> {
        match &self.signing {
            Some((_, keyring)) => keyring.ready(until).await,
            None => Ok(()),
        }
    }

    /// What the next request is to be sent with.
    pub(super) fn seal(self: &Arc<Self>) -> Result<RequestAuth, Failure> {
        self.tend();
        let signing = match &self.signing {
            Some((scope, keyring)) => Some((Arc::clone(scope), keyring.credentials()?)),
            None => None,
        };
        let former = self.former_first.load(Ordering::Relaxed) && self.remembers(Instant::now());
        Ok(self.sealed(former, signing))
    }

    /// Starts what is done in the background, unless it goes on already.
    fn tend(self: &Arc<Self>) {
        if let Some((_, keyring)) = &self.signing {
            keyring.tend();
        }
        if self.files.is_empty() {
            return;
        }
        let Some(on_duty) = self.looking.take() else {
            return;
        };
        let signer = Arc::downgrade(self);
        tokio::spawn(async move {
            let _on_duty = on_duty;
            loop {
                sleep(LOOK_EVERY).await;
                let Some(signer) = signer.upgrade() else {
                    return;
                };
                // Off the workers: the files may be on a file system that hangs.
                let looked = tokio::task::spawn_blocking(move || signer.look());
                if looked.await.is_err() {
                    return;
                }
            }
        });
    }

    /// Reads the files again; blocks.
    pub(super) fn look(&self) {
        let changed = self.files.iter().filter(|file| file.look()).count();
        if changed > 0 {
            self.former_first.store(false, Ordering::Relaxed);
        }
    }

    /// Whether there are values from before a change that may still be tried.
    fn remembers(&self, now: Instant) -> bool {
        self.files.iter().any(|file| file.former(now).is_some())
    }

    fn sealed(
        self: &Arc<Self>,
        former: bool,
        signing: Option<(Arc<sigv4::Scope>, Credentials)>,
    ) -> RequestAuth {
        let now = Instant::now();
        let value = |file: &HeaderFile| {
            let former = file.former(now).filter(|_| former);
            former.unwrap_or_else(|| file.current())
        };
        let live = self
            .files
            .iter()
            .map(|file| (file.name.clone(), value(file)));
        RequestAuth {
            headers: self.fixed.iter().cloned().chain(live).collect(),
            former,
            signing,
            signer: Arc::clone(self),
        }
    }
}

impl RequestAuth {
    /// These fields and nothing else.
    #[cfg(test)]
    pub(super) fn of(headers: Vec<(HeaderName, HeaderValue)>) -> RequestAuth {
        let fixed = headers;
        let signer = Arc::new(Signer {
            owner: "main".into(),
            fixed,
            files: Vec::new(),
            looking: SingleTask::default(),
            former_first: AtomicBool::new(false),
            signing: None,
        });
        signer.sealed(false, None)
    }

    /// Fields to set, in place of any others of these names.
    pub(super) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// What to ask for where somebody asked for this.
    pub(super) fn target(&self, asked: &PathAndQuery) -> Result<PathAndQuery, Failure> {
        match &self.signing {
            Some((scope, _)) => scope.target(asked),
            None => Ok(asked.clone()),
        }
    }

    /// The signature's fields for an endpoint, where the origin wants one.
    pub(super) fn signature(
        &self,
        endpoint: usize,
        message: &Message<'_>,
    ) -> Result<Option<Vec<(HeaderName, HeaderValue)>>, Failure> {
        let Some((scope, credentials)) = &self.signing else {
            return Ok(None);
        };
        scope
            .sign(endpoint, message, credentials, SystemTime::now())
            .map(Some)
    }

    /// What to try instead where the origin refuses this one: values from before a change, or
    /// after it, while both may be the right ones.
    pub(super) fn other(&self) -> Option<RequestAuth> {
        let two = self.signer.remembers(Instant::now());
        two.then(|| self.signer.sealed(!self.former, self.signing.clone()))
    }

    /// The origin took this one and refused the other: it comes first from now on.
    pub(super) fn prefer(&self) {
        let before = self
            .signer
            .former_first
            .swap(self.former, Ordering::Relaxed);
        let origin = &*self.signer.owner;
        match (before, self.former) {
            (false, true) => tracing::warn!(origin, "new header values refused: former ones used"),
            (true, false) => tracing::info!(origin, "new header values accepted"),
            _ => {}
        }
    }
}
