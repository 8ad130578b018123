//! What the access rules of routes need besides the rules: the secrets that their files contain
//! now, and the counters of what they refused. `policy` decides who may enter.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use seawall_policy::access_rules::RequiredHeader;
use seawall_policy::{AccessRuleKind, FileSecrets, Rules};
use seawall_upstream::sign::HeaderFile;

/// Counters of requests that access rules refused.
#[derive(Clone, Copy, Debug)]
pub struct AccessStats {
    /// Refused requests, by the rule.
    pub refused: [(AccessRuleKind, u64); AccessRuleKind::ALL.len()],
}

/// The secrets of the access rules, and what the rules refused.
#[derive(Default)]
pub struct AccessControl {
    files: Vec<(PathBuf, HeaderFile)>,
    secrets: ArcSwap<FileSecrets>,
    refused: [AtomicU64; AccessRuleKind::ALL.len()],
}

impl AccessControl {
    /// Reads the secrets that the routes require. The error names the file that has none.
    pub fn read(rules: &Rules) -> Result<AccessControl, (PathBuf, String)> {
        let mut known = HashSet::new();
        let mut files = Vec::new();
        for RequiredHeader { name, secret_files } in required_headers(rules) {
            for path in secret_files {
                if known.insert(path) {
                    let file = HeaderFile::new(name.clone(), path.clone())?;
                    files.push((path.clone(), file));
                }
            }
        }
        let control = AccessControl {
            files,
            ..AccessControl::default()
        };
        control.store_secrets();
        Ok(control)
    }

    /// Whether there are files whose content may change.
    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Reads the files again. Blocks. A file that cannot be read keeps its last secret.
    pub(super) fn reread_files(&self) {
        let changed = self.files.iter().filter(|(_, file)| file.reread()).count();
        if changed > 0 {
            self.store_secrets();
        }
    }

    fn store_secrets(&self) {
        let current = self.files.iter();
        let current = current.map(|(path, file)| (path.clone(), file.current()));
        self.secrets.store(Arc::new(current.collect()));
    }

    pub(super) fn secrets(&self) -> Guard<Arc<FileSecrets>> {
        self.secrets.load()
    }

    pub(super) fn count_refusal(&self, rule: AccessRuleKind) {
        self.refused[rule.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> AccessStats {
        let count = |rule: AccessRuleKind| self.refused[rule.index()].load(Ordering::Relaxed);
        AccessStats {
            refused: AccessRuleKind::ALL.map(|rule| (rule, count(rule))),
        }
    }
}

fn required_headers(rules: &Rules) -> impl Iterator<Item = &RequiredHeader> {
    let routes = rules.routes.iter();
    routes.filter_map(|route| route.access.require_header.as_ref())
}
