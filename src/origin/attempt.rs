//! How is one endpoint asked once? Line, request, head; again on a fresh line if a reused one had been
//! closed meanwhile. Every step has its deadline.

use std::future::{Future, poll_fn};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::fetch::Desk;
use super::head::Head;
use super::line::Line;
use super::request::{Payload, Request};
use super::site::{Entry, Site};
use super::step::Tried;
use super::{Failure, RequestBody};

/// An answer whose head has arrived.
pub(super) struct Answer {
    pub(super) line: Line,
    pub(super) head: Head,
    pub(super) entry: Entry,
}

/// Why there is none.
pub(super) struct Trouble {
    pub(super) failure: Failure,
    /// The endpoint may have seen the request.
    pub(super) sent: bool,
    /// It was sent a second time already, on a fresh connection.
    pub(super) resent: bool,
}

impl Trouble {
    pub(super) fn tried(&self) -> Tried {
        if self.sent {
            let quick = self.failure == Failure::Reset && !self.resent;
            Tried::Failed { quick }
        } else {
            Tried::Unreached
        }
    }
}

/// How far an attempt came.
#[derive(Default)]
struct Course {
    /// When the endpoint was sent it, the last time.
    sent: Option<Instant>,
    resent: bool,
}

impl Desk {
    /// Asks one endpoint. `body` is taken out once there is a line to send it on. The first limit is for a
    /// connection, the second for everything.
    pub(super) async fn attempt(
        &self,
        mut entry: Entry,
        request: &Request,
        body: &mut Option<RequestBody>,
        (connect_until, until): (Instant, Instant),
    ) -> Result<Answer, Trouble> {
        let mut course = Course::default();
        let asking = self.ask_site(entry.site(), request, body, connect_until, &mut course);
        let asked = timeout_at(until, asking).await;
        let asked = asked.unwrap_or(Err(Failure::Timeout));
        // With a body the time would be the asker's as much as the endpoint's.
        if let Some(sent) = course.sent.filter(|_| request.payload.is_empty()) {
            let end = asked.as_ref().map(drop).map_err(|&failure| failure);
            entry.site().timed(sent.elapsed(), end, !request.blocks());
        }
        match asked {
            Ok((line, head)) => {
                entry.answered(head.status);
                Ok(Answer { line, head, entry })
            }
            Err(failure) => {
                // A viewer's body may have broken off, and a held-back playlist is late by intent.
                let ours = request.payload.is_empty();
                if ours && !(failure == Failure::Timeout && request.blocks()) {
                    entry.failed(failure);
                } else {
                    entry.broke_off(failure);
                }
                Err(Trouble {
                    failure,
                    sent: course.sent.is_some(),
                    resent: course.resent,
                })
            }
        }
    }

    async fn ask_site(
        &self,
        to: &Site,
        request: &Request,
        body: &mut Option<RequestBody>,
        connect_until: Instant,
        course: &mut Course,
    ) -> Result<(Line, Head), Failure> {
        // What cannot be sent again takes no chance with a connection that may be closing.
        let line = self.line(to, !request.repeatable(), connect_until).await?;
        let reused = line.reused();
        course.sent = Some(Instant::now());
        let first = match self.converse(line, request, body.take()).await {
            // An idle connection is closed without warning: that says nothing about the origin.
            // A head that broke off half-way counts as none: nothing of it was used.
            Err(Failure::Reset) if reused => {
                course.resent = true;
                to.ledger.resent();
                let until = Instant::now() + self.deadlines.connect;
                let line = self.line(to, true, until).await?;
                course.sent = Some(Instant::now());
                self.converse(line, request, None).await
            }
            other => other,
        };
        Ok(self.reconsider(to, request, first?).await)
    }

    /// Where the origin refuses a secret that has just changed, it may not have learnt of that yet: the
    /// request is made once more with the one before, and that answer taken unless it is a refusal too.
    async fn reconsider(&self, to: &Site, request: &Request, first: (Line, Head)) -> (Line, Head) {
        if !first.1.refuses() || !request.repeatable() || !request.method.is_safe() {
            return first;
        }
        let Some(other) = request.seal.other() else {
            return first;
        };
        let request = request.sealed(other);
        to.ledger.resent();
        let until = Instant::now() + self.deadlines.connect;
        let again = async {
            let line = self.line(to, false, until).await?;
            self.converse(line, &request, None).await
        };
        match again.await {
            Ok(second) if !second.1.refuses() => {
                if !second.1.status.is_server_error() {
                    request.seal.prefer();
                }
                second
            }
            _ => first,
        }
    }

    async fn line(&self, to: &Site, fresh: bool, until: Instant) -> Result<Line, Failure> {
        let line = self.dial.line(to.place, fresh, until).await?;
        to.ledger.connected(line.reused());
        Ok(line)
    }

    /// Sends a request on a line and reads the answer's head. A line that fails is used no more.
    pub(super) async fn converse(
        &self,
        mut line: Line,
        request: &Request,
        body: Option<RequestBody>,
    ) -> Result<(Line, Head), Failure> {
        match self.exchange(&mut line, request, body).await {
            Ok(head) => Ok((line, head)),
            Err(failure) => {
                line.condemn();
                Err(failure)
            }
        }
    }

    async fn exchange(
        &self,
        line: &mut Line,
        request: &Request,
        body: Option<RequestBody>,
    ) -> Result<Head, Failure> {
        let patience = request.patience(&self.deadlines);
        within(patience, line.send(request, &self.additions)).await?;
        if let Some(body) = body.filter(|_| !request.payload.is_empty()) {
            self.send_body(line, request.payload, body).await?;
        }
        within(patience, line.read_head(&request.method)).await
    }

    /// Passes a body on. An origin that stops reading it may still have answered (413, say): then
    /// the line is good for that answer and for nothing else.
    async fn send_body(
        &self,
        line: &mut Line,
        payload: Payload,
        mut body: RequestBody,
    ) -> Result<(), Failure> {
        let patience = self.deadlines.between_bytes;
        let mut sent = 0;
        while let Some(frame) = within(patience, async {
            let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            frame.transpose().map_err(|_| Failure::Reset)
        })
        .await?
        {
            // Trailers end here; and an empty piece would be written as the last chunk.
            let Some(piece) = frame.into_data().ok().filter(|piece| !piece.is_empty()) else {
                continue;
            };
            sent += piece.len() as u64;
            let Ok(written) = timeout(patience, line.send_piece(piece)).await else {
                return Err(Failure::Timeout);
            };
            if written.is_err() {
                line.condemn();
                return Ok(());
            }
        }
        if matches!(payload, Payload::Bytes(promised) if promised != sent) {
            return Err(Failure::Reset);
        }
        match timeout(patience, line.end_body()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => {
                line.condemn();
                Ok(())
            }
            Err(_) => Err(Failure::Timeout),
        }
    }
}

async fn within<T>(
    patience: Duration,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(patience, step)
        .await
        .unwrap_or(Err(Failure::Timeout))
}
