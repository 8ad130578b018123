//! Carries one request: an HTTP/1.1 connection or an HTTP/2 stream behind one interface.
//!
//! Dropping it closes the connection (or resets the stream); only [`UpstreamConnection::release`]
//! after a proven end makes it reusable. Deadlines, permits and counters are handled elsewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use pingora_core::protocols::http::v1::client::HttpSession as H1Session;
use pingora_core::protocols::http::v2::client::Http2Session as H2Session;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use tokio::sync::OwnedSemaphorePermit;

use super::activity::{ConnectionActivity, is_of_connection};
use super::pool::ConnectionPool;
use super::request_head::{AttemptRequest, GroupHeaders};
use super::response_head::{ResponseHead, read_h1, read_h2};
use crate::Failure;

/// Maximum number of 1xx responses before the final one. All must arrive within the deadline of one
/// head.
const INTERIM_MAX: usize = 128;
/// How long an HTTP/2 connection without streams is kept after a stream was aborted.
const IDLE_AFTER_BREAK: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<pingora_error::Error>>;

/// The protocol session of a connection.
pub(crate) enum UpstreamSession {
    /// A connection of its own.
    H1(Box<H1Session>),
    /// A stream among others.
    H2(Box<H2Session>),
}

/// A connection to an endpoint, for one request.
pub(crate) struct UpstreamConnection {
    /// `None` after release or drop.
    session: Option<UpstreamSession>,
    /// Activity of the shared connection; `None` for HTTP/1.1.
    activity: Option<ConnectionActivity>,
    peer: HttpPeer,
    endpoint: usize,
    reused: bool,
    unusable: bool,
    pool: Arc<ConnectionPool>,
}

impl UpstreamConnection {
    pub(crate) fn new(
        session: UpstreamSession,
        peer: HttpPeer,
        endpoint: usize,
        reused: bool,
        pool: &Arc<ConnectionPool>,
    ) -> UpstreamConnection {
        let activity = match &session {
            UpstreamSession::H1(_) => None,
            UpstreamSession::H2(session) => Some(pool.activities().of(session)),
        };
        UpstreamConnection {
            session: Some(session),
            activity,
            peer,
            endpoint,
            reused,
            unusable: false,
            pool: Arc::clone(pool),
        }
    }

    /// The right to drain this connection's body, unless too many are being drained.
    pub(crate) fn drain_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.pool.drain_permit()
    }

    /// The connection carried other requests before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// The connection must not be reused. Running streams may finish.
    pub(crate) fn mark_unusable(&mut self) {
        self.unusable = true;
    }

    /// A wait timed out. An HTTP/1.1 connection is abandoned, a shared one only if no stream
    /// received anything.
    pub(crate) fn record_stall(&mut self) {
        if self
            .activity
            .as_ref()
            .is_none_or(ConnectionActivity::is_still)
        {
            self.mark_unusable();
        }
    }

    /// A request that failed like this may succeed on another connection: this one was closed or
    /// accepts no more requests, which says nothing about the origin.
    pub(crate) fn was_lost(&self, failure: Failure) -> bool {
        // Every error of an unshared connection is the connection's.
        failure == Failure::Reset && (self.activity.is_none() || self.unusable)
    }

    /// Sends the head; a body follows unless the request has none.
    pub(crate) async fn send(
        &mut self,
        request: &AttemptRequest,
        group: &GroupHeaders,
    ) -> std::result::Result<(), Failure> {
        let (endpoint, tls) = (self.endpoint, self.peer.is_tls());
        let sent = match self.session() {
            UpstreamSession::H1(session) => {
                let head = request.h1(endpoint, group)?;
                session.write_request_header(head).await.map(drop)
            }
            UpstreamSession::H2(session) => {
                let head = request.h2(endpoint, tls, group)?;
                session.write_request_header(head, request.payload.is_empty())
            }
        };
        self.record_error(sent)
            .map_err(|error| Failure::of_exchange(&error))
    }

    /// Sends a chunk of the body.
    pub(crate) async fn send_chunk(&mut self, chunk: Bytes) -> Result<()> {
        self.begin_wait();
        let sent = match self.session() {
            UpstreamSession::H1(session) => session.write_body(&chunk).await.map(drop),
            UpstreamSession::H2(session) => session.write_request_body(chunk, false).await,
        };
        self.record_error(sent)
    }

    /// Ends the body.
    pub(crate) async fn end_body(&mut self) -> Result<()> {
        let ended = match self.session() {
            UpstreamSession::H1(session) => session.finish_body().await.map(drop),
            UpstreamSession::H2(session) => session.finish_request_body(),
        };
        self.record_error(ended)
    }

    /// Reads the response head, skipping 1xx responses.
    pub(crate) async fn read_head(
        &mut self,
        method: &Method,
    ) -> std::result::Result<ResponseHead, Failure> {
        let failure_of = |error: Box<pingora_error::Error>| Failure::of_exchange(&error);
        self.begin_wait();
        match self.session() {
            UpstreamSession::H1(session) => {
                for _ in 0..INTERIM_MAX {
                    session.read_response().await.map_err(failure_of)?;
                    let head = session.resp_header().ok_or(Failure::Protocol)?;
                    if !head.status.is_informational() || head.status.as_u16() == 101 {
                        let parts = (head.status, head.headers.clone());
                        let raw = session.get_headers_raw_bytes();
                        return read_h1(method, head.version, parts, &raw);
                    }
                }
                Err(Failure::Protocol)
            }
            UpstreamSession::H2(session) => {
                let read = session.read_response_header().await;
                let head = session.response_header();
                let head = head.map(|head| (head.status, head.headers.clone()));
                self.record_error(read).map_err(failure_of)?;
                self.record_data();
                let (status, headers) = head.ok_or(Failure::Protocol)?;
                read_h2(method, status, headers)
            }
        }
    }

    /// The next bytes of the response body (may be empty before the end); `None` is the end as the
    /// connection reports it.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>> {
        self.begin_wait();
        let read = match self.session() {
            UpstreamSession::H1(session) => session.read_body_bytes().await,
            UpstreamSession::H2(session) => session.read_response_body().await,
        };
        if read.is_ok() {
            self.record_data();
        }
        match self.record_error(read) {
            Err(error) if has_long_trailers(&error) => Ok(None),
            read => read,
        }
    }

    /// The end of the body is already known to have arrived; call after a successful read.
    pub(crate) fn has_ended(&mut self) -> bool {
        match self.session() {
            UpstreamSession::H1(session) => session.is_body_done(),
            UpstreamSession::H2(session) => session.check_response_end_or_error().unwrap_or(false),
        }
    }

    /// Returns the connection to the pool: only after a proven end. One that must not be reused
    /// (the origin says so, or sent more than it promised) is closed instead.
    pub(crate) fn release(mut self, idle: Duration) {
        match self.session.take() {
            Some(UpstreamSession::H1(mut session)) => {
                session.respect_keepalive();
                if session.will_keepalive() && !self.unusable {
                    let transport = self.pool.connector().transport();
                    let hash = self.peer.reuse_hash();
                    transport.release_stream(session.into_inner(), hash, Some(idle));
                }
            }
            Some(UpstreamSession::H2(session)) => self.end_stream(session, idle),
            None => {}
        }
    }

    /// Ends a stream and keeps its connection for the others. pingora keeps a connection forever if
    /// its streams are only dropped, so every stream ends here.
    fn end_stream(&self, session: Box<H2Session>, idle: Duration) {
        if self.unusable {
            session.conn.mark_shutdown();
        }
        // pingora spawns a task that watches the idle connection, which needs a runtime.
        if tokio::runtime::Handle::try_current().is_ok() {
            let connector = self.pool.connector();
            connector.release_http_session(*session, &self.peer, Some(idle));
        }
    }

    /// After an error an unshared connection is not reused; a shared one is not if the error is the
    /// connection's.
    fn record_error<T>(&mut self, step: Result<T>) -> Result<T> {
        step.inspect_err(|error| {
            if self.activity.is_none() || is_of_connection(error) {
                self.unusable = true;
            }
        })
    }

    fn begin_wait(&mut self) {
        if let Some(activity) = &mut self.activity {
            activity.begin_wait();
        }
    }

    fn record_data(&self) {
        if let Some(activity) = &self.activity {
            activity.record_data();
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "only `release` and `drop` take it, and both end the connection's use"
    )]
    fn session(&mut self) -> &mut UpstreamSession {
        self.session
            .as_mut()
            .expect("a connection in use has a session")
    }
}

/// The last chunk has arrived, followed by more trailers than are read (64 KiB). Trailers are
/// dropped anyway, so the body is complete. The connection is not reused.
fn has_long_trailers(error: &pingora_error::Error) -> bool {
    let of_trailers = error.etype().as_str() == "InvalidTrailerEnd";
    let is_limit =
        |context: &pingora_error::ImmutStr| context.as_str() == "Trailer size over limit";
    of_trailers && error.context.as_ref().is_some_and(is_limit)
}

impl Drop for UpstreamConnection {
    fn drop(&mut self) {
        if let Some(UpstreamSession::H2(session)) = self.session.take() {
            self.end_stream(session, IDLE_AFTER_BREAK);
        }
    }
}
