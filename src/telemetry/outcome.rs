//! How a request ended: the outcome is both the metric label and the word in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

use seawall_manifest::Kind;
use seawall_policy::{StreamNumber, ViewerAddress};

/// How a request was served. Misses, stale responses and rejections are outcomes, not errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Served from memory, fresh.
    Hit,
    /// Served from memory, stale, and refreshed in the background.
    Stale,
    /// Served from memory, stale, because the origin failed.
    StaleError,
    /// Served from memory, stale: the origin responded 404 to a manifest that existed a moment ago.
    StaleMissing,
    /// This request started the fill.
    Miss,
    /// Joined a fill that another request started.
    Coalesced,
    /// Requested before it existed, joined the one origin request for it, and was answered when it
    /// came: a blocking reload of an LL-HLS playlist, an announced part, or a segment with a known
    /// publication time.
    Blocking,
    /// The origin confirmed the stored object with a 304.
    Revalidated,
    /// Not cacheable: straight from the origin.
    Pass,
    /// A recent failure or a recent 404 was answered without contacting the origin.
    Negative,
    /// Answered by Seawall itself (CORS preflight).
    Local,
    /// Rejected by a rule or a limit (4xx), or by the viewer's own `only-if-cached` (504).
    Refused,
    /// Too many requests wait, or no time is left (503 or 504 from Seawall).
    Overload,
    /// The origin failed and there was no stored object (502, 504).
    Failed,
    /// The viewer left before the response, or was cut by a drain (499 in the log, as in nginx).
    Left,
}

/// The cause of a truncated body: both the metric label and the word in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbortCause {
    /// The origin truncated the body, or Seawall lost a body whose head it had sent.
    Origin,
    /// The viewer left or was too slow.
    Viewer,
    /// Seawall truncated it: the viewer was slow, and the rest of the body had to leave memory.
    Memory,
    /// Seawall truncated it: it took longer than `drain_max` after the server, its listener or the
    /// viewer's authority was to end, or an operator did not wait that long.
    Drain,
}

impl AbortCause {
    /// All, in the order of [`AbortCause::index`].
    pub const ALL: [AbortCause; 4] = [
        AbortCause::Origin,
        AbortCause::Viewer,
        AbortCause::Memory,
        AbortCause::Drain,
    ];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AbortCause::Origin => "origin",
            AbortCause::Viewer => "viewer",
            AbortCause::Memory => "memory",
            AbortCause::Drain => "drain",
        }
    }
}

impl Outcome {
    /// All outcomes, in the order of [`Outcome::index`].
    pub const ALL: [Outcome; 15] = [
        Outcome::Hit,
        Outcome::Stale,
        Outcome::StaleError,
        Outcome::StaleMissing,
        Outcome::Miss,
        Outcome::Coalesced,
        Outcome::Blocking,
        Outcome::Revalidated,
        Outcome::Pass,
        Outcome::Negative,
        Outcome::Local,
        Outcome::Refused,
        Outcome::Overload,
        Outcome::Failed,
        Outcome::Left,
    ];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Stale => "stale",
            Outcome::StaleError => "stale_error",
            Outcome::StaleMissing => "stale_missing",
            Outcome::Miss => "miss",
            Outcome::Coalesced => "coalesced",
            Outcome::Blocking => "blocking",
            Outcome::Revalidated => "revalidated",
            Outcome::Pass => "pass",
            Outcome::Negative => "negative",
            Outcome::Local => "local",
            Outcome::Refused => "refused",
            Outcome::Overload => "overload",
            Outcome::Failed => "failed",
            Outcome::Left => "left",
        }
    }
}

/// What the time until a response's head depended on. The hit ratio is defined by this division of
/// outcomes, and only here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseSource {
    /// On nothing: answered at once from memory.
    Memory,
    /// On the publication of the object, which did not exist yet.
    Blocking,
    /// On the origin, whether it responded or not.
    Origin,
    /// On Seawall itself (rejections, CORS).
    Shield,
}

impl ResponseSource {
    /// All of them, in the order of [`ResponseSource::index`].
    pub const ALL: [ResponseSource; 4] = [
        ResponseSource::Memory,
        ResponseSource::Blocking,
        ResponseSource::Origin,
        ResponseSource::Shield,
    ];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ResponseSource::Memory => "memory",
            ResponseSource::Blocking => "blocking",
            ResponseSource::Origin => "origin",
            ResponseSource::Shield => "shield",
        }
    }

    /// A hit is a request that caused no origin request, and waited for none, except for an object
    /// that did not exist yet. `None`: not counted in the hit ratio, because no cache could have
    /// had the response.
    pub fn is_hit(self) -> Option<bool> {
        match self {
            ResponseSource::Memory | ResponseSource::Blocking => Some(true),
            ResponseSource::Origin => Some(false),
            ResponseSource::Shield => None,
        }
    }
}

impl Outcome {
    /// What the time until the head depended on.
    pub fn source(self) -> ResponseSource {
        match self {
            Outcome::Hit | Outcome::Stale | Outcome::Negative => ResponseSource::Memory,
            Outcome::Blocking => ResponseSource::Blocking,
            Outcome::Local | Outcome::Refused | Outcome::Left => ResponseSource::Shield,
            Outcome::Miss
            | Outcome::Coalesced
            | Outcome::Revalidated
            | Outcome::Pass
            | Outcome::StaleError
            | Outcome::StaleMissing
            | Outcome::Overload
            | Outcome::Failed => ResponseSource::Origin,
        }
    }
}

/// Logged as the status, although none was sent.
const LEFT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::REQUEST_TIMEOUT,
};

/// What is recorded about one request. The proxy fills it, the frontend completes it.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// When the request's head was complete.
    pub arrived: Instant,
    /// How it was served.
    pub outcome: Outcome,
    /// The kind of the requested object.
    pub kind: Kind,
    /// The route's index. `None` without a matching route.
    pub route: Option<usize>,
    /// The index of the client's class. `None`: there are no classes.
    pub class: Option<usize>,
    /// The live stream of the object that was sent. `None`: none, or it has no number.
    pub stream: Option<StreamNumber>,
    /// A hash of the viewer's address.
    pub viewer_hash: u32,
    /// Hash of the cache key. 0 without a key.
    pub key_hash: u64,
    /// Status of the response.
    pub status: StatusCode,
    /// The response of an earlier request was sent again. Set by the frontend.
    pub is_repeated: bool,
    /// How long this request waited for the head of an origin response, from its own fetch or a
    /// joined one.
    pub origin_time: Option<Duration>,
    /// From arrival to the head of the response. Set by the frontend.
    pub head_time: Duration,
    /// From arrival to the last body byte written to the socket. Set by the frontend.
    pub total_time: Duration,
    /// Body bytes sent. Set by the frontend.
    pub bytes: u64,
    /// Why the body was truncated, if it was. Set by the frontend.
    pub aborted_by: Option<AbortCause>,
    /// Only set when this request may be logged (see [`super::AccessLog`]).
    pub log_fields: Option<Box<AccessLogFields>>,
}

impl RequestRecord {
    /// A record for a request that has just arrived. Its outcome is [`Outcome::Refused`] until
    /// another is set: what ends a request before the pipeline sets one is a rejection.
    pub fn begin(arrived: Instant) -> RequestRecord {
        RequestRecord {
            arrived,
            outcome: Outcome::Refused,
            kind: Kind::Other,
            route: None,
            class: None,
            stream: None,
            viewer_hash: 0,
            key_hash: 0,
            status: StatusCode::OK,
            is_repeated: false,
            origin_time: None,
            head_time: Duration::ZERO,
            total_time: Duration::ZERO,
            bytes: 0,
            aborted_by: None,
            log_fields: None,
        }
    }

    /// Ends the record without a response, because the viewer left or a drain cut it.
    #[must_use]
    pub fn end_without_response(mut self, cause: AbortCause) -> RequestRecord {
        self.outcome = Outcome::Left;
        self.status = LEFT;
        self.aborted_by = Some(cause);
        self.total_time = self.arrived.elapsed();
        self
    }
}

/// Why a request was refused, in words of the program: nothing in them comes from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalReason {
    /// The word that metrics count it by.
    pub word: &'static str,
    /// More about it.
    pub detail: Option<&'static str>,
}

/// Fields that only the access log needs.
#[derive(Clone, Debug)]
pub struct AccessLogFields {
    /// Method. `None` if it could not be parsed.
    pub method: Option<Method>,
    /// Requested path without the query, which may contain tokens. Empty: unknown.
    pub path: String,
    /// Requested host. Empty: unknown.
    pub host: String,
    /// Where the request comes from.
    pub address: ViewerAddress,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: &'static str,
    /// The route's name. `None` without a matching route.
    pub route: Option<Arc<str>>,
    /// The name of the client's class. `None`: there are no classes.
    pub class: Option<Arc<str>>,
    /// Why the request was refused. `None`: it was not, or the status says it.
    pub refusal: Option<RefusalReason>,
    /// The request id, also sent as `X-Request-Id`. Empty: it has none.
    pub request_id: String,
}

impl AccessLogFields {
    /// From a request's head. The request id is not set yet.
    pub fn of(
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
        address: ViewerAddress,
    ) -> AccessLogFields {
        let field = headers.get(header::HOST);
        let host_field = field.and_then(|host| host.to_str().ok());
        AccessLogFields {
            method: Some(method.clone()),
            path: uri.path().to_owned(),
            host: uri.host().or(host_field).unwrap_or_default().to_owned(),
            address,
            protocol: match version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            route: None,
            class: None,
            refusal: None,
            request_id: String::new(),
        }
    }
}
