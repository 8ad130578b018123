//! Checks the bytes read from an HTTP/2 connection for floods and incomplete frames.

use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::connection_state::ConnectionState;
use super::flood::FrameBudget;
use super::frames::{FrameKind, FrameParser};

/// The state of the bytes read from an HTTP/2 connection.
pub(super) struct Http2Reads {
    /// Read during protocol detection, and not yet passed on.
    buffered: Vec<u8>,
    parser: FrameParser,
    budget: FrameBudget,
    /// The highest stream number of a request.
    last_stream: u32,
    /// The type of the last frame.
    last_kind: FrameKind,
    /// The frame type that exhausted the budget.
    flood: Option<FrameKind>,
    /// The number of the incomplete frame that the connection state knows of.
    incomplete_frame: Option<u32>,
}

impl Http2Reads {
    /// `buffered`: bytes read during protocol detection.
    pub(super) fn new(buffered: Vec<u8>) -> Box<Http2Reads> {
        Box::new(Http2Reads {
            buffered,
            parser: FrameParser::new(),
            budget: FrameBudget::new(Instant::now()),
            last_stream: 0,
            last_kind: FrameKind::Unknown,
            flood: None,
            incomplete_frame: None,
        })
    }

    /// Passes on buffered bytes; `false` if there are none.
    pub(super) fn pass_on_buffered(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.buffered.len().min(buf.remaining());
        buf.put_slice(&self.buffered[..count]);
        self.buffered.drain(..count);
        count > 0
    }

    /// Checks the frames in these bytes. `false`: they are a flood.
    pub(super) fn check(&mut self, received: &[u8], connection: &ConnectionState) -> bool {
        let Http2Reads {
            parser,
            budget,
            last_stream,
            last_kind,
            flood,
            ..
        } = self;
        parser.feed(received, |frame| {
            *last_kind = frame.kind;
            if frame.kind == FrameKind::Headers {
                *last_stream = frame.stream.max(*last_stream);
            }
            let spent = budget.spend(frame, || connection.work_done(Instant::now()));
            *flood = spent.err();
            flood.is_none()
        });
        let incomplete_frame = self.parser.incomplete_frame();
        if incomplete_frame != self.incomplete_frame {
            self.incomplete_frame = incomplete_frame;
            connection.set_incomplete_frame_since(incomplete_frame.map(|_| Instant::now()));
        }
        self.flood.is_none()
    }

    /// The flood, if there was one.
    pub(super) fn flood(&self) -> Option<Flood> {
        let last_stream = self.last_stream;
        self.flood.map(|kind| Flood { kind, last_stream })
    }

    /// The type of the last frame.
    pub(super) fn last_kind(&self) -> FrameKind {
        self.last_kind
    }
}

/// The cause of closing an HTTP/2 connection with too many control frames.
pub(super) struct Flood {
    /// The frame type with the highest cost.
    pub(super) kind: FrameKind,
    /// The highest stream number of a request.
    pub(super) last_stream: u32,
}
