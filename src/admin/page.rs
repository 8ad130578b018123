//! The page for operators: files that a browser loads from this server alone, and that read
//! `/overview/events`.

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method};

use super::response::{self, AdminResponse};

/// Nothing from elsewhere, no script in the text, and in no other site's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A file of the page: its path, its type and its content.
type PageAsset = (&'static str, AssetType, &'static [u8]);

#[derive(Clone, Copy)]
enum AssetType {
    Html,
    Css,
    Script,
    Image,
}

macro_rules! file {
    ($path:literal, $name:literal, $kind:ident) => {
        (
            $path,
            AssetType::$kind,
            include_bytes!(concat!("page/", $name)),
        )
    };
}

static FILES: &[PageAsset] = &[
    file!("/", "index.html", Html),
    file!("/page.css", "page.css", Css),
    file!("/uplot.css", "uplot.css", Css),
    file!("/actions.js", "actions.js", Script),
    file!("/connection.js", "connection.js", Script),
    file!("/diagnosis.js", "diagnosis.js", Script),
    file!("/dom.js", "dom.js", Script),
    file!("/format.js", "format.js", Script),
    file!("/model.js", "model.js", Script),
    file!("/page.js", "page.js", Script),
    file!("/plots.js", "plots.js", Script),
    file!("/stream_details.js", "stream_details.js", Script),
    file!("/stream_table.js", "stream_table.js", Script),
    file!("/uplot.js", "uplot.js", Script),
    file!("/icon.svg", "icon.svg", Image),
];

/// The file with this path, if it is one of the page.
pub(super) fn response(method: &Method, path: &str) -> Option<AdminResponse> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let (_, kind, content) = FILES.iter().find(|(file, ..)| *file == path)?;
    let mut response = response::file(Bytes::from_static(content), kind.content_type());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(response)
}

impl AssetType {
    fn content_type(self) -> &'static str {
        match self {
            AssetType::Html => "text/html; charset=utf-8",
            AssetType::Css => "text/css; charset=utf-8",
            AssetType::Script => "text/javascript; charset=utf-8",
            AssetType::Image => "image/svg+xml",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_all_files_that_it_names_and_names_no_other_host() {
        let mut named = 0;
        for (path, _, content) in FILES {
            let text = std::str::from_utf8(content).unwrap();
            // Names of vocabularies are not fetched, and examples are on hosts that do not exist.
            for (place, _) in text.match_indices("://") {
                let host = &text[place + 3..];
                let is_fetched = !host.starts_with("www.w3.org/") && !host.starts_with("live.");
                assert!(!is_fetched || *path == "/uplot.js", "{path}: {host:.40}");
            }
            for part in text.split(['"', '\'']) {
                let name = part.trim_start_matches(['.', '/']);
                let is_file = [".js", ".css", ".svg"]
                    .iter()
                    .any(|end| name.ends_with(end));
                if is_file && !name.contains(['{', ' ', '\n']) {
                    named += 1;
                    let path = format!("/{name}");
                    assert!(response(&Method::GET, &path).is_some(), "{path}");
                }
            }
        }
        assert!(named > 5, "{named}");
        assert!(response(&Method::POST, "/").is_none());
        assert!(response(&Method::GET, "/uplot.LICENSE").is_none());
    }
}
