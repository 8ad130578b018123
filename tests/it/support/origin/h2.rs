//! Sends scripted replies over HTTP/2: a close or a reset becomes `RST_STREAM`.

use ::h2::server::{self, SendResponse};
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::book::Connection;
use super::reply::{Framing, Head, Reply, Step};
use super::request::Request;
use crate::support::wire::Fields;

/// Answers streams until the connection ends.
pub(super) async fn serve(stream: TcpStream, connection: Connection) {
    let Ok(mut streams) = server::handshake(stream).await else {
        return;
    };
    let connection = std::sync::Arc::new(connection);
    let mut answers = JoinSet::new();
    while let Some(Ok((request, respond))) = streams.accept().await {
        let connection = connection.clone();
        answers.spawn(async move {
            // A cancelled stream ends here; the scenario observes it at the shield.
            let _ = answer(&connection, request, respond).await;
        });
    }
}

async fn answer(
    connection: &Connection,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), ::h2::Error> {
    let asked = Request {
        method: request.method().to_string(),
        target: request
            .uri()
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        fields: Fields::from(request.headers()),
        body: Bytes::new(),
        connection: connection.number,
    };
    let (reply, _under_way) = connection.answer(&asked);
    match &reply.head {
        Head::AtOnce => {}
        Head::Held(gate) => gate.wait_open().await,
        Head::Never => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
    }
    let bodiless = !reply.has_body(&asked.method);
    let body = respond.send_response(head(&reply), bodiless)?;
    if bodiless {
        Ok(())
    } else {
        send(body, reply).await
    }
}

async fn send(mut body: SendStream<Bytes>, reply: Reply) -> Result<(), ::h2::Error> {
    for step in reply.steps {
        match step {
            Step::Send(bytes) | Step::Raw(bytes) => body.send_data(bytes, false)?,
            Step::Hold(gate) => gate.wait_open().await,
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Stall => std::future::pending().await,
            Step::Close | Step::Reset => {
                body.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
    body.send_data(Bytes::new(), true)
}

fn head(reply: &Reply) -> http::Response<()> {
    let mut head = http::Response::builder().status(reply.status);
    for (name, value) in &reply.fields {
        head = head.header(name.to_ascii_lowercase(), value);
    }
    if let Framing::Length(Some(length)) = reply.framing {
        head = head.header("content-length", length);
    }
    head.body(()).expect("a scripted head is well-formed")
}
