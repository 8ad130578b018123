//! What the access rules of routes need besides the rules: the secrets and keys that their files
//! contain now, and the counters of what they refused. `policy` and `authorization` decide who may
//! enter.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::token_control::{TokenControl, TokenStats};
use seawall_policy::access_rules::RequiredHeader;
use seawall_policy::{AccessRuleKind, FileSecrets, Rules};
use seawall_upstream::sign::HeaderFile;

/// Counters of requests that access rules refused.
#[derive(Clone, Debug)]
pub struct AccessStats {
    /// Refused requests, by the rule.
    pub refused: [(AccessRuleKind, u64); AccessRuleKind::ALL.len()],
    /// What tokens were refused for, and how many are remembered.
    pub tokens: TokenStats,
}

/// The secrets of the access rules, and what the rules refused.
#[derive(Default)]
pub struct AccessControl {
    /// Whether it matters who sends a request.
    has_rules: bool,
    files: Vec<(PathBuf, HeaderFile)>,
    secrets: ArcSwap<FileSecrets>,
    pub(super) tokens: TokenControl,
    /// Shared with what a reload replaces this by.
    refused: Arc<[AtomicU64; AccessRuleKind::ALL.len()]>,
}

impl AccessControl {
    /// Reads the secrets that the routes require, and those that tell classes of clients. The error
    /// names the file that has none.
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
            has_rules: rules.concerns_viewers(),
            files,
            tokens: TokenControl::read(rules)?,
            ..AccessControl::default()
        };
        control.store_secrets();
        Ok(control)
    }

    /// Goes on counting where the access control before this one ended.
    pub(super) fn counting_after(self, before: &AccessControl) -> AccessControl {
        AccessControl {
            refused: Arc::clone(&before.refused),
            tokens: self.tokens.succeeding(&before.tokens),
            ..self
        }
    }

    /// Whether there are files whose content may change.
    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty() || self.tokens.is_used()
    }

    /// Reads the files again. Blocks. A file that cannot be read keeps its last secret.
    pub(super) fn reread_files(&self) {
        let changed = self.files.iter().filter(|(_, file)| file.reread()).count();
        if changed > 0 {
            self.store_secrets();
        }
        self.tokens.reread_files();
    }

    fn store_secrets(&self) {
        let current = self.files.iter();
        let current = current.map(|(path, file)| (path.clone(), file.current()));
        self.secrets.store(Arc::new(current.collect()));
    }

    /// What the decision about a viewer needs. `None`: it does not matter who it is.
    pub(super) fn secrets(&self) -> Option<Guard<Arc<FileSecrets>>> {
        self.has_rules.then(|| self.secrets.load())
    }

    pub(super) fn count_refusal(&self, rule: AccessRuleKind) {
        self.refused[rule.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> AccessStats {
        let count = |rule: AccessRuleKind| self.refused[rule.index()].load(Ordering::Relaxed);
        AccessStats {
            refused: AccessRuleKind::ALL.map(|rule| (rule, count(rule))),
            tokens: self.tokens.stats(),
        }
    }
}

fn required_headers(rules: &Rules) -> impl Iterator<Item = &RequiredHeader> {
    let of_routes = rules.routes.iter();
    let of_routes = of_routes.filter_map(|route| route.access.require_header.as_ref());
    let of_classes = rules.client_classes.iter();
    of_routes.chain(of_classes.filter_map(|class| class.header.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};

    use super::*;
    use crate::proxy::{ActiveShield, MemoryAnswer, Settings, ShieldParts, ViewerRequest};
    use crate::telemetry::{self, MetricRegistry, Telemetry};
    use seawall_policy::{Route, ViewerAddress};

    fn shield_for_nobody() -> Arc<ActiveShield> {
        let mut route = Route::everything("main");
        route.access.allow = Some([].into_iter().collect());
        let rules = Rules {
            routes: vec![Arc::new(route)],
            name: "seawall".into(),
            trusted_proxies: seawall_policy::TrustedProxies::default(),
            client_classes: seawall_policy::ClientClasses::default(),
        };
        let (settings, routes) = (telemetry::Settings::default(), [Arc::from("main")]);
        let telemetry = Telemetry::new(&settings, &routes, &mut MetricRegistry::default());
        ActiveShield::new(ShieldParts {
            access: AccessControl::read(&rules).unwrap(),
            rules,
            cache: seawall_cache::Settings::default(),
            settings: Settings::default(),
            origins: Vec::new(),
            telemetry: Arc::new(telemetry.unwrap()),
        })
    }

    #[test]
    fn refusal_is_answered_as_fast_as_a_hit_and_counted_once() {
        let shield = shield_for_nobody().current();
        let now = Instant::now();
        let request = ViewerRequest {
            method: Method::GET,
            uri: Uri::from_static("/live/index.m3u8"),
            version: Version::HTTP_11,
            headers: HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("a"))]),
            address: ViewerAddress {
                viewer: Some([192, 0, 2, 1].into()),
                proxy: None,
            },
            tls: false,
            certificate: None,
            arrived: now,
            now,
            wants_repeat: true,
            is_counted: false,
            is_cut_by_drain: None,
            class: None,
            body: None,
        };
        let MemoryAnswer::Respond(response) = shield.answer_from_memory(request) else {
            panic!("the slow path answers a refused request")
        };
        assert_eq!(response.status, StatusCode::FORBIDDEN);
        assert!(response.repeat.is_none(), "no response to repeat");
        let [(rule, count), ..] = shield.access_stats().refused;
        assert_eq!((rule, count), (AccessRuleKind::Address, 1));
    }
}
