//! Reads the header of the PROXY protocol from a connection of a listener that requires one, before
//! TLS and before HTTP.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::connection_state::ConnectionState;
use super::connection_table::ConnectionGuard;
use super::server_context::ServerContext;
use super::stats::ConnectionEvent;
use seawall_policy::proxy_header::{ProxyHeader, read_proxy_header};

/// Reads the header, and counts the connection as one of the viewer whom it names. The event says
/// why the connection must be closed.
pub(super) async fn accept_header<A>(
    context: &ServerContext<A>,
    transport: &mut (impl AsyncRead + Unpin),
    connection: &ConnectionState,
    guard: &mut ConnectionGuard,
) -> Result<(), ConnectionEvent> {
    let header = timeout(context.limits.head_timeout, read_header(transport));
    let viewer = match header.await {
        Ok(Ok(viewer)) => viewer,
        Ok(Err(_)) => return Err(ConnectionEvent::RefusedProxy),
        Err(_) => return Err(ConnectionEvent::HeadTimeout),
    };
    let Some(viewer) = viewer else {
        return Ok(());
    };
    connection.set_viewer(viewer);
    // One behind another: a proxy is no client.
    if context.trusted_proxies.has(Some(viewer)) || guard.count_client(viewer) {
        Ok(())
    } else {
        Err(ConnectionEvent::RefusedClient)
    }
}

/// Reads the header and not a byte more.
async fn read_header(transport: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut received = Vec::new();
    loop {
        let header = read_proxy_header(&received);
        match header.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? {
            ProxyHeader::Complete(viewer) => return Ok(viewer),
            ProxyHeader::Incomplete(more) => {
                let start = received.len();
                received.resize(start + more, 0);
                transport.read_exact(&mut received[start..]).await?;
            }
        }
    }
}
