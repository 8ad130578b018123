//! The kinds of origin server that `kind` of `[[origin]]` names: one row each, with the defaults
//! that it sets. A key that the file contains wins over them.
//!
//! A row drops no query parameter by which a server knows a viewer's session, because a server that
//! is asked without it rejects the request or starts another session. Sessions are switched off at
//! the server, and `advice` says how. docs/origins.md has the sources of each row.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use http::uri::PathAndQuery;

use seawall_policy::Route;
use seawall_policy::route::{QueryPolicies, QueryPolicy};
use seawall_upstream::CheckKind;
use seawall_upstream::sign::Service;

/// A kind of origin server.
pub struct OriginKind {
    /// The word of the file.
    pub(crate) name: &'static str,
    /// The query policies of routes to it that have none.
    query: fn() -> QueryPolicies,
    /// What a health check asks for that does not say it.
    check: KindCheck,
    /// The service that requests are signed for.
    service: Option<Service>,
    /// A header without which the server gives each viewer a session.
    pub(super) header: Option<&'static str>,
    /// What has to be set at the server, so that viewers can share responses.
    pub(crate) advice: Option<&'static str>,
}

/// The health check of a kind of server.
#[derive(Clone, Copy)]
enum KindCheck {
    /// A connection: the server has no path that says how it is.
    Tcp,
    /// A request for this path, answered with this status.
    Http(&'static str, StatusCode),
}

/// The delivery directives of LL-HLS.
const LOW_LATENCY: [&str; 3] = ["_HLS_msn", "_HLS_part", "_HLS_skip"];

/// Every kind, in the order of the reference.
pub(super) const KINDS: [&OriginKind; 8] = [
    &OriginKind {
        name: "mediamtx",
        query: || low_latency_and(&[], &[]),
        check: KindCheck::Http("/", StatusCode::NOT_FOUND),
        service: None,
        header: Some("authorization"),
        advice: Some("set hlsCDNSecret, and send it as Authorization: Bearer"),
    },
    &OriginKind {
        name: "ovenmediaengine",
        query: || {
            let manifest = [
                "_HLS_legacy",
                "_HLS_rewind",
                "format",
                "stream_key",
                "session",
            ];
            low_latency_and(&manifest, &["session"])
        },
        check: KindCheck::Tcp,
        service: None,
        header: None,
        advice: Some(
            "set <OriginMode>true</OriginMode> in <LLHLS>, and ages above 0 in <CacheControl>",
        ),
    },
    &OriginKind {
        name: "srs",
        query: || keep(&["vhost", "domain", "hls_ctx"], &["vhost", "domain"]),
        check: KindCheck::Http("/api/v1/versions", StatusCode::OK),
        service: None,
        header: None,
        advice: Some("set hls_ctx off and hls_ts_ctx off"),
    },
    &OriginKind {
        name: "nimble",
        query: || QueryPolicy::All.into(),
        check: KindCheck::Tcp,
        service: None,
        header: None,
        advice: Some("make the application an HTTP origin application, which has no sessions"),
    },
    &OriginKind {
        name: "wowza",
        query: || {
            let window = [
                "wowzasessionid",
                "DVR",
                "wowzaplaystart",
                "wowzaplayduration",
                "wowzadvrplayliststart",
                "wowzadvrplaylistduration",
            ];
            low_latency_and(&window, &window)
        },
        check: KindCheck::Tcp,
        service: None,
        header: None,
        advice: Some("use an application of type Live HTTP Origin or VOD HTTP Origin"),
    },
    &OriginKind {
        name: "unified",
        query: || QueryPolicy::All.into(),
        check: KindCheck::Tcp,
        service: None,
        header: None,
        advice: None,
    },
    &OriginKind {
        name: "mediapackage",
        query: QueryPolicies::mediapackage,
        check: KindCheck::Tcp,
        service: Some(Service::MediaPackageV2),
        header: None,
        advice: None,
    },
    &OriginKind {
        name: "s3",
        query: || keep(&["versionId"], &["versionId"]),
        check: KindCheck::Tcp,
        service: Some(Service::S3),
        header: None,
        advice: None,
    },
];

/// What the kind of an origin set in a configuration.
#[derive(Clone, Debug)]
pub struct OriginPreset {
    /// The name of the origin.
    pub(crate) origin: Arc<str>,
    /// Its kind.
    pub(crate) kind: &'static OriginKind,
    /// What was set.
    pub(super) defaults: Vec<PresetDefault>,
}

/// A key that the kind of an origin set.
#[derive(Clone, Debug)]
pub(super) enum PresetDefault {
    /// `query` of the route with this name.
    Query(Arc<str>, QueryPolicies),
    /// What `[origin.health]` asks for.
    Check(CheckKind),
    /// `service` of `[origin.sigv4]`.
    Service(Service),
}

impl OriginPreset {
    /// Nothing is set yet.
    pub(super) fn new(origin: &Arc<str>, kind: &'static OriginKind) -> OriginPreset {
        OriginPreset {
            origin: Arc::clone(origin),
            kind,
            defaults: Vec::new(),
        }
    }

    /// The query policies of a route that has none.
    pub(super) fn set_query(&mut self, route: &mut Route) {
        let query = (self.kind.query)();
        if route.query != query {
            let name = Arc::clone(&route.name);
            self.defaults
                .push(PresetDefault::Query(name, query.clone()));
            route.query = query;
        }
    }

    /// The check of a `[origin.health]` that does not say what to ask for. `is_http`: it says that
    /// it is a request.
    pub(super) fn check(&mut self, is_http: bool) -> Option<CheckKind> {
        let check = match self.kind.check {
            KindCheck::Tcp if is_http => return None,
            KindCheck::Tcp => CheckKind::Tcp,
            KindCheck::Http(path, status) => CheckKind::Http {
                path: PathAndQuery::from_static(path),
                expect: vec![status],
            },
        };
        self.defaults.push(PresetDefault::Check(check.clone()));
        Some(check)
    }

    /// The service of a `[origin.sigv4]` that names none.
    pub(super) fn service(&mut self) -> Option<Service> {
        let service = self.kind.service?;
        self.defaults.push(PresetDefault::Service(service));
        Some(service)
    }
}

impl fmt::Debug for OriginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// These parameters and the delivery directives on manifests, and the others on segments.
fn low_latency_and(manifest: &[&str], segment: &[&str]) -> QueryPolicies {
    keep(&[&LOW_LATENCY, manifest].concat(), segment)
}

/// Keeps these parameters on manifests and on segments. A path of unknown kind may be a manifest.
fn keep(manifest: &[&str], segment: &[&str]) -> QueryPolicies {
    let only = |names: &[&str]| match names {
        [] => QueryPolicy::None,
        _ => QueryPolicy::Only(names.iter().map(|name| (*name).to_owned()).collect()),
    };
    QueryPolicies {
        manifest: only(manifest),
        segment: only(segment),
        other: only(manifest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_row_of_the_reference() {
        let reference = include_str!("../../docs/origins.md");
        for kind in KINDS {
            let same = KINDS.iter().filter(|other| other.name == kind.name);
            assert_eq!(same.count(), 1, "{}", kind.name);
            let row = format!("| `{}` |", kind.name);
            assert!(reference.contains(&row), "origins.md has no {row}");
        }
    }

    #[test]
    fn no_kind_drops_the_delivery_directives_or_the_session_of_its_server() {
        use seawall_manifest::Kind;
        let query = |name: &str| {
            let kind = KINDS.iter().find(|kind| kind.name == name);
            (kind.unwrap().query)()
        };
        for kind in [
            "mediamtx",
            "ovenmediaengine",
            "nimble",
            "wowza",
            "unified",
            "mediapackage",
        ] {
            let directives = "_HLS_msn=7&_HLS_part=1&_HLS_skip=YES";
            let kept = query(kind).keep(Kind::Hls, directives).map(String::from);
            assert_eq!(kept.as_deref(), Some(directives), "{kind}");
        }
        for (kind, session, on_segments) in [
            ("ovenmediaengine", "session=3_a", true),
            ("srs", "hls_ctx=a", false),
            ("nimble", "nimblesessionid=7", true),
        ] {
            let (policies, kept) = (query(kind), Some(session));
            assert_eq!(policies.keep(Kind::Hls, session).as_deref(), kept, "{kind}");
            let kept = kept.filter(|_| on_segments);
            assert_eq!(
                policies.keep(Kind::Segment, session).as_deref(),
                kept,
                "{kind}"
            );
        }
    }
}
