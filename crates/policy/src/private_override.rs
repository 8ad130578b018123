//! Makes a response storable that its origin declares to be one viewer's own, because the route
//! says that objects of this kind never are.

use http::header::{CACHE_CONTROL, CDN_CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields;

/// The fields that may forbid other viewers the response.
static FIELDS: [HeaderName; 2] = [CACHE_CONTROL, CDN_CACHE_CONTROL];

/// Removes `Set-Cookie`, and the directives `private` and `no-store`. Returns whether there were
/// any.
pub fn make_shareable(headers: &mut HeaderMap) -> bool {
    let mut is_changed = headers.remove(SET_COOKIE).is_some();
    for name in &FIELDS {
        let elements = || fields::elements(headers, name);
        if !elements().any(forbids_sharing) {
            continue;
        }
        is_changed = true;
        let rest: Vec<_> = elements()
            .filter(|element| !forbids_sharing(element))
            .collect();
        let rest = HeaderValue::from_bytes(&rest.join(&b", "[..])).ok();
        headers.remove(name);
        if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
            headers.insert(name, rest);
        }
    }
    is_changed
}

fn forbids_sharing(element: &[u8]) -> bool {
    let (name, _) = fields::name_and_value(element);
    name.eq_ignore_ascii_case(b"private") || name.eq_ignore_ascii_case(b"no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(given: &[(HeaderName, &'static str)]) -> (bool, Vec<String>) {
        let given = given.iter().cloned();
        let given = given.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let mut headers: HeaderMap = given.collect();
        let is_changed = make_shareable(&mut headers);
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        (is_changed, headers.iter().map(line).collect())
    }

    #[test]
    fn removes_cookies_private_and_no_store_and_nothing_else() {
        let cookies = [(SET_COOKIE, "session=1"), (SET_COOKIE, "a=b")];
        assert_eq!(left(&cookies), (true, Vec::new()));
        let said = "Private=\"x, y\", max-age=60, NO-STORE, no-cache";
        let kept = vec!["cache-control: max-age=60, no-cache".to_owned()];
        assert_eq!(left(&[(CACHE_CONTROL, said)]), (true, kept));
        let both = [
            (CACHE_CONTROL, "private"),
            (CDN_CACHE_CONTROL, "no-store, max-age=9"),
        ];
        let kept = vec!["cdn-cache-control: max-age=9".to_owned()];
        assert_eq!(left(&both), (true, kept));
        let public = [(CACHE_CONTROL, "public, max-age=5")];
        assert_eq!(
            left(&public),
            (false, vec!["cache-control: public, max-age=5".to_owned()])
        );
    }
}
