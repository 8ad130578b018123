//! How did a request end? One enum that is the metric label and the log word.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use crate::media::Kind;

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
}

impl Outcome {
    /// Every outcome, in the order of [`Outcome::index`].
    pub const ALL: [Outcome; 13] = [
        Outcome::Hit,
        Outcome::Stale,
        Outcome::StaleError,
        Outcome::StaleMissing,
        Outcome::Miss,
        Outcome::Coalesced,
        Outcome::Revalidated,
        Outcome::Pass,
        Outcome::Negative,
        Outcome::Local,
        Outcome::Refused,
        Outcome::Overload,
        Outcome::Failed,
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
            Outcome::Revalidated => "revalidated",
            Outcome::Pass => "pass",
            Outcome::Negative => "negative",
            Outcome::Local => "local",
            Outcome::Refused => "refused",
            Outcome::Overload => "overload",
            Outcome::Failed => "failed",
        }
    }
}

/// Everything worth telling about one request. Filled by the shield, finished by the edge.
#[derive(Clone, Debug)]
pub struct Tale {
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
    /// The body was cut (origin failed midway, or the viewer left). Set by the edge.
    pub aborted: bool,
    /// Only filled when this request will be logged (see [`super::AccessLog::wants`]).
    pub line: Option<Box<LogLine>>,
}

impl Tale {
    /// The beginning of one: nothing has happened yet.
    pub fn begun(arrived: Instant) -> Tale {
        Tale {
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
            aborted: false,
            line: None,
        }
    }
}

/// What only the access log needs.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Method.
    pub method: Method,
    /// Path as asked for, without the query (queries may carry tokens).
    pub path: String,
    /// Host as asked for.
    pub host: String,
    /// The viewer's address.
    pub peer: Option<IpAddr>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: &'static str,
    /// The request id, also sent as `X-Request-Id`.
    pub request_id: String,
}
