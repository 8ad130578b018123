//! A piece of an answer's body on its way through hyper, which sees how much of it leaves.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::pace::SendRate;

/// A piece of a body. Over HTTP/2 it tells its stream what h2 has put into frames of it.
pub(super) struct CountedBytes {
    bytes: Bytes,
    stream: Option<Arc<SendRate>>,
}

impl CountedBytes {
    /// A piece that leaves on HTTP/1, whose socket is watched as a whole.
    pub(super) fn on_http1(bytes: Bytes) -> CountedBytes {
        CountedBytes {
            bytes,
            stream: None,
        }
    }

    /// A piece that leaves on a stream of HTTP/2.
    pub(super) fn on_http2(bytes: Bytes, stream: Arc<SendRate>) -> CountedBytes {
        stream.hand(bytes.len());
        CountedBytes {
            bytes,
            stream: Some(stream),
        }
    }

    pub(super) fn into_bytes(mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }
}

impl Buf for CountedBytes {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(stream) = &self.stream {
            stream.send(count);
        }
    }
}

/// What h2 has not sent by now is never sent: the stream was reset, or its connection is gone.
impl Drop for CountedBytes {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            stream.lose(self.bytes.len());
        }
    }
}
