//! Says why a purge names nothing that this server has, and which names it does have.

use std::collections::BTreeSet;
use std::fmt::Write;

use http::Uri;

use super::super::Shield;
use super::{PurgeScope, TagSelection};
use seawall_policy::access::{Admission, host_of};

/// A purge names nothing that this server has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct UnknownTarget {
    /// In words, with names that are known.
    pub why: String,
}

/// An answer lists at most so many names.
const NAMES_MAX: usize = 20;

impl Shield {
    /// Why nothing is purged.
    pub(super) fn unknown_target(&self, scope: &PurgeScope) -> UnknownTarget {
        let why = match scope {
            PurgeScope::Tags(selection) => self.unknown_origin(selection),
            PurgeScope::Stream(url) if self.request_of_url(url).is_some() => self.unknown_stream(),
            PurgeScope::Url(url)
            | PurgeScope::Path(url)
            | PurgeScope::Stream(url)
            | PurgeScope::Prefix(url)
            | PurgeScope::Host(url) => self.unserved_url(url),
            PurgeScope::Everything => "the server is about to stop".to_owned(),
        };
        UnknownTarget { why }
    }

    fn unknown_origin(&self, selection: &TagSelection) -> String {
        let routes = self.rules.routes.iter();
        let origins = listed(routes.map(|route| route.origin.to_string()).collect());
        let origin = selection.origin.as_deref().unwrap_or_default();
        format!("no route has an origin called {origin:?}: the origins are {origins}")
    }

    fn unknown_stream(&self) -> String {
        let streams = self.streams().streams.into_iter();
        let streams: BTreeSet<String> = streams.map(|stream| stream.name.to_string()).collect();
        let known = if streams.is_empty() {
            "no live stream is known".to_owned()
        } else {
            format!("the live streams known are {}", listed(streams))
        };
        format!(
            "this stream is not known: none of its manifests is stored, and nobody has watched it \
             in the last minutes; {known}"
        )
    }

    fn unserved_url(&self, url: &Uri) -> String {
        let host = host_of(url).unwrap_or_default();
        let is_served = self.rules.routes_below(&host, "/").next().is_some();
        if !is_served {
            let routes = self.rules.routes.iter();
            let hosts = routes.flat_map(|route| route.hosts.iter().cloned());
            let hosts = listed(hosts.collect());
            return format!("no route serves the host {host:?}: routes serve {hosts}");
        }
        match self.admit_url(url) {
            Admission::Reject(rejection) => rejection.why.to_owned(),
            Admission::Redirect(route, ..) => {
                let name = &route.name;
                format!("the route {name:?} stores nothing: it sends viewers elsewhere")
            }
            _ => "no route serves this host and path".to_owned(),
        }
    }
}

/// These names, as many as an answer lists.
fn listed(names: BTreeSet<String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut text = names
        .into_iter()
        .take(NAMES_MAX)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        let _ = write!(text, ", and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_a_bounded_number_of_names() {
        let names = |count: usize| (0..count).map(|name| format!("n{name:03}")).collect();
        assert_eq!(listed(names(2)), "n000, n001");
        let twenty = listed(names(20));
        assert!(twenty.ends_with("n019"), "{twenty}");
        assert!(listed(names(500)).ends_with("n019, and 480 more"));
    }
}
