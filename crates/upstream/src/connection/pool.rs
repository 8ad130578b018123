//! The connections of a group: pingora's pool of idle ones, what the streams of shared ones
//! receive, and how many are drained at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::v2::Connector;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::activity::ActivityTable;
use super::tls_files::TlsFiles;
use crate::{Protocol, Settings, SetupError};

/// Maximum number of idle connections.
const IDLE_MAX: usize = 1024;
/// Maximum number of unwanted bodies that are drained at once.
const DRAINS_MAX: usize = 64;

/// The connections of one group, and of those that succeed it while they connect in the same way.
pub(crate) struct ConnectionPool {
    files: TlsFiles,
    protocol: Protocol,
    idle_max: usize,
    connector: Connector,
    activities: ActivityTable,
    drains: Arc<Semaphore>,
}

impl ConnectionPool {
    /// The pool of a group: that of the group before it, if a connection made for that one is as
    /// good as a new one. Reads the TLS files.
    pub(crate) fn new(
        settings: &Settings,
        former: Option<&Arc<ConnectionPool>>,
    ) -> Result<Arc<ConnectionPool>, SetupError> {
        let files = TlsFiles::read(settings)?;
        let idle_max = settings.concurrency_max.clamp(1, IDLE_MAX);
        let is_usable = |pool: &&Arc<ConnectionPool>| {
            pool.files == files && pool.protocol == settings.protocol && pool.idle_max >= idle_max
        };
        if let Some(former) = former.filter(is_usable) {
            return Ok(Arc::clone(former));
        }
        let mut options = ConnectorOptions::new(idle_max);
        options.ca_file = files.authorities_path();
        options.cert_key_file = files.certificate_paths();
        // pingora panics if certificates cannot be loaded.
        let connector = catch_unwind(AssertUnwindSafe(|| Connector::new(Some(options))))
            .map_err(|_| SetupError::Authorities)?;
        Ok(Arc::new(ConnectionPool {
            files,
            protocol: settings.protocol,
            idle_max,
            connector,
            activities: ActivityTable::default(),
            drains: Arc::new(Semaphore::new(DRAINS_MAX)),
        }))
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
