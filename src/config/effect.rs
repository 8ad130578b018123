//! Says what a reload does with a change of each key, and applies exactly that.

use std::fmt;

use serde_json::Value;

use super::Config;
use super::diff::{Change, Difference};
use crate::admin;
use seawall_policy::Rules;

/// What a reload does with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadEffect {
    /// It holds for requests and connections that begin after the reload.
    Live,
    /// It holds for what is fetched after the reload. Stored objects keep what was decided when
    /// they were fetched.
    NewFetches,
    /// It holds for requests that begin after the reload. Their keys change with it: what is stored
    /// under the old ones is not used.
    ColdCache,
    /// Only a restart applies it, for this reason.
    Restart(&'static str),
}

const MEMORY: ReloadEffect = ReloadEffect::Restart("memory is divided at the start");

/// The effect of each key, by the title of its table. A name without a key of its own is that of a
/// table or the first part of keys: `lifetimes` is `lifetimes.segment_max` too. A table without a
/// name is the table itself, added or removed.
const EFFECTS: &[(&str, &[&str], ReloadEffect)] = &[
    (
        "[server]",
        &["threads"],
        ReloadEffect::Restart("a worker is a thread of the process"),
    ),
    (
        "[server]",
        &["name"],
        ReloadEffect::Restart("stored responses have it in `Via`"),
    ),
    (
        "[server]",
        &[
            "drain_delay",
            "drain_max",
            "trusted_proxies",
            "client_header",
        ],
        ReloadEffect::Live,
    ),
    (
        "[[listener]]",
        &["", "tls", "proxy_protocol"],
        ReloadEffect::Live,
    ),
    (
        "[limits]",
        &[
            "connections_max",
            "connections_per_client_max",
            "streams_max",
            "head_max",
            "header_max",
            "headers_max",
            "uri_max",
            "handshake_timeout",
            "head_timeout",
            "idle_timeout",
            "send_rate_min",
            "send_rate_window",
            "unwanted_body_max",
            "request_body_max",
            "ranges_max",
        ],
        ReloadEffect::Live,
    ),
    (
        "[admin]",
        &["listen"],
        ReloadEffect::Restart("no operator locks himself out by a reload"),
    ),
    (
        "[admin]",
        &["hosts", "tokens", "audit_log"],
        ReloadEffect::Live,
    ),
    (
        "[cache]",
        &[
            "memory",
            "object_max",
            "variants_max",
            "kind_max",
            "tags_max",
        ],
        MEMORY,
    ),
    ("[cache]", &["uncacheable_ttl"], ReloadEffect::Live),
    ("[fill]", &["memory", "waiters_max"], MEMORY),
    (
        "[fill]",
        &[
            "wait_max",
            "stale_wait_max",
            "failure_backoff",
            "finish_abandoned",
        ],
        ReloadEffect::Live,
    ),
    (
        "[fill]",
        &["whole_max", "slice", "manifest_max"],
        ReloadEffect::NewFetches,
    ),
    (
        "[[client_class]]",
        &["", "header", "addresses", "certificate", "rate_limit"],
        ReloadEffect::Live,
    ),
    (
        "[[error_page]]",
        &["", "file", "content_type"],
        ReloadEffect::Live,
    ),
    ("[log]", &["level"], ReloadEffect::Live),
    (
        "[access_log]",
        &["enabled", "sample", "path"],
        ReloadEffect::Live,
    ),
    (
        "[[origin]]",
        &[
            "",
            "endpoints",
            "health",
            "sigv4",
            "kind",
            "balance",
            "host",
            "sni",
            "ca_file",
            "verify",
            "protocol",
            "headers",
            "client_certificate",
            "client_key",
            "hedge",
            "concurrency_max",
            "blocking_max",
            "slow_viewers_max",
            "queue_max",
            "requests_per_second_max",
            "resolve_every",
            "deadlines",
            "retry",
            "breaker",
            "ejection",
        ],
        ReloadEffect::Live,
    ),
    (
        "[[route]]",
        &[
            "origin",
            "forward_host",
            "query",
            "forward_headers",
            "ignore_cookies",
        ],
        ReloadEffect::ColdCache,
    ),
    (
        "[[route]]",
        &[
            "strip_set_cookie",
            "store_private",
            "show_tags",
            "heuristic_freshness",
            "store_keys",
            "store_errors",
            "lifetimes",
            "unkeyed_headers",
        ],
        ReloadEffect::NewFetches,
    ),
    (
        "[[route]]",
        &[
            "",
            "hosts",
            "path",
            "allow",
            "deny",
            "require_header",
            "client_classes",
            "require_certificate",
            "token",
            "rate_limit",
            "pass_methods",
            "honour_request_directives",
            "cors",
            "x_cache",
            "cmsd",
            "show_key",
            "live",
            "headers",
            "error_page",
            "server_timing",
            "redirect",
        ],
        ReloadEffect::Live,
    ),
];

/// What a change without an entry is said to need. A test holds that there is none.
const UNKNOWN: ReloadEffect = ReloadEffect::Restart("it is read at the start");

impl Change {
    /// What a reload does with it.
    pub(crate) fn reload_effect(&self) -> ReloadEffect {
        let (title, name) = self.place();
        match declared(title, &name) {
            // The keys of a route that was not there cannot change.
            Some(ReloadEffect::ColdCache) if self.is_in_new_table() => ReloadEffect::Live,
            effect => effect.unwrap_or(UNKNOWN),
        }
    }

    /// Whether it is a key of an outermost table that is new.
    fn is_in_new_table(&self) -> bool {
        matches!(self.difference, Difference::Set { .. }) && self.table.0.len() == 1
    }

    /// The change with what a reload does with it, in one line.
    pub(crate) fn text_with_effect(&self) -> String {
        format!("{self}{}", self.reload_effect())
    }

    /// The same as JSON, with the line as `text`.
    pub(crate) fn to_json_with_effect(&self) -> Value {
        let (effect, why) = match self.reload_effect() {
            ReloadEffect::Live => ("live", None),
            ReloadEffect::NewFetches => ("new_fetches", None),
            ReloadEffect::ColdCache => ("cold_cache", None),
            ReloadEffect::Restart(why) => ("restart", Some(why)),
        };
        let mut change = self.to_json();
        change["effect"] = effect.into();
        if let Some(why) = why {
            change["why"] = why.into();
        }
        change["text"] = self.text_with_effect().into();
        change
    }

    /// The outermost table, and the first name in it.
    fn place(&self) -> (&'static str, String) {
        let path = &self.table.0;
        let title = path.first().map_or("", |(title, _)| title);
        if let Some((inner, _)) = path.get(1) {
            return (title, (*inner).to_owned());
        }
        let key = match &self.difference {
            Difference::Added | Difference::Removed => "",
            Difference::Set { key, .. } | Difference::Changed { key, .. } => key,
            Difference::Reordered { key, .. } => key,
        };
        let first = key.split('.').next().unwrap_or_default();
        (title, first.to_owned())
    }
}

/// What follows a change in a line.
impl fmt::Display for ReloadEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadEffect::Live => Ok(()),
            ReloadEffect::NewFetches => f.write_str(" (for what is fetched from then on)"),
            ReloadEffect::ColdCache => {
                f.write_str(" (keys change: what is stored under the old ones is not used)")
            }
            ReloadEffect::Restart(why) => write!(f, " (needs a restart: {why})"),
        }
    }
}

fn declared(title: &str, name: &str) -> Option<ReloadEffect> {
    let is_of = |(table, names, _): &&(&str, &[&str], ReloadEffect)| {
        *table == title && names.contains(&name)
    };
    EFFECTS.iter().find(is_of).map(|(.., effect)| *effect)
}

impl Config {
    /// The configuration in use after a reload of `read`: this one, where only a restart would
    /// apply another value.
    pub(crate) fn reloaded(&self, read: Config) -> Config {
        let before = self.clone();
        Config {
            admin: admin::Settings {
                listen: before.admin.listen,
                ..read.admin
            },
            rules: Rules {
                name: before.rules.name,
                ..read.rules
            },
            cache: before.cache,
            threads: before.threads,
            ..read
        }
    }
}

#[cfg(test)]
pub(super) fn is_declared(change: &Change) -> bool {
    let (title, name) = change.place();
    declared(title, &name).is_some()
}
