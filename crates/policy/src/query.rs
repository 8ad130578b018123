//! Filters the query. Parameters that are dropped are in neither the key nor the upstream request.
//!
//! CMCD is always dropped, whatever the route says.

use std::borrow::Cow;

use seawall_manifest::{Kind, strip_query};

/// The parameters that MediaPackage reads in manifest requests; in segment requests it reads none.
const MEDIAPACKAGE: [&str; 10] = [
    "aws.drmsettings",
    "aws.manifestfilter",
    "aws.manifestsettings",
    "start",
    "end",
    "manifest_window_seconds",
    "time_delay",
    "_HLS_msn",
    "_HLS_part",
    "_HLS_skip",
];

/// Which query parameters are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryPolicy {
    /// Keep the query unchanged.
    All,
    /// Keep nothing.
    None,
    /// Keep these names, in the order of the request.
    Only(Vec<String>),
    /// Keep all other names.
    Except(Vec<String>),
}

/// The policies by the kind that the path suggests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryPolicies {
    /// HLS playlists and MPDs.
    pub manifest: QueryPolicy,
    /// Segments and init segments.
    pub segment: QueryPolicy,
    /// Decryption keys, time servers, and paths of unknown kind.
    pub other: QueryPolicy,
}

impl From<QueryPolicy> for QueryPolicies {
    fn from(policy: QueryPolicy) -> QueryPolicies {
        QueryPolicies {
            manifest: policy.clone(),
            segment: policy.clone(),
            other: policy,
        }
    }
}

impl QueryPolicies {
    /// The policies for AWS Elemental MediaPackage. A path of unknown kind may be a manifest and is
    /// treated as one.
    pub fn mediapackage() -> QueryPolicies {
        let names = MEDIAPACKAGE.map(str::to_owned).to_vec();
        QueryPolicies {
            segment: QueryPolicy::None,
            ..QueryPolicy::Only(names).into()
        }
    }

    /// Whether this request's query is kept unchanged.
    pub(super) fn keeps_all(&self, kind: Kind, uri: &http::Uri) -> bool {
        let query = uri.query().unwrap_or_default();
        self.keep(kind, query).is_none_or(|kept| kept == query)
    }

    /// The part of the query that is kept, in its own order. `None`: nothing is left.
    pub fn keep<'q>(&self, kind: Kind, query: &'q str) -> Option<Cow<'q, str>> {
        let policy = match kind {
            Kind::Hls | Kind::Dash => &self.manifest,
            Kind::Segment | Kind::Init => &self.segment,
            Kind::DecryptionKey | Kind::TimeServer | Kind::Other => &self.other,
        };
        match strip_query(query) {
            Cow::Borrowed(query) => policy.keep(query),
            Cow::Owned(query) => Some(policy.keep(&query)?.into_owned().into()),
        }
    }
}

impl QueryPolicy {
    /// Keeps the first of several parameters with the same name, so that origin and cache cannot
    /// interpret the query differently.
    fn keep<'q>(&self, query: &'q str) -> Option<Cow<'q, str>> {
        let (names, keeps) = match self {
            QueryPolicy::None => return None,
            QueryPolicy::All => return Some(Cow::Borrowed(query)).filter(|q| !q.is_empty()),
            QueryPolicy::Only(names) => (names, true),
            QueryPolicy::Except(names) => (names, false),
        };
        let is_kept = |name: &str| names.iter().any(|named| named == name) == keeps;
        let mut seen: Vec<&str> = Vec::new();
        let mut kept = String::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or(pair);
            if is_kept(name) && !seen.contains(&name) {
                seen.push(name);
                if !kept.is_empty() {
                    kept.push('&');
                }
                kept.push_str(pair);
            }
        }
        if kept.is_empty() {
            None
        } else {
            Some(Cow::Owned(kept))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_query_parameters_keep_order_and_first_value() {
        let only = QueryPolicy::Only(vec!["a".into(), "b".into()]);
        assert_eq!(only.keep("b=1&utm=x&a=2&b=3").as_deref(), Some("b=1&a=2"));
        assert_eq!(only.keep("utm=x"), None);
        let except = QueryPolicy::Except(vec!["utm".into()]);
        assert_eq!(except.keep("utm=x&a").as_deref(), Some("a"));
        assert_eq!(QueryPolicy::All.keep("x=1&x=2").as_deref(), Some("x=1&x=2"));
        assert_eq!(QueryPolicy::None.keep("x=1"), None);
    }

    #[test]
    fn cmcd_is_always_dropped_from_the_query() {
        let named = || vec!["CMCD".to_owned(), "a".to_owned()];
        for policy in [
            QueryPolicy::All,
            QueryPolicy::Only(named()),
            QueryPolicy::Except(vec!["utm".into()]),
        ] {
            let queries = QueryPolicies::from(policy);
            for kind in Kind::ALL {
                let keep = |query| queries.keep(kind, query);
                assert_eq!(keep("a=1&CMCD=br%3D5").as_deref(), Some("a=1"));
                assert_eq!(keep("CMCD=br%3D5"), None);
            }
        }
    }

    #[test]
    fn mediapackage_query_policy_differs_by_kind() {
        let queries = QueryPolicies::mediapackage();
        let query = "start=1&token=x&_HLS_msn=7&aws.manifestfilter=video_codec:h264";
        let kept = "start=1&_HLS_msn=7&aws.manifestfilter=video_codec:h264";
        for kind in [Kind::Hls, Kind::Dash, Kind::Other] {
            assert_eq!(queries.keep(kind, query).as_deref(), Some(kept));
        }
        for kind in [Kind::Segment, Kind::Init] {
            assert_eq!(queries.keep(kind, query), None);
        }
    }
}
