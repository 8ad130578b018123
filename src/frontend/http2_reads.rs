//! Checks the bytes read from an HTTP/2 connection for floods and incomplete frames.

use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::connection_state::ConnectionState;
use super::flood::FrameBudget;
use super::frames::{FrameKind, FrameParser};

/// The state of the bytes read from an HTTP/2 connection.
pub(super) struct Http2Reads {
    /// Read during protocol detection, and not yet passed on.
    held: Vec<u8>,
    parser: FrameParser,
    budget: FrameBudget,
    /// The highest stream of a request.
    last_stream: u32,
    /// The type of the last frame.
    last: FrameKind,
    /// The frame type that exhausted the budget.
    flood: Option<FrameKind>,
    /// The incomplete frame last reported to the connection state.
    unfinished: Option<u32>,
}

impl Http2Reads {
    /// `held`: bytes read during protocol detection.
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

    /// Passes on held bytes; `false` if there are none.
    pub(super) fn give_held(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..count]);
        self.held.drain(..count);
        count > 0
    }

    /// Checks the frames in these bytes. `false`: they are a flood.
    pub(super) fn admit(&mut self, received: &[u8], connection: &ConnectionState) -> bool {
        let Http2Reads {
            parser,
            budget,
            last_stream,
            last,
            flood,
            ..
        } = self;
        parser.feed(received, |frame| {
            *last = frame.kind;
            if frame.kind == FrameKind::Headers {
                *last_stream = frame.stream.max(*last_stream);
            }
            let spent = budget.spend(frame, || connection.work(Instant::now()));
            *flood = spent.err();
            flood.is_none()
        });
        let unfinished = self.parser.unfinished();
        if unfinished != self.unfinished {
            self.unfinished = unfinished;
            connection.set_incomplete_frame_since(unfinished.map(|_| Instant::now()));
        }
        self.flood.is_none()
    }

    /// The flood, if there was one.
    pub(super) fn flood(&self) -> Option<Flood> {
        let last_stream = self.last_stream;
        self.flood.map(|kind| Flood { kind, last_stream })
    }

    /// The type of the last frame.
    pub(super) fn last(&self) -> FrameKind {
        self.last
    }
}

/// The cause of closing an HTTP/2 connection with too many control frames.
pub(super) struct Flood {
    /// The frame type with the highest cost.
    pub(super) kind: FrameKind,
    /// The highest stream of a request.
    pub(super) last_stream: u32,
}
