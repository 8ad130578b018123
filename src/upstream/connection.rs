//! How is one request carried? A connection (HTTP/1.1) or a stream of one (HTTP/2) under one face.
//!
//! A line that is dropped is closed (or its stream reset); only [`Line::release`] after a proven
//! end lets it be used again. Knows nothing of deadlines, permits or counters.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use pingora_core::protocols::http::v1::client::HttpSession as H1Session;
use pingora_core::protocols::http::v2::client::Http2Session as H2Session;
use pingora_core::upstreams::peer::{HttpPeer, Peer};

use super::Failure;
use super::activity::{ConnectionActivity, is_of_connection};
use super::connector::EndpointConnector;
use super::drain::BodyDrain;
use super::head::{self, ResponseHead};
use super::request::{AttemptRequest, GroupHeaders};

/// Answers of the kind 1xx before the real one, at most. All of them come within the deadline of one head.
const INTERIM_MAX: usize = 128;
/// How long a HTTP/2 connection without streams is kept after one of them was broken off.
const IDLE_AFTER_BREAK: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<pingora_error::Error>>;

/// What a line speaks.
pub(super) enum UpstreamSession {
    /// A connection of its own.
    H1(Box<H1Session>),
    /// A stream among others.
    H2(Box<H2Session>),
}

/// A way to an endpoint, for one request.
pub(super) struct UpstreamConnection {
    /// Taken out when the line ends.
    session: Option<UpstreamSession>,
    /// Of its connection, where that is shared.
    pulse: Option<ConnectionActivity>,
    peer: HttpPeer,
    endpoint: usize,
    reused: bool,
    condemned: bool,
    dial: Arc<EndpointConnector>,
}

impl UpstreamConnection {
    pub(super) fn new(
        session: UpstreamSession,
        peer: HttpPeer,
        endpoint: usize,
        reused: bool,
        dial: &Arc<EndpointConnector>,
    ) -> UpstreamConnection {
        let pulse = match &session {
            UpstreamSession::H1(_) => None,
            UpstreamSession::H2(session) => Some(dial.pulses().of(session)),
        };
        UpstreamConnection {
            session: Some(session),
            pulse,
            peer,
            endpoint,
            reused,
            condemned: false,
            dial: Arc::clone(dial),
        }
    }

    pub(super) fn rests(&self) -> &BodyDrain {
        self.dial.rests()
    }

    /// Others used its connection before.
    pub(super) fn reused(&self) -> bool {
        self.reused
    }

    /// Its connection is not to be used by anybody any more. Streams under way may finish.
    pub(super) fn condemn(&mut self) {
        self.condemned = true;
    }

    /// It was waited on in vain. A connection of its own is left, a shared one if it is silent to
    /// all.
    pub(super) fn stalled(&mut self) {
        if self.pulse.as_ref().is_none_or(ConnectionActivity::is_still) {
            self.condemn();
        }
    }

    /// Whether a request that failed like this on it may well be answered on another connection:
    /// one that was closed, or takes no more, says nothing about the origin.
    pub(super) fn was_lost(&self, failure: Failure) -> bool {
        // Every error of a connection of one's own is the connection's.
        failure == Failure::Reset && (self.pulse.is_none() || self.condemned)
    }

    /// Sends the head; a body follows unless the request has none.
    pub(super) async fn send(
        &mut self,
        request: &AttemptRequest,
        add: &GroupHeaders,
    ) -> std::result::Result<(), Failure> {
        let (endpoint, tls) = (self.endpoint, self.peer.is_tls());
        let sent = match self.session() {
            UpstreamSession::H1(session) => {
                let head = request.h1(endpoint, add)?;
                session.write_request_header(head).await.map(drop)
            }
            UpstreamSession::H2(session) => {
                let head = request.h2(endpoint, tls, add)?;
                session.write_request_header(head, request.payload.is_empty())
            }
        };
        self.heed(sent).map_err(|error| Failure::of_asking(&error))
    }

    /// Sends a piece of the body.
    pub(super) async fn send_piece(&mut self, piece: Bytes) -> Result<()> {
        self.listen();
        let sent = match self.session() {
            UpstreamSession::H1(session) => session.write_body(&piece).await.map(drop),
            UpstreamSession::H2(session) => session.write_request_body(piece, false).await,
        };
        self.heed(sent)
    }

    /// Ends the body.
    pub(super) async fn end_body(&mut self) -> Result<()> {
        let ended = match self.session() {
            UpstreamSession::H1(session) => session.finish_body().await.map(drop),
            UpstreamSession::H2(session) => session.finish_request_body(),
        };
        self.heed(ended)
    }

    /// Reads up to the end of the answer's head, past interim answers.
    pub(super) async fn read_head(
        &mut self,
        method: &Method,
    ) -> std::result::Result<ResponseHead, Failure> {
        let asking = |error: Box<pingora_error::Error>| Failure::of_asking(&error);
        self.listen();
        match self.session() {
            UpstreamSession::H1(session) => {
                for _ in 0..INTERIM_MAX {
                    session.read_response().await.map_err(asking)?;
                    let head = session.resp_header().ok_or(Failure::Protocol)?;
                    if !head.status.is_informational() || head.status.as_u16() == 101 {
                        let parts = (head.status, head.headers.clone());
                        let raw = session.get_headers_raw_bytes();
                        return head::h1(method, head.version, parts, &raw);
                    }
                }
                Err(Failure::Protocol)
            }
            UpstreamSession::H2(session) => {
                let read = session.read_response_header().await;
                let head = session.response_header();
                let head = head.map(|head| (head.status, head.headers.clone()));
                self.heed(read).map_err(asking)?;
                self.beat();
                let (status, headers) = head.ok_or(Failure::Protocol)?;
                head::h2(method, status, headers)
            }
        }
    }

    /// The next bytes of the answer's body (an empty piece is not its end); `None` is the end as
    /// the connection tells it.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>> {
        self.listen();
        let read = match self.session() {
            UpstreamSession::H1(session) => session.read_body_bytes().await,
            UpstreamSession::H2(session) => session.read_response_body().await,
        };
        if read.is_ok() {
            self.beat();
        }
        match self.heed(read) {
            Err(error) if has_long_trailers(&error) => Ok(None),
            read => read,
        }
    }

    /// Whether the end of the body is already known to have come, after a successful read.
    pub(super) fn ended(&mut self) -> bool {
        match self.session() {
            UpstreamSession::H1(session) => session.is_body_done(),
            UpstreamSession::H2(session) => session.check_response_end_or_error().unwrap_or(false),
        }
    }

    /// Gives the connection back for others to use: only after a proven end. One that must not be
    /// used again (the origin says so, or sent more than it promised) is closed instead.
    pub(super) fn release(mut self, idle: Duration) {
        match self.session.take() {
            Some(UpstreamSession::H1(mut session)) => {
                session.respect_keepalive();
                if session.will_keepalive() && !self.condemned {
                    let transport = self.dial.connector().transport();
                    let hash = self.peer.reuse_hash();
                    transport.release_stream(session.into_inner(), hash, Some(idle));
                }
            }
            Some(UpstreamSession::H2(session)) => self.part(session, idle),
            None => {}
        }
    }

    /// Ends a stream and leaves its connection to the others. pingora keeps a connection whose
    /// streams were merely dropped for ever, so every stream comes by here.
    fn part(&self, session: Box<H2Session>, idle: Duration) {
        if self.condemned {
            session.conn.mark_shutdown();
        }
        // pingora starts a task to watch the idle connection, which needs a runtime to run in.
        if tokio::runtime::Handle::try_current().is_ok() {
            let connector = self.dial.connector();
            connector.release_http_session(*session, &self.peer, Some(idle));
        }
    }

    /// After an error a connection of its own is used no more, a shared one if the error is not the
    /// stream's.
    fn heed<T>(&mut self, step: Result<T>) -> Result<T> {
        step.inspect_err(|error| {
            if self.pulse.is_none() || is_of_connection(error) {
                self.condemned = true;
            }
        })
    }

    fn listen(&mut self) {
        if let Some(pulse) = &mut self.pulse {
            pulse.listen();
        }
    }

    fn beat(&self) {
        if let Some(pulse) = &self.pulse {
            pulse.beat();
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "only `release` and `drop` take it, and both end the line"
    )]
    fn session(&mut self) -> &mut UpstreamSession {
        self.session.as_mut().expect("a line in use has a session")
    }
}

/// The body's last chunk has come, and more trailers after it than are read (64 KiB): nobody here passes trailers
/// on, so nothing is missing. The connection is not used again.
fn has_long_trailers(error: &pingora_error::Error) -> bool {
    let of_trailers = error.etype().as_str() == "InvalidTrailerEnd";
    let is_limit =
        |context: &pingora_error::ImmutStr| context.as_str() == "Trailer size over limit";
    of_trailers && error.context.as_ref().is_some_and(is_limit)
}

impl Drop for UpstreamConnection {
    fn drop(&mut self) {
        if let Some(UpstreamSession::H2(session)) = self.session.take() {
            self.part(session, IDLE_AFTER_BREAK);
        }
    }
}
