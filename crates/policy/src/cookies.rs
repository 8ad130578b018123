//! Removes the cookies that change no response: those that an origin's load balancer sets for
//! everybody alike, so that they do not make a response one viewer's own; and those of viewers that
//! the origin does not read, so that they do not make one object many.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

/// Removes the cookies with these names from a request whose cookies are one line. A name that ends
/// in `*` is the beginning of names.
pub(super) fn ignore_cookies(headers: &mut HeaderMap, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let Some(line) = headers.remove(COOKIE) else {
        return;
    };
    let is_kept = |cookie: &&[u8]| {
        !cookie.trim_ascii().is_empty() && !names.iter().any(|name| is_named(cookie, name))
    };
    let cookies = line.as_bytes().split(|byte| *byte == b';').filter(is_kept);
    let kept: Vec<_> = cookies.map(<[u8]>::trim_ascii).collect();
    // Pieces of a field value are one too.
    if let Ok(line) = HeaderValue::try_from(kept.join(&b"; "[..]))
        && !line.is_empty()
    {
        headers.insert(COOKIE, line);
    }
}

/// Removes `Set-Cookie` if each of its cookies has one of these names. A name that ends in `*` is
/// the beginning of names. One cookie of another name keeps all of them: the response is that
/// viewer's own.
pub fn strip_set_cookie(headers: &mut HeaderMap, names: &[String]) {
    if names.is_empty() || !headers.contains_key(SET_COOKIE) {
        return;
    }
    let mut cookies = headers.get_all(SET_COOKIE).iter();
    if cookies.all(|cookie| names.iter().any(|name| is_named(cookie.as_bytes(), name))) {
        headers.remove(SET_COOKIE);
    }
}

/// Whether a cookie has this name. A cookie without `=` has none (RFC 6265, section 5.2).
fn is_named(cookie: &[u8], wanted: &str) -> bool {
    let pair = cookie.split(|byte| *byte == b';').next();
    let pair = pair.unwrap_or_default();
    let Some(end) = pair.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let name = pair[..end].trim_ascii();
    match wanted.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning.as_bytes()),
        None => name == wanted.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The cookies that are left of these.
    fn left(cookies: &[&'static str], names: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        strip_set_cookie(&mut headers, &names);
        let left = headers.get_all(SET_COOKIE).iter();
        left.map(|cookie| cookie.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn removes_cookies_only_if_all_are_named() {
        let balancer = ["AWSALB=a; Path=/", " AWSALBCORS = b; SameSite=None"];
        assert!(left(&balancer, &["AWSALB", "AWSALBCORS"]).is_empty());
        assert!(left(&balancer, &["AWSALB*"]).is_empty());
        assert_eq!(left(&balancer, &["AWSALB"]).len(), 2);
        assert_eq!(left(&["AWSALB=a", "session=1"], &["AWSALB*"]).len(), 2);
        assert_eq!(left(&["AWSALB=a"], &[]).len(), 1);
    }

    #[test]
    fn keeps_cookies_whose_name_only_looks_similar() {
        for other in [
            "awsalb=1",
            "XAWSALB=1",
            "AWSALB2=1",
            "AWSALB",
            "=AWSALB",
            "x; AWSALB=1",
        ] {
            assert_eq!(left(&[other], &["AWSALB"]), [other]);
        }
    }

    fn left_of_request(line: &'static str, names: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(line))]);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        ignore_cookies(&mut headers, &names);
        let line = headers.get(COOKIE)?;
        Some(line.to_str().unwrap().to_owned())
    }

    #[test]
    fn cookies_of_other_names_stay_in_their_order() {
        let line = "_ga=1; region=eu; _gid = 2;tier=hd; _ga=3";
        assert_eq!(
            left_of_request(line, &["_g*"]).unwrap(),
            "region=eu; tier=hd"
        );
        assert_eq!(
            left_of_request(line, &["_ga"]).unwrap(),
            "region=eu; _gid = 2; tier=hd"
        );
        assert_eq!(
            left_of_request(line, &["ga", "Region", "tie"])
                .unwrap()
                .matches('=')
                .count(),
            5
        );
        assert_eq!(left_of_request(line, &[]).unwrap(), line);
    }

    #[test]
    fn line_without_a_cookie_is_removed() {
        assert_eq!(left_of_request("_ga=1", &["_ga"]), None);
        assert_eq!(left_of_request("_ga=1;; ;", &["_ga"]), None);
        assert_eq!(left_of_request("", &["_ga"]), None);
    }

    /// What has no name is no cookie that anybody named: the origin gets it.
    #[test]
    fn pieces_without_a_name_stay() {
        assert_eq!(
            left_of_request("_ga; a=_ga=1; =_ga", &["_ga"]).unwrap(),
            "_ga; a=_ga=1; =_ga"
        );
    }
}
