//! What has been read of an HTTP/2 connection? Its frames, and whether they are a flood.

use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::connection_state::ConnectionState;
use super::flood::FrameBudget;
use super::frames::{FrameKind, FrameParser};

/// What was read of an HTTP/2 connection.
pub(super) struct Http2Reads {
    /// Read while finding out the protocol, and still to be handed on.
    held: Vec<u8>,
    parser: FrameParser,
    budget: FrameBudget,
    /// The highest stream that a request came on.
    last_stream: u32,
    /// The type of the last frame.
    last: FrameKind,
    /// The type of frame that used up the budget.
    flood: Option<FrameKind>,
    /// The frame that the connection was told to be waiting for the rest of.
    unfinished: Option<u32>,
}

impl Http2Reads {
    /// `held` was read while finding out the protocol.
    pub(super) fn new(held: Vec<u8>) -> Box<Http2Reads> {
        Box::new(Http2Reads {
            held,
            parser: FrameParser::new(),
            budget: FrameBudget::new(Instant::now()),
            last_stream: 0,
            last: FrameKind::Unknown,
            flood: None,
            unfinished: None,
        })
    }

    /// Hands on what was read before; `false` where there is no more of it.
    pub(super) fn give_held(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..count]);
        self.held.drain(..count);
        count > 0
    }

    /// Looks at the frames in what came. `false`: they are a flood.
    pub(super) fn admit(&mut self, came: &[u8], gauge: &ConnectionState) -> bool {
        let Http2Reads {
            parser,
            budget,
            last_stream,
            last,
            flood,
            ..
        } = self;
        parser.feed(came, |frame| {
            *last = frame.kind;
            if frame.kind == FrameKind::Headers {
                *last_stream = frame.stream.max(*last_stream);
            }
            let spent = budget.spend(frame, || gauge.work(Instant::now()));
            *flood = spent.err();
            flood.is_none()
        });
        let unfinished = self.parser.unfinished();
        if unfinished != self.unfinished {
            self.unfinished = unfinished;
            gauge.set_unfinished(unfinished.map(|_| Instant::now()));
        }
        self.flood.is_none()
    }

    /// How the connection came to be a flood, if it did.
    pub(super) fn flood(&self) -> Option<Flood> {
        let last_stream = self.last_stream;
        self.flood.map(|kind| Flood { kind, last_stream })
    }

    /// The type of the last frame.
    pub(super) fn last(&self) -> FrameKind {
        self.last
    }
}

/// How an HTTP/2 connection came to be a flood.
pub(super) struct Flood {
    /// The type of frame that it was mostly made of.
    pub(super) kind: FrameKind,
    /// The highest stream that a request came on.
    pub(super) last_stream: u32,
}
