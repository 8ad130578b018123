//! The connections of a group: pingora's pool of idle ones, what the streams of shared ones
//! receive, and how many are drained at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::v2::Connector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::activity::ActivityTable;
use crate::sign::ClientCertificate;
use crate::{Settings, SetupError};

/// Maximum number of idle connections.
const IDLE_MAX: usize = 1024;
/// Maximum number of unwanted bodies that are drained at once.
const DRAINS_MAX: usize = 64;
/// CA file for groups without TLS: trusts no CA and avoids reading the system's certificates.
const NO_AUTHORITIES: &str = "/dev/null";

/// The connections of one group.
pub(crate) struct ConnectionPool {
    connector: Connector,
    activities: ActivityTable,
    drains: Arc<Semaphore>,
}

impl ConnectionPool {
    pub(crate) fn new(settings: &Settings) -> Result<ConnectionPool, SetupError> {
        let mut options = ConnectorOptions::new(settings.concurrency_max.clamp(1, IDLE_MAX));
        options.ca_file = if settings.endpoints.iter().any(|endpoint| endpoint.tls) {
            settings.ca_file.as_deref().map(authorities).transpose()?
        } else {
            Some(NO_AUTHORITIES.to_owned())
        };
        let certificate = settings.client_certificate.as_ref();
        options.cert_key_file = certificate.map(ClientCertificate::files).transpose()?;
        // pingora panics if certificates cannot be loaded.
        let connector = catch_unwind(AssertUnwindSafe(|| Connector::new(Some(options))))
            .map_err(|_| SetupError::Authorities)?;
        Ok(ConnectionPool {
            connector,
            activities: ActivityTable::default(),
            drains: Arc::new(Semaphore::new(DRAINS_MAX)),
        })
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// What the streams of each shared connection receive.
    pub(crate) fn activities(&self) -> &ActivityTable {
        &self.activities
    }

    /// The right to drain a body, until it is dropped; `None`: as many as allowed are being
    /// drained.
    pub(crate) fn drain_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.drains).try_acquire_owned().ok()
    }
}

/// Checks that a file contains certificates, and returns its path as pingora expects it.
fn authorities(path: &Path) -> Result<String, SetupError> {
    let check = || {
        let text = std::fs::read(path)?;
        let invalid = |why: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        let mut certificates = CertificateDer::pem_slice_iter(&text);
        match certificates.next() {
            None => return Err(invalid("no certificate in it")),
            Some(Err(_)) => return Err(invalid("not in PEM form")),
            Some(Ok(_)) => {}
        }
        let path = path.to_str().ok_or_else(|| invalid("not a UTF-8 path"))?;
        Ok(path.to_owned())
    };
    check().map_err(|source| SetupError::CaFile {
        path: path.to_owned(),
        source,
    })
}
