//! The origin's replies, byte for byte as the scenario describes them, faults included.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;

use super::request::Request;
use crate::support::gate::Gate;

/// One reply. By default `200 OK` with an empty body.
#[derive(Clone)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) framing: Framing,
    pub(super) head: Head,
    pub(super) steps: Vec<Step>,
    validator: Option<String>,
    ranged: Option<Bytes>,
}

/// The framing of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Content-Length`: of the bytes to send, or as written by the scenario.
    Length(Option<u64>),
    /// Each `send` is a chunk.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

/// When the head is sent, if at all.
#[derive(Clone)]
pub(super) enum Head {
    AtOnce,
    Held(Gate),
    Never,
}

/// What happens after the head, in order.
#[derive(Clone)]
pub(super) enum Step {
    /// Body bytes, framed like the reply.
    Send(Bytes),
    /// Bytes outside any framing.
    Raw(Bytes),
    /// Continues when the gate opens.
    Hold(Gate),
    /// Continues after this time.
    Pause(Duration),
    /// Sends nothing more and leaves the connection open.
    Stall,
    /// Ends the connection cleanly (HTTP/2: resets the stream).
    Close,
    /// Resets the connection (HTTP/2: the stream).
    Reset,
}

/// The start of every reply: `200 OK`.
pub fn reply() -> Reply {
    Reply {
        status: 200,
        fields: Vec::new(),
        framing: Framing::Length(None),
        head: Head::AtOnce,
        steps: Vec::new(),
        validator: None,
        ranged: None,
    }
}

/// A reply with this status.
pub fn status(status: u16) -> Reply {
    Reply { status, ..reply() }
}

/// No reply: the connection is reset when the request has been read.
pub fn hang_up() -> Reply {
    let mut reply = reply();
    reply.head = Head::Never;
    reply.reset()
}

/// An HLS playlist with this text.
pub fn manifest(text: impl Into<String>) -> Reply {
    reply()
        .content_type("application/vnd.apple.mpegurl")
        .body(text.into())
}

/// A media segment with these bytes and without caching directives.
pub fn segment(bytes: impl Into<Bytes>) -> Reply {
    reply().content_type("video/mp2t").body(bytes)
}

impl Reply {
    /// Adds a header field.
    pub fn header(mut self, name: &str, value: impl Display) -> Reply {
        self.fields.push((name.to_owned(), format!("{value}")));
        self
    }

    /// `Cache-Control`.
    pub fn cache_control(self, directives: &str) -> Reply {
        self.header("Cache-Control", directives)
    }

    /// `Content-Type`.
    pub fn content_type(self, media_type: &str) -> Reply {
        self.header("Content-Type", media_type)
    }

    /// `Age`: makes objects stale without sleeping.
    pub fn age(self, seconds: u64) -> Reply {
        self.header("Age", seconds)
    }

    /// `ETag`, and 304 to requests that have it.
    pub fn etag(mut self, etag: &str) -> Reply {
        self.validator = Some(etag.to_owned());
        self.header("ETag", etag)
    }

    /// The whole body, with its length unless another framing is chosen.
    pub fn body(self, bytes: impl Into<Bytes>) -> Reply {
        self.send(bytes)
    }

    /// The whole body, and 206 for a request with one range.
    pub fn with_ranges(mut self, bytes: impl Into<Bytes>) -> Reply {
        self.ranged = Some(bytes.into());
        self.header("Accept-Ranges", "bytes")
    }

    /// Announces this length, whatever is sent.
    pub fn content_length(mut self, length: u64) -> Reply {
        self.framing = Framing::Length(Some(length));
        self
    }

    /// Every `send` becomes a chunk; the last chunk follows unless the connection ends first.
    pub fn chunked(mut self) -> Reply {
        self.framing = Framing::Chunked;
        self
    }

    /// No length: the body ends with the connection.
    pub fn until_close(mut self) -> Reply {
        self.framing = Framing::UntilClose;
        self
    }

    /// Sends nothing, not even the head, before the gate opens.
    pub fn hold_head(mut self, gate: &Gate) -> Reply {
        self.head = Head::Held(gate.clone());
        self
    }

    /// Body bytes.
    pub fn send(self, bytes: impl Into<Bytes>) -> Reply {
        self.step(Step::Send(bytes.into()))
    }

    /// Bytes outside the framing.
    pub fn raw(self, bytes: impl Into<Bytes>) -> Reply {
        self.step(Step::Raw(bytes.into()))
    }

    /// Waits for the gate before the following steps.
    pub fn hold(self, gate: &Gate) -> Reply {
        self.step(Step::Hold(gate.clone()))
    }

    /// Body bytes in pieces of this size, with this pause after each.
    pub fn send_slowly(mut self, bytes: &Bytes, size: usize, every: Duration) -> Reply {
        for piece in bytes.chunks(size) {
            let piece = Bytes::copy_from_slice(piece);
            self = self.send(piece).step(Step::Pause(every));
        }
        self
    }

    /// Goes silent without closing.
    pub fn stall(self) -> Reply {
        self.step(Step::Stall)
    }

    /// Closes the connection, whatever was announced.
    pub fn close(self) -> Reply {
        self.step(Step::Close)
    }

    /// Resets the connection, whatever was announced.
    pub fn reset(self) -> Reply {
        self.step(Step::Reset)
    }

    /// This reply first, `next` to the request after it. The last reply is repeated.
    pub fn then(self, next: Reply) -> Script {
        Script::from(self).then(next)
    }

    fn step(mut self, step: Step) -> Reply {
        self.steps.push(step);
        self
    }

    /// The reply to this request: 304 or 206 where the reply allows it, else as written.
    pub(super) fn for_request(mut self, request: &Request) -> Reply {
        let validator = self.validator.take();
        let known = |etag: &String| request.header("if-none-match") == Some(etag.as_str());
        if validator.as_ref().is_some_and(known) {
            self.status = 304;
            self.framing = Framing::Length(None);
            self.steps.clear();
            return self;
        }
        let Some(whole) = self.ranged.take() else {
            return self;
        };
        let unchanged = match request.header("if-range") {
            Some(wanted) => validator.as_deref() == Some(wanted),
            None => true,
        };
        match request.range(whole.len()).filter(|_| unchanged) {
            Some((start, end)) => {
                self.status = 206;
                let last = end - 1;
                let length = whole.len();
                self.header("Content-Range", format!("bytes {start}-{last}/{length}"))
                    .send(whole.slice(start..end))
            }
            None => self.send(whole),
        }
    }

    /// The number of body bytes that the steps send.
    pub(super) fn body_bytes(&self) -> u64 {
        let length = |step: &Step| match step {
            Step::Send(bytes) => bytes.len() as u64,
            _ => 0,
        };
        self.steps.iter().map(length).sum()
    }

    /// Whether this reply has a body for that method.
    pub(super) fn has_body(&self, method: &str) -> bool {
        method != "HEAD" && self.status != 304 && self.status != 204
    }
}

/// The replies for one path, in order; the last one is repeated.
pub struct Script {
    makers: Vec<Maker>,
    served: usize,
}

type Maker = Box<dyn Fn(&Request) -> Reply + Send>;

/// Replies computed from the request.
pub fn computed(maker: impl Fn(&Request) -> Reply + Send + 'static) -> Script {
    Script {
        makers: vec![Box::new(maker)],
        served: 0,
    }
}

impl Script {
    /// The reply to the next request.
    pub fn then(mut self, next: Reply) -> Script {
        self.makers.push(Box::new(move |_| next.clone()));
        self
    }

    pub(super) fn next(&mut self, request: &Request) -> Reply {
        let turn = self.served.min(self.makers.len() - 1);
        self.served += 1;
        self.makers[turn](request).for_request(request)
    }
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Script {
        computed(move |_| reply.clone())
    }
}
