//! Sends the viewers of a route elsewhere.

use http::{HeaderValue, StatusCode, Uri};

/// Where the viewers of a route are sent. Built by `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// A path, or an absolute URL, without query. The rest of the viewer's path and its query
    /// follow.
    pub to: String,
    /// The status of the response.
    pub status: StatusCode,
}

impl Redirect {
    /// The `Location` for a request of a route with this prefix. `None`: no header can carry it.
    pub(super) fn location(&self, path_prefix: &str, uri: &Uri) -> Option<HeaderValue> {
        let rest = &uri.path()[path_prefix.trim_end_matches('/').len()..];
        // `//` and `/\` begin the name of another host in browsers.
        let rest = rest.trim_start_matches(['/', '\\']);
        let to = self.to.trim_end_matches('/');
        let mut location = to.to_owned();
        if !rest.is_empty() || to.is_empty() || self.to.ends_with('/') {
            location.push('/');
            location.push_str(rest);
        }
        if let Some(query) = uri.query() {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::try_from(location).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(to: &str, path_prefix: &str, target: &str) -> String {
        let redirect = Redirect {
            to: to.to_owned(),
            status: StatusCode::FOUND,
        };
        let location = redirect.location(path_prefix, &target.parse().unwrap());
        location.unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn rest_of_the_path_and_the_query_follow() {
        let new = "https://new.test/live";
        assert_eq!(
            location(new, "/old", "/old/a.m3u8?x=1"),
            "https://new.test/live/a.m3u8?x=1"
        );
        assert_eq!(location(new, "/old", "/old"), "https://new.test/live");
        assert_eq!(
            location("https://new.test", "/", "/a/b.ts"),
            "https://new.test/a/b.ts"
        );
        assert_eq!(location("/new", "/old", "/old/"), "/new");
        assert_eq!(location("/", "/old", "/old/a.ts"), "/a.ts");
        assert_eq!(location("/", "/old", "/old"), "/");
    }

    #[test]
    fn no_path_leads_to_another_host() {
        for target in ["/old//evil.test/a", "/old///evil.test", "/old/\\evil.test"] {
            assert!(
                location("/", "/old", target).starts_with("/evil.test"),
                "{target}"
            );
            assert!(
                location("/new", "/old", target).starts_with("/new/evil.test"),
                "{target}"
            );
            let elsewhere = location("https://new.test", "/old", target);
            assert!(
                elsewhere.starts_with("https://new.test/evil.test"),
                "{target}"
            );
        }
    }
}
