//! How does a body arrive? Piece by piece, counted against what was promised. It ends whole or in a
//! [`Failure`]: a connection's word alone is not believed.

use std::mem;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use super::entry::Entry;
use super::limit::Permit;
use super::line::Line;
use super::{Failure, Framing};

/// A body on its way from an origin. Dropping it before its end closes the connection.
pub struct Inflow {
    state: State,
}

/// Where a body is. At its end nothing is held: the line is released or closed, the permit free,
/// the entry written.
enum State {
    UnderWay(Box<Course>),
    Whole,
    Failed(Failure),
}

/// What a body under way holds.
pub(super) struct Course {
    pub(super) line: Line,
    pub(super) permit: Permit,
    pub(super) entry: Entry,
    pub(super) status: StatusCode,
    pub(super) framing: Framing,
    /// How long the connection may idle afterwards.
    pub(super) idle: Duration,
    /// Between two pieces.
    pub(super) patience: Duration,
    /// For the whole.
    pub(super) until: Instant,
    pub(super) received: u64,
    /// The time for the whole ends before the origin's silence would be too long.
    pub(super) ran_out: bool,
}

impl Inflow {
    /// Starts a body, which may have ended with the head.
    pub(super) fn new(course: Course) -> Inflow {
        let state = State::UnderWay(Box::new(course));
        let mut inflow = Inflow { state };
        inflow.settle(false);
        inflow
    }

    /// The next bytes; `None` is a proven end. After `None` or an error it is not called again.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        let piece = match &mut self.state {
            State::UnderWay(course) => course.read().await,
            State::Whole => return None,
            State::Failed(failure) => return Some(Err(*failure)),
        };
        match piece {
            Ok(piece) => {
                self.settle(piece.is_none());
                piece.map(Ok)
            }
            Err(failure) => {
                if let State::UnderWay(course) =
                    mem::replace(&mut self.state, State::Failed(failure))
                {
                    course.fail(failure);
                }
                Some(Err(failure))
            }
        }
    }

    /// Ends the course where its end is proven: as soon as that is known, so that the connection is
    /// free for others while the last bytes are still on their way to viewers.
    fn settle(&mut self, told: bool) {
        if let State::UnderWay(course) = &mut self.state
            && (told || course.proven())
            && let State::UnderWay(course) = mem::replace(&mut self.state, State::Whole)
        {
            course.finish();
        }
    }
}

impl Course {
    /// The next bytes, or `None` at the end if that is where the end was promised.
    async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        let silent_until = Instant::now() + self.patience;
        let until = self.until.min(silent_until);
        // The whole time may have been the reader's, who comes back late; a silence is the origin's.
        self.ran_out = self.until < silent_until;
        // A piece may be empty; a flood of them must not outlast the deadline.
        while Instant::now() < until {
            let Ok(piece) = timeout_at(until, self.line.read()).await else {
                if !self.ran_out {
                    self.line.stalled();
                }
                return Err(Failure::Truncated);
            };
            match piece {
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => {
                    self.received += piece.len() as u64;
                    self.entry.received(piece.len());
                    return match self.framing {
                        Framing::Length(length) if self.received > length => {
                            Err(Failure::Truncated)
                        }
                        _ => Ok(Some(piece)),
                    };
                }
                Ok(None) => {
                    return match self.framing {
                        Framing::Length(length) if self.received != length => {
                            Err(Failure::Truncated)
                        }
                        _ => Ok(None),
                    };
                }
                Err(_) => return Err(Failure::Truncated),
            }
        }
        Err(Failure::Truncated)
    }

    /// Both the count and the connection say already that nothing more will come.
    fn proven(&mut self) -> bool {
        let promised = match self.framing {
            Framing::Length(length) => length,
            Framing::Delimited | Framing::UntilClose => self.received,
        };
        self.received == promised && self.line.ended()
    }

    fn finish(self) {
        self.line.release(self.idle);
        self.entry.whole(self.status);
        drop(self.permit);
    }

    fn fail(self, failure: Failure) {
        drop(self.line);
        if self.ran_out {
            self.entry.broke_off(failure);
        } else {
            self.entry.failed(failure);
        }
        drop(self.permit);
    }
}
