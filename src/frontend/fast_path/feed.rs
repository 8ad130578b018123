//! What hyper gets in place of bytes that are not strictly right.

use std::io;
use std::task::Poll;

use tokio::io::ReadBuf;

use crate::frontend::framing_check::StrictReader;

/// No head can go on like this, wherever it is.
const UNREADABLE: &[u8] = b"\0\r\n\r\n";

/// Follows what hyper reads, and keeps back the first byte that is wrong and all behind it.
pub(super) struct StrictFeed {
    reader: StrictReader,
    substitute: Option<ReplacementInput>,
}

enum ReplacementInput {
    /// The rest of [`UNREADABLE`], for a head: hyper refuses it as it refuses any other.
    Head(&'static [u8]),
    /// An error, for a body.
    Body,
}

impl StrictFeed {
    pub(super) fn new() -> StrictFeed {
        StrictFeed {
            reader: StrictReader::new(),
            substitute: None,
        }
    }

    /// Whether a wrong byte has come.
    pub(super) fn is_at_fault(&self) -> bool {
        self.substitute.is_some()
    }

    /// Keeps back what is wrong in the bytes that were read from `start` on.
    pub(super) fn keep_back(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        let Err(fault) = self.reader.follow(&buf.filled()[start..]) else {
            return;
        };
        buf.set_filled(start + fault.at);
        self.substitute = Some(if fault.in_body {
            ReplacementInput::Body
        } else {
            ReplacementInput::Head(UNREADABLE)
        });
    }

    /// Gives what takes the place of the bytes that were kept back.
    pub(super) fn poll_substitute(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.substitute {
            Some(ReplacementInput::Head(rest)) if !rest.is_empty() => {
                let (now, later) = rest.split_at(rest.len().min(buf.remaining()));
                buf.put_slice(now);
                *rest = later;
                Poll::Ready(Ok(()))
            }
            Some(ReplacementInput::Body) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            // hyper refuses the head, and needs no more of it.
            Some(ReplacementInput::Head(_)) | None => Poll::Pending,
        }
    }
}
