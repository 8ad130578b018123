//! The ignored request fields, which cannot change a response: requests that differ in nothing else
//! get the same response from memory.

use http::HeaderName;

use super::Rules;

/// Fields of players, browsers and CDNs that nothing here reads: ignored unless a route forwards or
/// requires them. A field that is not listed is taken to matter: a missing name costs time, a wrong
/// one would give a viewer another viewer's response. A rule that begins to read one of these must
/// take it out.
pub const IGNORED_UNLESS_FORWARDED: [&str; 30] = [
    "user-agent",
    "accept",
    "accept-language",
    "referer",
    "dnt",
    "priority",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-amz-cf-id",
    "x-amzn-trace-id",
    "x-playback-session-id",
    "x-akamai-edgescape",
    "fastly-client-ip",
    "fastly-ff",
    "cf-connecting-ip",
    "cf-ray",
    "cf-visitor",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "traceparent",
    "tracestate",
];

/// The fields that cannot change a response under these rules.
#[derive(Debug, Default)]
pub struct IgnoredFields {
    /// By the length of the name.
    by_length: Vec<Vec<&'static str>>,
}

impl IgnoredFields {
    /// All of [`IGNORED_UNLESS_FORWARDED`] that no route forwards or requires, and that tells no
    /// class of clients.
    pub fn of(rules: &Rules) -> IgnoredFields {
        let is_read = |name: &str| {
            let listed = rules.routes.iter().flat_map(|route| {
                let required = route.access.require_header.iter();
                let token = route.access.token.iter();
                let forwarded = route.forward_headers.iter().chain(&route.unkeyed_headers);
                forwarded
                    .chain(required.map(|header| &header.name))
                    .chain(token.filter_map(|token| token.header.as_ref()))
            });
            let classes = rules.client_classes.iter();
            let of_classes = classes.filter_map(|class| Some(&class.header.as_ref()?.name));
            let mut listed = listed.chain(of_classes).map(HeaderName::as_str);
            listed.any(|listed| listed == name)
        };
        let mut by_length: Vec<Vec<&'static str>> = Vec::new();
        for name in IGNORED_UNLESS_FORWARDED
            .into_iter()
            .filter(|name| !is_read(name))
        {
            if by_length.len() <= name.len() {
                by_length.resize_with(name.len() + 1, Vec::new);
            }
            by_length[name.len()].push(name);
        }
        IgnoredFields { by_length }
    }

    /// Whether a field of this name, in any case, is ignored.
    pub fn contains(&self, name: &str) -> bool {
        let candidates = self.by_length.get(name.len());
        candidates.is_some_and(|candidates| {
            candidates
                .iter()
                .any(|candidate| candidate.eq_ignore_ascii_case(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Route;
    use super::super::access_rules::RequiredHeader;
    use super::*;

    #[test]
    fn contains_ignored_fields_in_any_case_and_no_others() {
        let rules = Rules {
            routes: vec![Arc::new(Route::everything("origin"))],
            name: "shield".into(),
            trusted_proxies: crate::TrustedProxies::default(),
            client_classes: crate::ClientClasses::default(),
        };
        let ignored = IgnoredFields::of(&rules);
        for name in ["User-Agent", "user-agent", "X-Amz-Cf-Id", "VIA"] {
            assert!(ignored.contains(name), "{name}");
        }
        for name in [
            "host",
            "range",
            "accept-encoding",
            "origin",
            "x-unknown",
            "user-agenx",
            "",
        ] {
            assert!(!ignored.contains(name), "{name}");
        }
    }

    #[test]
    fn fields_that_a_route_forwards_are_not_ignored() {
        let forwarding = Route {
            forward_headers: vec![HeaderName::from_static("user-agent")],
            unkeyed_headers: vec![HeaderName::from_static("x-forwarded-for")],
            ..Route::everything("origin")
        };
        let rules = Rules {
            routes: vec![Arc::new(Route::everything("origin")), Arc::new(forwarding)],
            name: "shield".into(),
            trusted_proxies: crate::TrustedProxies::default(),
            client_classes: crate::ClientClasses::default(),
        };
        let ignored = IgnoredFields::of(&rules);
        assert!(!ignored.contains("User-Agent") && !ignored.contains("X-Forwarded-For"));
        assert!(ignored.contains("Referer"));
    }

    #[test]
    fn field_that_a_route_requires_is_not_ignored() {
        let mut guarded = Route::everything("origin");
        guarded.access.require_header = Some(RequiredHeader {
            name: HeaderName::from_static("x-amz-cf-id"),
            secret_files: Vec::new(),
        });
        let rules = Rules {
            routes: vec![Arc::new(guarded)],
            name: "shield".into(),
            trusted_proxies: crate::TrustedProxies::default(),
            client_classes: crate::ClientClasses::default(),
        };
        let ignored = IgnoredFields::of(&rules);
        assert!(!ignored.contains("X-Amz-Cf-Id") && ignored.contains("Via"));
    }
}
