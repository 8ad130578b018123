//! A piece of an answer's body on its way through hyper, which sees how much of it leaves.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::gauge::Gauge;

/// A piece of a body. Over HTTP/2 it tells its connection what h2 has put into frames of it.
pub(super) struct Slice {
    bytes: Bytes,
    connection: Option<Arc<Gauge>>,
}

impl Slice {
    /// A piece that leaves on HTTP/1, whose socket is watched as a whole.
    pub(super) fn on_http1(bytes: Bytes) -> Slice {
        Slice {
            bytes,
            connection: None,
        }
    }

    /// A piece that leaves on a stream of HTTP/2.
    pub(super) fn on_http2(bytes: Bytes, connection: Arc<Gauge>) -> Slice {
        Slice {
            bytes,
            connection: Some(connection),
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl Buf for Slice {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(connection) = &self.connection {
            connection.sent_body(count);
        }
    }
}
