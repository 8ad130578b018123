//! What a route changes in the header fields of requests to origins and of responses to viewers.

use http::header::{AGE, CACHE_CONTROL, EXPIRES};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use seawall_manifest::Kind;

/// The rules of a route, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// For responses, also those of the shield's own.
    pub to_viewer: Vec<HeaderRule>,
    /// For requests. They set fields and remove none: no field is sent unless it is listed.
    pub to_origin: Vec<HeaderRule>,
}

/// Fields that are set or removed where the rule applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRule {
    /// Empty: every kind.
    pub kinds: Vec<Kind>,
    /// Empty: every status.
    pub statuses: Vec<StatusCode>,
    /// Fields with their values.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields without a value.
    pub remove: Vec<HeaderName>,
}

impl HeaderRules {
    /// Changes the fields of a response.
    pub fn apply_to_response(&self, kind: Kind, status: StatusCode, headers: &mut HeaderMap) {
        for rule in self.applied(kind, status) {
            for name in &rule.remove {
                headers.remove(name);
            }
            if rule.states_lifetime() {
                // A lifetime that begins at the viewer: the time that the response was stored here
                // is no part of it.
                headers.remove(AGE);
                headers.remove(EXPIRES);
            }
            for (name, value) in &rule.set {
                headers.insert(name, value.clone());
            }
        }
    }

    /// Whether a response with these stored fields keeps all of them.
    pub fn keep_stored(
        &self,
        kind: Kind,
        status: StatusCode,
        is_stored: impl Fn(&HeaderName) -> bool,
    ) -> bool {
        self.applied(kind, status).all(|rule| {
            let set = rule.set.iter().map(|(name, _)| name);
            let is_changed = set.chain(&rule.remove).any(&is_stored);
            !(is_changed || rule.states_lifetime() && is_stored(&EXPIRES))
        })
    }

    fn applied(&self, kind: Kind, status: StatusCode) -> impl Iterator<Item = &HeaderRule> {
        let rules = self.to_viewer.iter();
        rules.filter(move |rule| rule.applies(kind, status))
    }

    /// Sets the fields of a request for an object of this kind. They are part of its key.
    pub(super) fn apply_to_request(&self, kind: Kind, sent: &mut HeaderMap) {
        let applied = self.to_origin.iter().filter(|rule| rule.takes_kind(kind));
        for (name, value) in applied.flat_map(|rule| &rule.set) {
            sent.insert(name, value.clone());
        }
    }
}

impl HeaderRule {
    fn applies(&self, kind: Kind, status: StatusCode) -> bool {
        let takes_status = self.statuses.is_empty() || self.statuses.contains(&status);
        takes_status && self.takes_kind(kind)
    }

    fn takes_kind(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn states_lifetime(&self) -> bool {
        self.set.iter().any(|(name, _)| name == CACHE_CONTROL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: HeaderName = http::header::SERVER;

    fn rules(rule: HeaderRule) -> HeaderRules {
        HeaderRules {
            to_viewer: vec![rule],
            to_origin: Vec::new(),
        }
    }

    fn response(rules: &HeaderRules, kind: Kind, status: StatusCode) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(SERVER, HeaderValue::from_static("packager"));
        headers.insert(AGE, HeaderValue::from_static("3600"));
        headers.insert(EXPIRES, HeaderValue::from_static("0"));
        rules.apply_to_response(kind, status, &mut headers);
        headers
    }

    #[test]
    fn rule_applies_to_its_kinds_and_statuses_only() {
        let rules = rules(HeaderRule {
            kinds: vec![Kind::Hls],
            statuses: vec![StatusCode::OK],
            remove: vec![SERVER],
            ..HeaderRule::default()
        });
        let is_removed = |kind, status| !response(&rules, kind, status).contains_key(SERVER);
        assert!(is_removed(Kind::Hls, StatusCode::OK));
        assert!(!is_removed(Kind::Segment, StatusCode::OK));
        assert!(!is_removed(Kind::Hls, StatusCode::NOT_FOUND));
    }

    #[test]
    fn lifetime_that_is_set_begins_at_the_viewer() {
        let rules = rules(HeaderRule {
            set: vec![(CACHE_CONTROL, HeaderValue::from_static("max-age=60"))],
            ..HeaderRule::default()
        });
        let headers = response(&rules, Kind::Segment, StatusCode::OK);
        assert_eq!(headers[CACHE_CONTROL], "max-age=60");
        assert!(!headers.contains_key(AGE) && !headers.contains_key(EXPIRES));
    }

    #[test]
    fn stored_fields_are_kept_unless_a_rule_changes_one() {
        let removing = rules(HeaderRule {
            kinds: vec![Kind::Hls],
            remove: vec![SERVER],
            ..HeaderRule::default()
        });
        let keeps = |rules: &HeaderRules, kind, stored: HeaderName| {
            rules.keep_stored(kind, StatusCode::OK, |name| *name == stored)
        };
        assert!(!keeps(&removing, Kind::Hls, SERVER));
        assert!(keeps(&removing, Kind::Segment, SERVER));
        assert!(keeps(&removing, Kind::Hls, EXPIRES));
        let stating = rules(HeaderRule {
            set: vec![(CACHE_CONTROL, HeaderValue::from_static("max-age=60"))],
            ..HeaderRule::default()
        });
        assert!(!keeps(&stating, Kind::Hls, CACHE_CONTROL));
        assert!(!keeps(&stating, Kind::Hls, EXPIRES));
        assert!(keeps(&stating, Kind::Hls, SERVER));
    }
}
