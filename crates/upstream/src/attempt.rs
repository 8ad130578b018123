//! Makes one attempt at one endpoint: connect, send the request, read the head; once more on a new
//! connection if a reused one was closed. Every step has a deadline.

use tokio::time::{Instant, timeout, timeout_at};

use super::attempt_guard::AttemptGuard;
use super::connection::UpstreamConnection;
use super::endpoint::EndpointState;
use super::group::{OriginGroup, now};
use super::head::ResponseHead;
use super::next_step::AttemptVerdict;
use super::request::{AttemptRequest, PayloadSize};
use super::upload::UpstreamUpload;
use super::{Failure, drain};

/// A response whose head has arrived.
pub(super) struct AttemptResponse {
    pub(super) line: UpstreamConnection,
    pub(super) head: ResponseHead,
    pub(super) entry: AttemptGuard,
    /// The index of an endpoint that lacks this object, or is late with it.
    pub(super) outdone: Option<usize>,
}

/// Why an attempt brought no response head.
pub(super) struct AttemptError {
    pub(super) failure: Failure,
    /// The endpoint may have seen the request.
    pub(super) sent: bool,
    /// It was already sent again, on a new connection.
    pub(super) resent: bool,
}

impl AttemptError {
    pub(super) fn tried(&self) -> AttemptVerdict {
        if self.failure == Failure::Exhausted {
            AttemptVerdict::Unable
        } else if self.sent {
            let quick = self.failure == Failure::Reset && !self.resent;
            AttemptVerdict::Failed { quick }
        } else {
            AttemptVerdict::Unreached
        }
    }
}

/// Why a connection brought no head.
pub(super) struct BrokenConnection {
    pub(super) failure: Failure,
    /// The connection was lost or accepts no more requests: says nothing about the origin.
    lost: bool,
}

/// Progress of an attempt.
#[derive(Default)]
struct AttemptState {
    /// When the request was last sent.
    sent: Option<Instant>,
    resent: bool,
}

impl OriginGroup {
    /// Sends the request to one endpoint. `body` is taken once a connection exists. The first
    /// deadline is for the connection, the second for everything.
    pub(super) async fn attempt(
        &self,
        mut entry: AttemptGuard,
        request: &AttemptRequest,
        body: &mut Option<UpstreamUpload>,
        (connect_until, until): (Instant, Instant),
    ) -> Result<AttemptResponse, AttemptError> {
        let mut course = AttemptState::default();
        if let Some(body) = body {
            body.hold.adopt(entry.endpoint_permit());
        }
        let asking = self.ask_site(entry.site(), request, body, connect_until, &mut course);
        let asked = timeout_at(until, asking).await;
        let asked = asked.unwrap_or(Err(Failure::Timeout));
        // With a body, the time depends on the sender as much as on the endpoint.
        if let Some(sent) = course.sent.filter(|_| request.payload.is_empty()) {
            let end = asked.as_ref().map(drop).map_err(|&failure| failure);
            entry
                .site()
                .record_response_time(sent.elapsed(), end, !request.blocks());
        }
        match asked {
            Ok((line, head)) => {
                entry.answered(head.status);
                Ok(AttemptResponse {
                    line,
                    head,
                    entry,
                    outdone: None,
                })
            }
            Err(failure) => {
                if failure == Failure::Exhausted {
                    self.tell_of_shortage();
                }
                // Not the endpoint's fault: an upload that broke off, a blocking response that is
                // late by design, or a total deadline that the queue used up.
                let ours = request.payload.is_empty();
                let patience = request.patience(&self.deadlines);
                let cut_short = course.sent.is_some_and(|sent| sent.elapsed() < patience);
                let excused = request.blocks() || cut_short;
                if ours && !(failure == Failure::Timeout && excused) {
                    entry.failed(failure);
                } else {
                    entry.abort(failure);
                }
                Err(AttemptError {
                    failure,
                    sent: course.sent.is_some(),
                    resent: course.resent,
                })
            }
        }
    }

    fn tell_of_shortage(&self) {
        if let Some(left_out) = self.shortage_lines.lock().allows(now()) {
            tracing::warn!(
                left_out,
                "this host has no sockets left for origins: raise its limit of open files"
            );
        }
    }

    async fn ask_site(
        &self,
        to: &EndpointState,
        request: &AttemptRequest,
        body: &mut Option<UpstreamUpload>,
        connect_until: Instant,
        course: &mut AttemptState,
    ) -> Result<(UpstreamConnection, ResponseHead), Failure> {
        // A request that cannot be repeated is not risked on an idle connection that may be
        // closing.
        let line = self.line(to, !request.repeatable(), connect_until).await?;
        let reused = line.reused();
        course.sent = Some(Instant::now());
        let first = match self.send_on_connection(line, request, body.take()).await {
            // Origins close idle connections without warning: says nothing about the origin. A
            // partial head counts as none: nothing of it was used.
            Err(broken) if broken.lost && reused => {
                course.resent = true;
                to.counters.resent();
                let until = Instant::now() + self.deadlines.connect;
                let line = self.line(to, true, until).await?;
                course.sent = Some(Instant::now());
                self.send_on_connection(line, request, None).await
            }
            other => other,
        };
        let first = first.map_err(|broken| broken.failure)?;
        Ok(self.retry_with_other_secret(to, request, first).await)
    }

    /// If the origin refuses a secret that has just changed, it may not know the new value yet: the
    /// request is repeated with the other value, and that response used unless it is refused too.
    async fn retry_with_other_secret(
        &self,
        to: &EndpointState,
        request: &AttemptRequest,
        first: (UpstreamConnection, ResponseHead),
    ) -> (UpstreamConnection, ResponseHead) {
        if !first.1.refuses() || !request.repeatable() || !request.method.is_safe() {
            return first;
        }
        let Some(other) = request.auth.other() else {
            return first;
        };
        let request = request.sealed(other);
        to.counters.resent();
        let until = Instant::now() + self.deadlines.connect;
        let again = async {
            let line = self.line(to, false, until).await.ok()?;
            self.send_on_connection(line, &request, None).await.ok()
        };
        match again.await {
            Some(second) if !second.1.refuses() => {
                if !second.1.status.is_server_error() {
                    request.auth.prefer();
                }
                drain::leave(first.0, &first.1);
                second
            }
            Some((line, head)) => {
                drain::leave(line, &head);
                first
            }
            None => first,
        }
    }

    async fn line(
        &self,
        to: &EndpointState,
        fresh: bool,
        until: Instant,
    ) -> Result<UpstreamConnection, Failure> {
        let line = self.connector.acquire(to.place, fresh, until).await?;
        to.counters.connected(line.reused());
        Ok(line)
    }

    /// Sends a request on a connection and reads the response head.
    pub(super) async fn send_on_connection(
        &self,
        mut line: UpstreamConnection,
        request: &AttemptRequest,
        body: Option<UpstreamUpload>,
    ) -> Result<(UpstreamConnection, ResponseHead), BrokenConnection> {
        match self.exchange(&mut line, request, body).await {
            Ok(head) => Ok((line, head)),
            Err(failure) => Err(BrokenConnection {
                failure,
                lost: line.was_lost(failure),
            }),
        }
    }

    async fn exchange(
        &self,
        line: &mut UpstreamConnection,
        request: &AttemptRequest,
        body: Option<UpstreamUpload>,
    ) -> Result<ResponseHead, Failure> {
        let patience = request.patience(&self.deadlines);
        let Ok(sent) = timeout(patience, line.send(request, &self.additions)).await else {
            line.stalled();
            return Err(Failure::Timeout);
        };
        sent?;
        if let Some(body) = body.filter(|_| !request.payload.is_empty()) {
            self.send_body(line, request.payload, body).await?;
        }
        let Ok(head) = timeout(patience, line.read_head(&request.method)).await else {
            line.stalled();
            return Err(Failure::Timeout);
        };
        head
    }

    /// Forwards the body. An origin that stops reading it may still have answered (413, for
    /// example): then the connection can only be used for that response.
    async fn send_body(
        &self,
        line: &mut UpstreamConnection,
        payload: PayloadSize,
        mut body: UpstreamUpload,
    ) -> Result<(), Failure> {
        let patience = self.deadlines.between_bytes;
        let mut sent = 0;
        while let Some(piece) = body.next().await? {
            sent += piece.len() as u64;
            let Ok(written) = timeout(patience, line.send_piece(piece)).await else {
                line.stalled();
                return Err(Failure::Timeout);
            };
            if written.is_err() {
                return Ok(());
            }
        }
        if matches!(payload, PayloadSize::Bytes(promised) if promised != sent) {
            return Err(Failure::UploadBroken);
        }
        // On an error the origin may still have answered, as above.
        if timeout(patience, line.end_body()).await.is_err() {
            line.stalled();
            return Err(Failure::Timeout);
        }
        Ok(())
    }
}
