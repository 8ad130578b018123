//! A chunk of a response body that counts its bytes as hyper sends them.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::stream_send_rate::StreamSendRate;

/// A chunk of a body. Over HTTP/2 it reports the bytes that h2 puts into frames.
pub(super) struct CountedBytes {
    bytes: Bytes,
    stream: Option<Arc<StreamSendRate>>,
}

impl CountedBytes {
    /// A chunk sent over HTTP/1, where the socket as a whole is observed.
    pub(super) fn on_http1(bytes: Bytes) -> CountedBytes {
        CountedBytes {
            bytes,
            stream: None,
        }
    }

    /// A chunk sent over an HTTP/2 stream.
    pub(super) fn on_http2(bytes: Bytes, stream: Arc<StreamSendRate>) -> CountedBytes {
        stream.record_passed_to_h2(bytes.len());
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
            stream.record_sent(count);
        }
    }
}

/// h2 never sends the rest of a dropped chunk: the stream was reset or the connection is closed.
impl Drop for CountedBytes {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            stream.record_dropped(self.bytes.len());
        }
    }
}
