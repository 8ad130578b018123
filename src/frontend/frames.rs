//! Parses HTTP/2 frame headers (RFC 9113 §4.1) in the bytes that hyper reads and writes: which
//! frames a viewer sends, and which streams are reset as malformed.
//!
//! hyper and h2 answer control frames themselves and do not report them. Only the nine bytes before
//! each payload are parsed, so the cost depends on the number of frames, not of bytes.

/// Bytes of the client's preface (RFC 9113 §3.4), which is not a frame.
const PREFACE_BYTES: u8 = 24;

/// Bytes of a frame header.
const HEAD_BYTES: usize = 9;

const FLAG_ACK: u8 = 0x1;
const FLAG_END_HEADERS: u8 = 0x4;

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Any other type; receivers ignore it.
    Unknown,
}

impl FrameKind {
    /// All types: those of the RFC by their number, then `Unknown`.
    pub(super) const ALL: [FrameKind; 11] = [
        FrameKind::Data,
        FrameKind::Headers,
        FrameKind::Priority,
        FrameKind::RstStream,
        FrameKind::Settings,
        FrameKind::PushPromise,
        FrameKind::Ping,
        FrameKind::GoAway,
        FrameKind::WindowUpdate,
        FrameKind::Continuation,
        FrameKind::Unknown,
    ];

    fn of(number: u8) -> FrameKind {
        let known = FrameKind::ALL.get(usize::from(number)).copied();
        known.unwrap_or(FrameKind::Unknown)
    }

    /// The name in metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            FrameKind::Data => "data",
            FrameKind::Headers => "headers",
            FrameKind::Priority => "priority",
            FrameKind::RstStream => "rst_stream",
            FrameKind::Settings => "settings",
            FrameKind::PushPromise => "push_promise",
            FrameKind::Ping => "ping",
            FrameKind::GoAway => "goaway",
            FrameKind::WindowUpdate => "window_update",
            FrameKind::Continuation => "continuation",
            FrameKind::Unknown => "unknown",
        }
    }
}

/// A parsed frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: FrameKind,
    /// Payload bytes.
    pub(super) length: u32,
    pub(super) is_ack: bool,
    pub(super) stream: u32,
    ends_headers: bool,
}

impl FrameHead {
    /// A frame on stream 0 that acknowledges nothing.
    #[cfg(test)]
    pub(super) fn new(kind: FrameKind, length: u32) -> FrameHead {
        FrameHead {
            kind,
            length,
            is_ack: false,
            stream: 0,
            ends_headers: true,
        }
    }

    fn of(bytes: [u8; HEAD_BYTES]) -> FrameHead {
        let [l2, l1, l0, number, flags, s3, s2, s1, s0] = bytes;
        let kind = FrameKind::of(number);
        FrameHead {
            kind,
            length: u32::from_be_bytes([0, l2, l1, l0]),
            is_ack: flags & FLAG_ACK != 0 && matches!(kind, FrameKind::Ping | FrameKind::Settings),
            // The first bit is reserved.
            stream: u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]),
            ends_headers: flags & FLAG_END_HEADERS != 0,
        }
    }
}

/// Error code (RFC 9113 §7): the peer sent something malformed.
const PROTOCOL_ERROR: u32 = 0x1;

/// Error code (RFC 9113 §7): the peer causes excessive load.
pub(super) const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A GOAWAY frame: streams above `last_stream` are not answered.
pub(super) fn goaway(last_stream: u32, code: u32) -> [u8; HEAD_BYTES + 8] {
    let mut frame = [0; HEAD_BYTES + 8];
    frame[2] = 8;
    frame[3] = FrameKind::GoAway as u8;
    frame[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(&last_stream.to_be_bytes());
    frame[HEAD_BYTES + 4..].copy_from_slice(&code.to_be_bytes());
    frame
}

/// The position within the frames of one direction.
pub(super) struct FrameParser {
    preface_remaining: u8,
    head: [u8; HEAD_BYTES],
    head_read: usize,
    payload_remaining: u32,
    payload_kind: FrameKind,
    /// A field block (HEADERS and its CONTINUATION frames) is incomplete.
    in_field_block: bool,
    /// Number of frames begun; a field block counts as one.
    frames_begun: u32,
    /// Error code of a `RST_STREAM` frame, as far as it has been read.
    error_code: u32,
    /// Number of streams reset as malformed.
    malformed: u32,
}

impl FrameParser {
    /// A parser for a new client connection, beginning with the preface.
    pub(super) fn new() -> FrameParser {
        FrameParser {
            preface_remaining: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            head_read: 0,
            payload_remaining: 0,
            payload_kind: FrameKind::Unknown,
            in_field_block: false,
            frames_begun: 0,
            error_code: 0,
            malformed: 0,
        }
    }

    /// A parser for the frames of a server, without a preface.
    pub(super) fn of_server() -> FrameParser {
        FrameParser {
            preface_remaining: 0,
            ..FrameParser::new()
        }
    }

    /// Number of streams reset as malformed since the last call.
    pub(super) fn take_malformed(&mut self) -> u32 {
        std::mem::take(&mut self.malformed)
    }

    /// Reads part of the error code of a `RST_STREAM` frame.
    fn read_error_code(&mut self, payload: &[u8]) {
        for byte in payload {
            self.error_code = (self.error_code << 8) | u32::from(*byte);
        }
        let is_malformed = self.payload_remaining == 0 && self.error_code == PROTOCOL_ERROR;
        self.malformed += u32::from(is_malformed);
    }

    /// The number of the frame that is incomplete, if one is: the preface, a control frame, or all
    /// frames of a field block. DATA frames do not count: bodies have their own minimum rate.
    pub(super) fn incomplete_frame(&self) -> Option<u32> {
        let in_preface = (1..PREFACE_BYTES).contains(&self.preface_remaining);
        let in_payload = self.payload_remaining > 0 && self.payload_kind != FrameKind::Data;
        let is_incomplete = in_preface || self.head_read > 0 || in_payload || self.in_field_block;
        is_incomplete.then_some(self.frames_begun)
    }

    /// Parses the next bytes and calls `each` with every complete frame header, until it returns
    /// `false`.
    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(FrameHead) -> bool) {
        let mut bytes = self.skip_preface(bytes);
        while !bytes.is_empty() {
            if self.payload_remaining > 0 {
                bytes = self.read_payload(bytes);
                continue;
            }
            let (head, rest) = self.read_head(bytes);
            if let Some(head) = head
                && !each(head)
            {
                return;
            }
            bytes = rest;
        }
    }

    /// Returns the bytes after the preface.
    fn skip_preface<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let count = bytes.len().min(usize::from(self.preface_remaining));
        // At most 24.
        #[expect(clippy::cast_possible_truncation)]
        let read = count as u8;
        self.preface_remaining -= read;
        &bytes[count..]
    }

    /// Reads the payload of the current frame, as far as it has arrived. Returns the bytes after
    /// it.
    fn read_payload<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let arrived = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let read = arrived.min(self.payload_remaining);
        self.payload_remaining -= read;
        let (payload, rest) = bytes.split_at(read as usize);
        if self.payload_kind == FrameKind::RstStream {
            self.read_error_code(payload);
        }
        rest
    }

    /// Reads a frame header, as far as it has arrived. Returns it if it is complete, and the bytes
    /// after it.
    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> (Option<FrameHead>, &'a [u8]) {
        if self.head_read == 0 && !self.in_field_block {
            self.frames_begun = self.frames_begun.wrapping_add(1);
        }
        let read = bytes.len().min(HEAD_BYTES - self.head_read);
        let (arrived, rest) = bytes.split_at(read);
        self.head[self.head_read..self.head_read + read].copy_from_slice(arrived);
        self.head_read += read;
        if self.head_read < HEAD_BYTES {
            return (None, rest);
        }
        self.head_read = 0;
        let head = FrameHead::of(self.head);
        self.payload_remaining = head.length;
        self.payload_kind = head.kind;
        if matches!(head.kind, FrameKind::Headers | FrameKind::Continuation) {
            self.in_field_block = !head.ends_headers;
        }
        (Some(head), rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn frame(number: u8, flags: u8, stream: u32, length: u16) -> Vec<u8> {
        let [l1, l0] = length.to_be_bytes();
        let [s3, s2, s1, s0] = stream.to_be_bytes();
        let mut frame = vec![0, l1, l0, number, flags, s3, s2, s1, s0];
        frame.resize(frame.len() + usize::from(length), 0x5a);
        frame
    }

    fn read(pieces: &[&[u8]]) -> Vec<FrameHead> {
        let (mut parser, mut heads) = (FrameParser::new(), Vec::new());
        parser.feed(&[b'x'; PREFACE_BYTES as usize], |_| true);
        for piece in pieces {
            parser.feed(piece, |head| {
                heads.push(head);
                true
            });
        }
        heads
    }

    #[test]
    fn parses_frame_type_length_stream_and_ack_flag() {
        let heads = read(&[&frame(6, 1, 0, 8), &frame(1, 4, 0x8000_0007, 300)]);
        let parsed: Vec<_> = heads
            .iter()
            .map(|head| (head.kind, head.length, head.is_ack, head.stream))
            .collect();
        assert_eq!(
            parsed,
            [
                (FrameKind::Ping, 8, true, 0),
                (FrameKind::Headers, 300, false, 7)
            ]
        );
    }

    #[test]
    fn writes_last_stream_and_error_into_goaway() {
        let frame = goaway(0x0102, ENHANCE_YOUR_CALM);
        assert_eq!(frame, [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 11]);
    }

    #[test]
    fn maps_each_type_to_its_number_and_label() {
        for (number, kind) in FrameKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert_eq!(FrameKind::of(u8::try_from(number).unwrap()), kind);
        }
        assert_eq!(FrameKind::of(0x10), FrameKind::Unknown);
        assert_eq!(FrameKind::of(255), FrameKind::Unknown);
        let words = FrameKind::ALL.map(FrameKind::as_str);
        let distinct: std::collections::HashSet<_> = words.iter().collect();
        assert_eq!(distinct.len(), words.len());
    }

    #[test]
    fn reports_incomplete_until_the_end_of_frame_and_field_block() {
        let mut parser = FrameParser::new();
        let mut feed = |bytes: &[u8]| {
            parser.feed(bytes, |_| true);
            parser.incomplete_frame()
        };
        assert_eq!(feed(b"PRI"), Some(0));
        assert_eq!(feed(&[b'x'; PREFACE_BYTES as usize - 3]), None);
        let ping = frame(6, 0, 0, 8);
        assert_eq!(feed(&ping[..1]), Some(1));
        assert_eq!(feed(&[&ping[1..], &ping[..9]].concat()), Some(2));
        assert_eq!(feed(&ping[9..]), None);
        let (head, more, last) = (frame(1, 0, 1, 3), frame(9, 0, 1, 3), frame(9, 4, 1, 3));
        assert_eq!(feed(&head), Some(3));
        assert_eq!(feed(&more), Some(3));
        assert_eq!(feed(&last[..10]), Some(3));
        assert_eq!(feed(&last[10..]), None);
        let data = frame(0, 0, 1, 9);
        assert_eq!(feed(&data[..5]), Some(4));
        assert_eq!(feed(&data[5..10]), None);
        assert_eq!(feed(&data[10..]), None);
    }

    #[test]
    fn counts_resets_of_malformed_streams_at_any_split() {
        let reset = |stream: u32, code: u32| {
            let mut reset = frame(3, 0, stream, 4);
            reset[HEAD_BYTES..].copy_from_slice(&code.to_be_bytes());
            reset
        };
        let sent = [
            reset(1, 1),
            reset(3, 8),
            reset(5, 257),
            frame(0, 0, 7, 4),
            reset(7, 1),
        ]
        .concat();
        for size in 1..sent.len() {
            let mut parser = FrameParser::of_server();
            for piece in sent.chunks(size) {
                parser.feed(piece, |_| true);
            }
            assert_eq!((parser.take_malformed(), parser.take_malformed()), (2, 0));
        }
    }

    proptest! {
        /// The result does not depend on how the bytes are split into reads.
        #[test]
        fn parses_the_same_at_any_split(
            frames in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u32>(), 0..40_u16), 0..20),
            cuts in prop::collection::vec(1..30_usize, 1..60),
        ) {
            let bytes: Vec<u8> = frames
                .iter()
                .flat_map(|&(number, flags, stream, length)| frame(number, flags, stream, length))
                .collect();
            let whole = read(&[&bytes]);
            prop_assert_eq!(whole.len(), frames.len());
            let (mut pieces, mut rest) = (Vec::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(read(&pieces), whole);
        }
    }
}
