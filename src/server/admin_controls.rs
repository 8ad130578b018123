//! What a reload changes of the admin server: its names, its tokens and its audit log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;

use crate::admin::{self, AdminTokens, AuditDestination, AuditLog};

/// Shared with the admin server.
#[derive(Clone)]
pub(super) struct AdminControls {
    /// The host names by which operators reach it.
    pub(super) hosts: Arc<ArcSwap<Vec<String>>>,
    pub(super) tokens: Arc<ArcSwap<AdminTokens>>,
    pub(super) audit: Arc<AuditLog>,
}

/// Other settings that are ready to be used: nothing can fail any more.
pub(super) struct PreparedAdmin {
    hosts: Vec<String>,
    /// `None`: as before.
    tokens: Option<AdminTokens>,
    /// `None`: as before.
    audit: Option<AuditDestination>,
}

impl AdminControls {
    /// Reads the tokens, and opens the audit log.
    pub(super) fn start(settings: &admin::Settings) -> anyhow::Result<AdminControls> {
        let tokens = AdminTokens::read(settings.tokens.clone())?;
        let audit = AuditLog::start(settings.audit_log.clone());
        let audit = audit.with_context(|| cannot_open(settings.audit_log.as_deref()))?;
        Ok(AdminControls {
            hosts: Arc::new(ArcSwap::from_pointee(settings.hosts.clone())),
            tokens: Arc::new(ArcSwap::from_pointee(tokens)),
            audit: Arc::new(audit),
        })
    }

    /// Prepares the change from these settings to other ones.
    pub(super) fn prepare(
        &self,
        before: &admin::Settings,
        after: &admin::Settings,
    ) -> anyhow::Result<PreparedAdmin> {
        // The address of the start, perhaps without the tokens that it needs.
        after.check_protection()?;
        let has_other_tokens = before.tokens != after.tokens;
        let tokens = has_other_tokens.then(|| AdminTokens::read(after.tokens.clone()));
        let has_other_file = before.audit_log != after.audit_log;
        let open = |file: &Option<PathBuf>| {
            let opened = self.audit.open(file.clone());
            opened.with_context(|| cannot_open(file.as_deref()))
        };
        let audit = has_other_file.then(|| open(&after.audit_log));
        Ok(PreparedAdmin {
            hosts: after.hosts.clone(),
            tokens: tokens.transpose()?,
            audit: audit.transpose()?,
        })
    }

    /// Uses what was prepared, for requests that begin from now on. Cannot fail.
    pub(super) fn apply(&self, prepared: PreparedAdmin) {
        self.hosts.store(Arc::new(prepared.hosts));
        if let Some(tokens) = prepared.tokens {
            self.tokens.store(Arc::new(tokens));
        }
        if let Some(destination) = prepared.audit {
            self.audit.redirect(destination);
        }
    }
}

fn cannot_open(audit_log: Option<&Path>) -> String {
    let path = audit_log.unwrap_or(Path::new("")).display();
    format!("cannot open the audit log {path}")
}
