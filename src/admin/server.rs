//! The HTTP/1.1 server for operators, with its own deadlines and limits.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::header::ALLOW;
use http::{HeaderValue, Request, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::declaration::{self, AdminRequest, RoutingError};
use super::endpoints::ADMIN_ENDPOINTS;
use super::query::AdminQuery;
use super::response::{self, AdminResponse};
use super::{AdminHandlers, guard};

/// Connections at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: u32 = 64;

/// For the request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// For a whole connection. A connection serves one request: scrapers open a new one each time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A larger request head is rejected.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Pause after a failed accept.
const BACKOFF: Duration = Duration::from_millis(250);

/// The connections of operators.
#[derive(Clone)]
pub struct AdminConnections(Arc<Semaphore>);

impl Default for AdminConnections {
    fn default() -> Self {
        AdminConnections(Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)))
    }
}

impl AdminConnections {
    /// Waits until all open connections have their answers. New ones wait meanwhile.
    pub async fn wait_until_idle(&self) {
        let _all = self.0.acquire_many(CONNECTIONS_MAX).await;
    }
}

/// Serves operators until it is dropped; that also drops their connections.
pub async fn serve(
    socket: TcpListener,
    handlers: Arc<AdminHandlers>,
    connections_open: &AdminConnections,
) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let permits = connections_open.0.clone();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Ok(());
        };
        let Ok((stream, peer)) = socket.accept().await else {
            sleep(BACKOFF).await;
            continue;
        };
        let handlers = handlers.clone();
        connections.spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let handlers = handlers.clone();
                async move { Ok::<_, Infallible>(handle(&handlers, &request, peer).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_header_size(HEAD_BYTES_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
        });
    }
}

/// Answers one request: the guard, the route, the parameters, then the handler.
async fn handle<B>(
    handlers: &AdminHandlers,
    request: &Request<B>,
    peer: SocketAddr,
) -> AdminResponse {
    if let Some(rejection) = guard::rejection(request, &handlers.hosts) {
        return response::error(rejection.status, rejection.text);
    }
    let uri = request.uri();
    let endpoint = match declaration::route(ADMIN_ENDPOINTS, request.method(), uri.path()) {
        Ok(endpoint) => endpoint,
        Err(error) => return no_endpoint(&error),
    };
    let query = match AdminQuery::parse(endpoint.parameters, uri.query()) {
        Ok(query) => query,
        Err(error) => return response::error(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let request = AdminRequest {
        handlers,
        query,
        actor: peer.to_string(),
        endpoints: ADMIN_ENDPOINTS,
    };
    endpoint.answer(&request).await
}

fn no_endpoint(error: &RoutingError) -> AdminResponse {
    let RoutingError::OtherMethods(allowed) = error else {
        return response::error(StatusCode::NOT_FOUND, &error.to_string());
    };
    let mut response = response::error(StatusCode::METHOD_NOT_ALLOWED, &error.to_string());
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

#[cfg(test)]
mod tests;
