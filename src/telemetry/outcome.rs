//! How did a request end? One enum that is the metric label and the log word.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

use crate::manifest::Kind;

/// How a request was served. Misses, stale answers and refusals are outcomes, not errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// From memory, fresh.
    Hit,
    /// From memory, stale, while a refresh runs behind the viewer.
    Stale,
    /// From memory, stale, because the origin failed.
    StaleError,
    /// From memory, stale, because the origin says that it is not there, and that is not believed
    /// yet.
    StaleMissing,
    /// This request caused the fill.
    Miss,
    /// Joined a fill that another request caused.
    Coalesced,
    /// Asked for what was not there yet, joined the one request for it, and was answered when it came:
    /// a blocking reload of an LL-HLS playlist, an announced part, a segment that the clock announces.
    HeldBack,
    /// The origin confirmed with a 304 what was held.
    Revalidated,
    /// Not cacheable: straight from the origin.
    Pass,
    /// A remembered failure, or a remembered absence: answered without asking the origin.
    Negative,
    /// Answered by the shield itself (CORS preflight).
    Local,
    /// Refused by a rule or a limit (4xx).
    Refused,
    /// Too many waiting, or no time left (503, 504 by the shield).
    Overload,
    /// The origin failed and nothing was held (502, 504).
    Failed,
    /// The viewer left before there was an answer (499 in the log, as nginx writes it).
    Left,
}

/// Who ended a body before its end. One enum that is the metric label and the log word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CutBy {
    /// The origin broke off midway, or the shield lost what it had promised.
    Origin,
    /// The viewer left, or took too long.
    Viewer,
    /// The shield: the viewer was slow, and what it had not read yet had to leave memory.
    Memory,
}

impl CutBy {
    /// All, in the order of [`CutBy::index`].
    pub const ALL: [CutBy; 3] = [CutBy::Origin, CutBy::Viewer, CutBy::Memory];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CutBy::Origin => "origin",
            CutBy::Viewer => "viewer",
            CutBy::Memory => "memory",
        }
    }
}

impl Outcome {
    /// Every outcome, in the order of [`Outcome::index`].
    pub const ALL: [Outcome; 15] = [
        Outcome::Hit,
        Outcome::Stale,
        Outcome::StaleError,
        Outcome::StaleMissing,
        Outcome::Miss,
        Outcome::Coalesced,
        Outcome::HeldBack,
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
            Outcome::HeldBack => "held_back",
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

/// On whom did the time until an answer's head depend? This partition of outcomes is also what the hit
/// ratio is made of, here and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseSource {
    /// On nobody: answered at once from memory.
    Memory,
    /// On nobody either: what was asked for did not exist yet, and came when it did.
    HeldBack,
    /// On the origin, which was waited for, in vain or not.
    Origin,
    /// On the shield: it is its own word (refusals, CORS).
    Shield,
}

impl ResponseSource {
    /// All of them, in the order of [`Source::index`].
    pub const ALL: [ResponseSource; 4] = [
        ResponseSource::Memory,
        ResponseSource::HeldBack,
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
            ResponseSource::HeldBack => "held_back",
            ResponseSource::Origin => "origin",
            ResponseSource::Shield => "shield",
        }
    }

    /// A hit is a request that caused no origin request and waited for none that was under way.
    /// `None`: the hit ratio does not count it, for no cache could have had the answer.
    pub fn is_hit(self) -> Option<bool> {
        match self {
            ResponseSource::Memory | ResponseSource::HeldBack => Some(true),
            ResponseSource::Origin => Some(false),
            ResponseSource::Shield => None,
        }
    }
}

impl Outcome {
    /// On whom the time until the head depended.
    pub fn source(self) -> ResponseSource {
        match self {
            Outcome::Hit | Outcome::Stale | Outcome::Negative => ResponseSource::Memory,
            Outcome::HeldBack => ResponseSource::HeldBack,
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

/// No status was sent; this is what logs write for it.
const LEFT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::REQUEST_TIMEOUT,
};

/// Everything worth telling about one request. Filled by the shield, finished by the edge.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// When its head was complete.
    pub arrived: Instant,
    /// How it was served.
    pub outcome: Outcome,
    /// What it was for.
    pub kind: Kind,
    /// The route's name and metric index; `None` when no route took it.
    pub route: Option<(Arc<str>, usize)>,
    /// Hash of the key; 0 when it never had one.
    pub key_hash: u64,
    /// Answered status.
    pub status: StatusCode,
    /// How long this request waited for the head of an origin's answer, whoever's fetch that was.
    pub origin_time: Option<Duration>,
    /// From arrival to the head being ready. Set by the edge.
    pub head_time: Duration,
    /// From arrival to the last body byte handed to the socket. Set by the edge.
    pub total_time: Duration,
    /// Body bytes sent. Set by the edge.
    pub bytes: u64,
    /// Who cut it before its end, if anybody did. Set by the edge.
    pub cut_by: Option<CutBy>,
    /// Only filled when this request will be logged (see [`super::AccessLog::wants`]).
    pub line: Option<Box<AccessLogFields>>,
}

impl RequestRecord {
    /// The beginning of one: nothing has happened yet.
    pub fn begun(arrived: Instant) -> RequestRecord {
        RequestRecord {
            arrived,
            outcome: Outcome::Refused,
            kind: Kind::Other,
            route: None,
            key_hash: 0,
            status: StatusCode::OK,
            origin_time: None,
            head_time: Duration::ZERO,
            total_time: Duration::ZERO,
            bytes: 0,
            cut_by: None,
            line: None,
        }
    }

    /// It has ended with no answer, for its viewer left.
    #[must_use]
    pub fn left(mut self) -> RequestRecord {
        self.outcome = Outcome::Left;
        self.status = LEFT;
        self.cut_by = Some(CutBy::Viewer);
        self.total_time = self.arrived.elapsed();
        self
    }
}

/// What only the access log needs.
#[derive(Clone, Debug)]
pub struct AccessLogFields {
    /// Method; `None` where nobody could read it.
    pub method: Option<Method>,
    /// Path as asked for, without the query (queries may carry tokens). Empty: not known.
    pub path: String,
    /// Host as asked for. Empty: not known.
    pub host: String,
    /// The viewer's address.
    pub peer: Option<IpAddr>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: &'static str,
    /// The request id, also sent as `X-Request-Id`. Empty: it got none.
    pub request_id: String,
}

impl AccessLogFields {
    /// What a request's head says of it; the request's id is not known yet.
    pub fn of(
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> AccessLogFields {
        let field = headers.get(header::HOST);
        let named = field.and_then(|host| host.to_str().ok());
        AccessLogFields {
            method: Some(method.clone()),
            path: uri.path().to_owned(),
            host: uri.host().or(named).unwrap_or_default().to_owned(),
            peer,
            protocol: match version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            request_id: String::new(),
        }
    }
}
