//! Resolves relative references textually (RFC 3986, section 5). Dot segments are left for the
//! caller to remove.

/// The part of `base` that goes before `reference`.
pub(super) fn stem(base: &str, reference: &str) -> String {
    if base.is_empty() || has_scheme(reference) {
        return String::new();
    }
    let base = base.split('#').next().unwrap_or_default();
    let root = root(base);
    if reference.starts_with("//") {
        let scheme = if has_scheme(base) {
            base.split("//").next()
        } else {
            None
        };
        return scheme.unwrap_or_default().to_owned();
    }
    if reference.starts_with('/') {
        return base[..root].to_owned();
    }
    if reference.is_empty() {
        return base.to_owned();
    }
    let path = base.split('?').next().unwrap_or_default();
    if reference.starts_with('?') {
        return path.to_owned();
    }
    // A final `.` or `..` is a directory; so is a host without a path.
    let last = path[root.min(path.len())..].rsplit('/').next();
    if [Some("."), Some("..")].contains(&last) || (root > 0 && root >= path.len()) {
        return format!("{path}/");
    }
    let end = path.rfind('/').map_or(0, |slash| slash + 1);
    path[..end].to_owned()
}

/// Joins base and reference.
pub(super) fn join(base: &str, reference: &str) -> String {
    let mut joined = stem(base, reference);
    joined.push_str(reference);
    joined
}

/// The part of a path that requests for it contain: without scheme and host, and without parts that
/// lead above the manifest's directory.
pub(super) fn local(path: &str) -> &str {
    let mut local = &path[root(path)..];
    for climb in ["../", "./"] {
        // `a../` is a name.
        while let Some(at) = local
            .rmatch_indices(climb)
            .map(|(at, _)| at)
            .find(|&at| local[..at].is_empty() || local[..at].ends_with('/'))
        {
            local = &local[at + climb.len()..];
        }
    }
    local.trim_start_matches('/')
}

/// Length of scheme and authority in bytes.
fn root(reference: &str) -> usize {
    let after = if has_scheme(reference) {
        reference.find(':').map_or(0, |colon| colon + 1)
    } else {
        0
    };
    match reference[after..].strip_prefix("//") {
        Some(rest) => {
            let start = after + 2;
            start + rest.find(['/', '?', '#']).unwrap_or(rest.len())
        }
        None => after,
    }
}

fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else {
        return false;
    };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn joins_relative_references() {
        for (base, reference, joined) in [
            ("", "a.mp4", "a.mp4"),
            ("dash/", "a.mp4", "dash/a.mp4"),
            ("dash/v", "a.mp4", "dash/a.mp4"),
            ("v", "a.mp4", "a.mp4"),
            ("dash/?t=a/b", "a.mp4", "dash/a.mp4"),
            ("..", "a.mp4", "../a.mp4"),
            ("dash/.", "a.mp4", "dash/./a.mp4"),
            ("dash/", "../a.mp4", "dash/../a.mp4"),
            ("dash/", "/a.mp4", "/a.mp4"),
            ("dash/", "", "dash/"),
            ("dash/?t", "?u", "dash/?u"),
            ("https://h/p/q", "a.mp4", "https://h/p/a.mp4"),
            ("https://h", "a.mp4", "https://h/a.mp4"),
            ("https://h?x", "a.mp4", "https://h/a.mp4"),
            ("https://h/p/", "/a.mp4", "https://h/a.mp4"),
            ("https://h/p/", "//g/a.mp4", "https://g/a.mp4"),
            ("//h/p/", "a.mp4", "//h/p/a.mp4"),
            ("dash/", "https://g/a.mp4", "https://g/a.mp4"),
            ("dash/", "time:1.mp4", "time:1.mp4"),
            ("dash/", "1:1.mp4", "dash/1:1.mp4"),
        ] {
            assert_eq!(join(base, reference), joined, "{base} {reference}");
        }
    }

    #[test]
    fn local_strips_host_and_dot_segments() {
        for (path, expected) in [
            ("v/1.mp4", "v/1.mp4"),
            ("/v/1.mp4", "v/1.mp4"),
            ("https://h/v/1.mp4", "v/1.mp4"),
            ("//h/v/1.mp4", "v/1.mp4"),
            ("../v/1.mp4", "v/1.mp4"),
            ("../../v/./1.mp4", "1.mp4"),
            ("dash/../v/1.mp4", "v/1.mp4"),
            ("a../1.mp4", "a../1.mp4"),
            ("https://h", ""),
        ] {
            assert_eq!(local(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_reference_does_not_panic(base in "[a:/?#.é]{0,12}", reference in "[a:/?#.é]{0,12}") {
            prop_assert!(join(&base, &reference).ends_with(&reference));
            let _ = local(&base);
        }
    }
}
