//! Authenticates requests to an origin: secret header values, AWS signatures and client
//! certificates, kept current in the background.
//!
//! A request takes a `RequestAuth` with the values and credentials it is sent with. No log, error
//! or `Debug` output of this module contains a secret.

mod background_task;
mod certificate;
mod credential_cache;
mod credential_error;
mod credential_provider;
mod credentials;
mod file;
mod header_file;
mod profile;
mod sigv4;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use tokio::time::{Instant, sleep};

pub use certificate::ClientCertificate;
pub use credential_provider::check_profile;
pub use credentials::Credentials;
pub use file::bytes as file_bytes;
pub use header_file::{HeaderFile, header_value};
pub use source::{
    AwsEnvironment, BadVariable, ContainerToken, CredentialSource, CredentialUrl, Service, Sigv4,
};

#[cfg(test)]
pub(super) use sigv4::Scope;
pub(super) use sigv4::{FIELDS, Message};

use super::{Failure, Resolver, Settings, SetupError};
use background_task::SingleTask;
use credential_cache::CredentialCache;

/// Interval at which files are read again.
const REREAD_EVERY: Duration = Duration::from_secs(1);

/// The header is part of a SigV4 signature.
pub fn is_of_signature(name: &str) -> bool {
    FIELDS
        .iter()
        .any(|field| field.as_str().eq_ignore_ascii_case(name))
}

/// The authentication of a group.
pub(super) struct Signer {
    /// The group's name, for logs.
    owner: Arc<str>,
    /// Constant header values.
    fixed: Vec<(HeaderName, HeaderValue)>,
    files: Arc<HeaderFiles>,
    /// Scope and credentials for SigV4, if configured.
    signing: Option<(Arc<sigv4::Scope>, Arc<CredentialCache>)>,
}

/// Header values from files. Groups that succeed each other share them.
#[derive(Default)]
struct HeaderFiles {
    files: Vec<HeaderFile>,
    task: SingleTask,
    /// The origin accepted the values before the last change, and refused the new ones.
    prefers_previous: AtomicBool,
}

/// The authentication of one request.
#[derive(Clone)]
pub(super) struct RequestAuth {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// It uses the values before the last change.
    uses_previous: bool,
    /// Scope and credentials of the signature.
    signing: Option<(Arc<sigv4::Scope>, Credentials)>,
    signer: Arc<Signer>,
}

impl HeaderFiles {
    /// Reads the files for the first time.
    fn read(paths: &[(HeaderName, PathBuf)]) -> Result<Arc<HeaderFiles>, SetupError> {
        let files = paths.iter().map(|(name, path)| {
            let file = HeaderFile::new(name.clone(), path.clone());
            file.map_err(|(path, why)| SetupError::HeaderFile { path, why })
        });
        Ok(Arc::new(HeaderFiles {
            files: files.collect::<Result<_, _>>()?,
            ..HeaderFiles::default()
        }))
    }

    /// Starts the background task, unless it runs already.
    fn start_task(self: &Arc<Self>) {
        if self.files.is_empty() {
            return;
        }
        let Some(task) = self.task.take() else {
            return;
        };
        let files = Arc::downgrade(self);
        tokio::spawn(async move {
            let _task = task;
            loop {
                sleep(REREAD_EVERY).await;
                let Some(files) = files.upgrade() else {
                    return;
                };
                // Not on the async workers: the file system may hang.
                let reading = tokio::task::spawn_blocking(move || files.reread());
                if reading.await.is_err() {
                    return;
                }
            }
        });
    }

    /// Reads the files again. Blocks.
    fn reread(&self) {
        let changed = self.files.iter().filter(|file| file.reread()).count();
        if changed > 0 {
            self.prefers_previous.store(false, Ordering::Relaxed);
        }
    }

    /// A value from before a change may still be tried.
    fn has_previous_value(&self, now: Instant) -> bool {
        self.files.iter().any(|file| file.previous(now).is_some())
    }
}

impl Signer {
    /// Reads the files, and starts the background tasks if there is a runtime.
    pub(super) fn new(settings: &Settings, lookup: &Resolver) -> Result<Arc<Signer>, SetupError> {
        let files = HeaderFiles::read(&settings.header_files)?;
        Signer::with(settings, files, None, lookup)
    }

    /// The signer of a group that succeeds this one's, which has the settings `former`: it shares
    /// secrets and credentials that are from the same sources.
    pub(super) fn succeed(
        &self,
        former: &Settings,
        settings: &Settings,
        lookup: &Resolver,
    ) -> Result<Arc<Signer>, SetupError> {
        let files = if settings.header_files == former.header_files {
            Arc::clone(&self.files)
        } else {
            HeaderFiles::read(&settings.header_files)?
        };
        let sources = |settings: &Settings| settings.sigv4.clone().map(|sigv4| sigv4.sources);
        let known = self.signing.as_ref().map(|(_, cache)| Arc::clone(cache));
        let known = known.filter(|_| sources(settings) == sources(former));
        Signer::with(settings, files, known, lookup)
    }

    fn with(
        settings: &Settings,
        files: Arc<HeaderFiles>,
        known: Option<Arc<CredentialCache>>,
        lookup: &Resolver,
    ) -> Result<Arc<Signer>, SetupError> {
        let signing = settings.sigv4.as_ref().map(|sigv4| {
            let cache = match known {
                Some(cache) => cache,
                None => CredentialCache::new(&settings.name, &sigv4.sources, lookup)?,
            };
            let scope = sigv4::Scope::of(sigv4, &settings.endpoints).map_err(|index| {
                let host = settings.endpoints[index].host.clone();
                SetupError::Region { host }
            })?;
            Ok((Arc::new(scope), cache))
        });
        let signer = Arc::new(Signer {
            owner: Arc::clone(&settings.name),
            fixed: settings.headers.clone(),
            files,
            signing: signing.transpose()?,
        });
        if tokio::runtime::Handle::try_current().is_ok() {
            signer.start_tasks();
        }
        Ok(signer)
    }

    /// Waits briefly for credentials if there are none.
    pub(super) async fn wait_for_credentials(&self, until: Instant) -> Result<(), Failure> {
        match &self.signing {
            Some((_, cache)) => cache.wait_until_valid(until).await,
            None => Ok(()),
        }
    }

    /// The authentication for the next request.
    pub(super) fn request_auth(self: &Arc<Self>) -> Result<RequestAuth, Failure> {
        self.start_tasks();
        let signing = match &self.signing {
            Some((scope, cache)) => Some((Arc::clone(scope), cache.credentials()?)),
            None => None,
        };
        let uses_previous = self.files.prefers_previous.load(Ordering::Relaxed)
            && self.files.has_previous_value(Instant::now());
        Ok(self.build_auth(uses_previous, signing))
    }

    /// Starts the background tasks, unless they run already.
    fn start_tasks(&self) {
        if let Some((_, cache)) = &self.signing {
            cache.start_renewal();
        }
        self.files.start_task();
    }

    /// Reads the files of header values again.
    #[cfg(test)]
    pub(super) fn reread_files(&self) {
        self.files.reread();
    }

    fn build_auth(
        self: &Arc<Self>,
        uses_previous: bool,
        signing: Option<(Arc<sigv4::Scope>, Credentials)>,
    ) -> RequestAuth {
        let now = Instant::now();
        let value = |file: &HeaderFile| {
            let previous = file.previous(now).filter(|_| uses_previous);
            previous.unwrap_or_else(|| file.current())
        };
        let files = self.files.files.iter();
        let live = files.map(|file| (file.name.clone(), value(file)));
        RequestAuth {
            headers: self.fixed.iter().cloned().chain(live).collect(),
            uses_previous,
            signing,
            signer: Arc::clone(self),
        }
    }
}

impl RequestAuth {
    /// Only these header fields.
    #[cfg(test)]
    pub(super) fn of(headers: Vec<(HeaderName, HeaderValue)>) -> RequestAuth {
        let fixed = headers;
        let signer = Arc::new(Signer {
            owner: "main".into(),
            fixed,
            files: Arc::default(),
            signing: None,
        });
        signer.build_auth(false, None)
    }

    /// Header fields to set; they replace fields of the same names.
    pub(super) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The target to send for a requested target.
    pub(super) fn target(&self, requested: &PathAndQuery) -> Result<PathAndQuery, Failure> {
        match &self.signing {
            Some((scope, _)) => scope.target(requested),
            None => Ok(requested.clone()),
        }
    }

    /// The signature's header fields for an endpoint, if requests are signed.
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

    /// The alternative if the origin refuses these values: those before or after the change, while
    /// both may be valid.
    pub(super) fn other(&self) -> Option<RequestAuth> {
        let two = self.signer.files.has_previous_value(Instant::now());
        two.then(|| {
            self.signer
                .build_auth(!self.uses_previous, self.signing.clone())
        })
    }

    /// The origin accepted these values and refused the others: use them first from now on.
    pub(super) fn prefer(&self) {
        let before = self
            .signer
            .files
            .prefers_previous
            .swap(self.uses_previous, Ordering::Relaxed);
        let origin = &*self.signer.owner;
        match (before, self.uses_previous) {
            (false, true) => {
                tracing::warn!(origin, "new header values refused: previous ones used");
            }
            (true, false) => tracing::info!(origin, "new header values accepted"),
            _ => {}
        }
    }
}
