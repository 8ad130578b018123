//! The HTTP/2 viewer: many streams on one connection, cleartext or over TLS.

use std::sync::Arc;

use ::h2::client::{self, SendRequest};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::ask::{Ask, get};
use super::response::{Arriving, Head, Response, Source};
use crate::support::patience::within;
use crate::support::wire::{Duplex, Fields};

/// The viewer's flow-control window, per stream and connection.
const WINDOW: u32 = 1 << 20;

/// One HTTP/2 connection to the shield.
pub struct H2Viewer {
    streams: SendRequest<Bytes>,
    scheme: &'static str,
    connection: Connection,
}

/// Drives the connection while the viewer or one of its responses exists.
pub(super) type Connection = Arc<JoinSet<()>>;

impl H2Viewer {
    /// Uses HTTP/2 by prior knowledge (or after ALPN) over a connected stream.
    pub async fn over(stream: impl Duplex + 'static, scheme: &'static str) -> H2Viewer {
        let mut builder = client::Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let hands = within("the HTTP/2 preface", builder.handshake(stream)).await;
        let (streams, connection) = hands.expect("the shield speaks HTTP/2");
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // The streams report how the connection ended.
            let _ = connection.await;
        });
        H2Viewer {
            streams,
            scheme,
            connection: Arc::new(driver),
        }
    }

    /// GET and the whole response.
    pub async fn get(&self, target: &str) -> Response {
        self.ask(get(target)).await
    }

    /// A request and its whole response.
    pub async fn ask(&self, ask: Ask) -> Response {
        self.begin(ask).await.finish().await
    }

    /// Sends a request only. Dropped, its stream is reset.
    pub async fn send(&self, ask: Ask) -> impl Sized + use<> {
        let ready = within("a free stream", self.streams.clone().ready()).await;
        let request = ask.to_request(self.scheme);
        let sent = ready
            .expect("an open connection")
            .send_request(request, true);
        sent.expect("a stream")
    }

    /// The head of a response; the scenario reads the body.
    pub async fn begin(&self, ask: Ask) -> Arriving {
        let ready = within("a free stream", self.streams.clone().ready()).await;
        let request = ask.to_request(self.scheme);
        let sent = ready
            .expect("an open connection")
            .send_request(request, ask.body.is_empty());
        let (answer, mut body) = sent.expect("a stream");
        if !ask.body.is_empty() {
            body.send_data(ask.body.clone().into(), true)
                .expect("an open stream");
        }
        let answer = within(format!("an answer to {ask}"), answer).await;
        let (parts, body) = answer
            .unwrap_or_else(|why| panic!("no answer to {ask}: {why}"))
            .into_parts();
        let head = Head {
            status: parts.status.as_u16(),
            fields: Fields::from(&parts.headers),
        };
        let source = Source::H2 {
            stream: body,
            _connection: self.connection.clone(),
        };
        Arriving::new(head, source)
    }
}
