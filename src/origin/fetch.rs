//! How is an origin asked? Permit, line, request, head; once more on a fresh line if a reused one
//! had been closed meanwhile. Every step has its deadline.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::dial::Dial;
use super::head::Head;
use super::inflow::{Course, Inflow};
use super::limit::{Gate, Permit};
use super::line::Line;
use super::request::{Additions, Payload, Request};
use super::stats::{Entry, Ledger};
use super::{Deadlines, Errand, Failure, Reply, RequestBody};

/// What asking takes.
pub(super) struct Desk {
    pub(super) gate: Gate,
    pub(super) dial: Arc<Dial>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) additions: Additions,
    pub(super) deadlines: Deadlines,
}

/// An answer whose head has arrived.
struct Answer {
    permit: Permit,
    line: Line,
    head: Head,
}

impl Desk {
    pub(super) async fn fetch(&self, errand: Errand) -> Result<Reply, Failure> {
        let asked = Instant::now();
        let until = asked + self.deadlines.total;
        let entry = Entry::open(&self.ledger);
        let answer = timeout_at(until, self.ask(errand)).await;
        let Answer { permit, line, head } = match answer.unwrap_or(Err(Failure::Timeout)) {
            Ok(answer) => answer,
            Err(failure) => {
                entry.failed(failure);
                return Err(failure);
            }
        };
        let idle = head.idle();
        let Head {
            status,
            headers,
            framing,
        } = head;
        let body = Inflow::new(Course {
            line,
            permit,
            entry,
            status,
            framing,
            idle,
            patience: self.deadlines.between_bytes,
            until,
            received: 0,
        });
        Ok(Reply {
            status,
            headers,
            framing,
            body,
            waited: asked.elapsed(),
        })
    }

    async fn ask(&self, errand: Errand) -> Result<Answer, Failure> {
        let Errand { body, .. } = errand;
        let payload = Payload::of(&errand.method, body.as_ref());
        let request = Request {
            method: errand.method,
            path_and_query: errand.path_and_query,
            host: errand.host,
            headers: errand.headers,
            payload,
        };
        let permit = self.gate.enter(self.deadlines.queue).await?;
        // What cannot be sent again takes no chance with a connection that may be closing.
        let line = self.line(!request.repeatable()).await?;
        let reused = line.reused();
        let (line, head) = match self.converse(line, &request, body).await {
            // An idle connection is closed without warning: that says nothing about the origin.
            // A head that broke off half-way counts as none: nothing of it was used.
            Err(Failure::Reset) if reused => {
                self.ledger.retried();
                let line = self.line(true).await?;
                self.converse(line, &request, None).await?
            }
            other => other?,
        };
        Ok(Answer { permit, line, head })
    }

    async fn line(&self, fresh: bool) -> Result<Line, Failure> {
        let line = self.dial.line(fresh).await?;
        self.ledger.connected(line.reused());
        Ok(line)
    }

    /// Sends a request on a line and reads the answer's head. A line that fails is used no more.
    async fn converse(
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
        let patience = self.deadlines.first_byte;
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
