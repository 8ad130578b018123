//! A viewer's request, written in one line.

use std::fmt;

use crate::support::wire::head_lines;

/// The default host of viewers.
pub const HOST: &str = "media.test";

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) host: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// `GET target`.
pub fn get(target: &str) -> Ask {
    ask("GET", target)
}

/// `HEAD target`.
pub fn head(target: &str) -> Ask {
    ask("HEAD", target)
}

/// Any method.
pub fn ask(method: &str, target: &str) -> Ask {
    Ask {
        method: method.to_owned(),
        target: target.to_owned(),
        host: HOST.to_owned(),
        fields: Vec::new(),
        body: Vec::new(),
    }
}

impl Ask {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The host.
    pub fn host_name(&self) -> &str {
        &self.host
    }

    /// Whether the response has no body.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Range: bytes=…`.
    pub fn range(self, ranges: &str) -> Ask {
        self.header("Range", &format!("bytes={ranges}"))
    }

    /// Another `Host`.
    pub fn host(mut self, host: &str) -> Ask {
        host.clone_into(&mut self.host);
        self
    }

    /// A body, with its length.
    pub fn body(mut self, bytes: &[u8]) -> Ask {
        self.body = bytes.to_vec();
        self.header("Content-Length", &bytes.len().to_string())
    }

    /// The HTTP/1.1 form.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let fields = head_lines(&self.fields);
        let start = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let head = format!("{start}Host: {}\r\n{fields}\r\n", self.host);
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The HTTP/2 form.
    pub(super) fn to_request(&self, scheme: &str) -> http::Request<()> {
        let mut request = http::Request::builder()
            .method(self.method.as_str())
            .uri(format!("{scheme}://{}{}", self.host, self.target));
        for (name, value) in &self.fields {
            request = request.header(name.to_ascii_lowercase(), value);
        }
        request.body(()).expect("a scenario asks in good form")
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}
