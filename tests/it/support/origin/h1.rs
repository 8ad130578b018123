//! Sends scripted replies over HTTP/1.1, faults included.

use std::time::Duration;

use socket2::SockRef;
use tokio::io;
use tokio::net::TcpStream;

use super::book::Connection;
use super::reply::{Framing, Head, Reply, Step};
use super::request::Request;
use crate::support::gate::Gate;
use crate::support::wire::{Wire, head_lines};

/// The state of the connection after a response.
#[derive(PartialEq, Eq)]
enum After {
    KeepAlive,
    Close,
    Abandoned,
}

/// Answers requests until either side ends the connection.
pub(super) async fn serve(stream: TcpStream, connection: &Connection) {
    let mut wire = Wire::over(stream);
    while let Ok(Some(request)) = Request::read(&mut wire, connection.number).await {
        let (reply, under_way) = connection.answer(&request);
        let after = answer(&mut wire, &request, reply).await;
        drop(under_way);
        match after.unwrap_or(After::Abandoned) {
            After::KeepAlive => {}
            After::Close => return,
            After::Abandoned => return connection.record_abandoned(),
        }
    }
}

async fn answer(wire: &mut Wire<TcpStream>, asked: &Request, reply: Reply) -> io::Result<After> {
    match &reply.head {
        Head::Held(gate) => {
            if !wait_gate(wire, Some(gate)).await {
                return Ok(After::Abandoned);
            }
            wire.write(head(&reply).as_bytes()).await?;
        }
        Head::AtOnce => wire.write(head(&reply).as_bytes()).await?,
        Head::Never => {}
    }
    if !reply.has_body(&asked.method) {
        return Ok(After::KeepAlive);
    }
    for step in &reply.steps {
        match step {
            Step::Send(bytes) if reply.framing == Framing::Chunked => {
                wire.write(format!("{:x}\r\n", bytes.len()).as_bytes())
                    .await?;
                wire.write(bytes).await?;
                wire.write(b"\r\n").await?;
            }
            Step::Send(bytes) | Step::Raw(bytes) => wire.write(bytes).await?,
            Step::Hold(gate) if wait_gate(wire, Some(gate)).await => {}
            Step::Pause(time) if !has_left_within(wire, *time).await => {}
            Step::Stall if wait_gate(wire, None).await => {}
            Step::Hold(_) | Step::Pause(_) | Step::Stall => return Ok(After::Abandoned),
            Step::Close => return Ok(After::Close),
            Step::Reset => {
                SockRef::from(wire.stream()).set_linger(Some(Duration::ZERO))?;
                return Ok(After::Close);
            }
        }
    }
    match reply.framing {
        Framing::Length(_) => Ok(After::KeepAlive),
        Framing::UntilClose => Ok(After::Close),
        Framing::Chunked => {
            wire.write(b"0\r\n\r\n").await?;
            Ok(After::KeepAlive)
        }
    }
}

/// Waits for a gate (or for ever); false when the reader leaves first.
async fn wait_gate(wire: &mut Wire<TcpStream>, gate: Option<&Gate>) -> bool {
    let open = async {
        match gate {
            Some(gate) => gate.wait_open().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(open);
    loop {
        tokio::select! {
            biased;
            () = &mut open => return true,
            read = wire.fill() => if !matches!(read, Ok(1..)) { return false },
        }
    }
}

/// Whether the reader leaves within this time.
async fn has_left_within(wire: &mut Wire<TcpStream>, time: Duration) -> bool {
    tokio::time::timeout(time, wait_gate(wire, None))
        .await
        .is_ok()
}

fn head(reply: &Reply) -> String {
    let framing = match reply.framing {
        Framing::Length(_) if reply.status == 304 || reply.status == 204 => String::new(),
        Framing::Length(promised) => {
            let length = promised.unwrap_or_else(|| reply.body_bytes());
            format!("Content-Length: {length}\r\n")
        }
        Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Framing::UntilClose => "Connection: close\r\n".to_owned(),
    };
    let fields = head_lines(&reply.fields);
    format!(
        "HTTP/1.1 {} Scripted\r\n{fields}{framing}\r\n",
        reply.status
    )
}
