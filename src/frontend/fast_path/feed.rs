//! Checks the bytes that hyper reads. Keeps back what is not strictly valid, and gives hyper bytes
//! that it rejects instead.

use std::io;
use std::task::Poll;

use tokio::io::ReadBuf;

use crate::frontend::framing_check::StrictReader;

/// hyper rejects these bytes at any position of a head.
const INVALID_HEAD: &[u8] = b"\0\r\n\r\n";

/// Checks what hyper reads, and keeps back the first invalid byte and all bytes after it.
pub(super) struct StrictFeed {
    reader: StrictReader,
    replacement: Option<ReplacementInput>,
}

/// What hyper reads instead of invalid bytes.
enum ReplacementInput {
    /// In a head: the rest of [`INVALID_HEAD`].
    Head(&'static [u8]),
    /// In a body: an I/O error.
    Body,
}

impl StrictFeed {
    pub(super) fn new() -> StrictFeed {
        StrictFeed {
            reader: StrictReader::new(),
            replacement: None,
        }
    }

    /// Whether an invalid byte has arrived.
    pub(super) fn has_fault(&self) -> bool {
        self.replacement.is_some()
    }

    /// Keeps back the invalid bytes among those read from `start` on.
    pub(super) fn keep_back(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        let Err(fault) = self.reader.check(&buf.filled()[start..]) else {
            return;
        };
        buf.set_filled(start + fault.at);
        self.replacement = Some(if fault.in_body {
            ReplacementInput::Body
        } else {
            ReplacementInput::Head(INVALID_HEAD)
        });
    }

    /// Returns the replacement for the bytes kept back.
    pub(super) fn poll_replacement(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.replacement {
            Some(ReplacementInput::Head(rest)) if !rest.is_empty() => {
                let (now, later) = rest.split_at(rest.len().min(buf.remaining()));
                buf.put_slice(now);
                *rest = later;
                Poll::Ready(Ok(()))
            }
            Some(ReplacementInput::Body) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            // hyper has rejected the head and needs no more bytes.
            Some(ReplacementInput::Head(_)) | None => Poll::Pending,
        }
    }
}
