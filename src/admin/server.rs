//! The HTTP/1.1 server for operators, with its own deadlines and limits.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::header::{ALLOW, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::audit::WriteAttempt;
use super::declaration::{self, AdminRequest, AdminRole, RoutingError};
use super::endpoints::ADMIN_ENDPOINTS;
use super::guard::{self, AdminPeer, AdminRejection};
use super::page;
use super::query::AdminQuery;
use super::response::{self, AdminResponse};
use super::{AdminHandlers, AdminTokens};

/// Connections at once. A further one takes the place of one that has sent no request, else it
/// waits.
const CONNECTIONS_MAX: u32 = 64;

/// For the request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// For a whole connection. A connection serves one request: scrapers open a new one each time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A larger request head is rejected.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Pause after a failed accept.
const BACKOFF: Duration = Duration::from_millis(250);

/// The socket is closed within this time.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A changed token is in use after at most this time, as in `seawall_upstream::sign`.
const TOKENS_INTERVAL: Duration = Duration::from_secs(1);

/// The connections of operators.
#[derive(Clone)]
pub struct AdminConnections {
    permits: Arc<Semaphore>,
    /// No more are accepted.
    is_closed: watch::Sender<bool>,
    /// The listening socket is open.
    is_listening: watch::Sender<bool>,
}

impl Default for AdminConnections {
    fn default() -> Self {
        AdminConnections {
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)),
            is_closed: watch::Sender::new(false),
            is_listening: watch::Sender::new(false),
        }
    }
}

impl AdminConnections {
    /// Waits until all open connections have their answers. New ones wait meanwhile.
    pub async fn wait_until_idle(&self) {
        let _all = self.permits.acquire_many(CONNECTIONS_MAX).await;
    }

    /// Accepts no more of them, because another process does, and returns when the socket is
    /// closed. Open connections get their answers.
    pub async fn stop_accepting(&self) {
        self.is_closed.send_replace(true);
        let mut is_listening = self.is_listening.subscribe();
        let closed = is_listening.wait_for(|is_listening| !is_listening);
        if timeout(CLOSE_MAX, closed).await.is_err() {
            tracing::warn!("the admin server does not close its socket: it has no place left");
        }
    }
}

/// The listening socket of the admin server.
pub enum AdminSocket {
    /// At a TCP address.
    Tcp(TcpListener),
    /// At the path of a Unix socket.
    Unix(UnixListener),
}

/// The same inside the runtime.
enum AcceptingSocket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// An accepted connection.
enum OperatorStream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl AcceptingSocket {
    fn from_std(socket: AdminSocket) -> io::Result<AcceptingSocket> {
        Ok(match socket {
            AdminSocket::Tcp(socket) => {
                AcceptingSocket::Tcp(tokio::net::TcpListener::from_std(socket)?)
            }
            AdminSocket::Unix(socket) => {
                AcceptingSocket::Unix(tokio::net::UnixListener::from_std(socket)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<(OperatorStream, AdminPeer)> {
        Ok(match self {
            AcceptingSocket::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                (OperatorStream::Tcp(stream), AdminPeer::Tcp(address))
            }
            AcceptingSocket::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                let user = stream.peer_cred().ok().map(|cred| cred.uid());
                (OperatorStream::Unix(stream), AdminPeer::Unix(user))
            }
        })
    }
}

/// An open connection, as long as its task runs.
struct OperatorConnection {
    task: AbortHandle,
    has_request: Arc<AtomicBool>,
}

/// Closes the connection that has waited longest for its request, if any waits: connections that
/// send nothing lock no operator out.
fn close_longest_idle(open: &mut Vec<OperatorConnection>) {
    let is_idle = |connection: &OperatorConnection| !connection.has_request.load(Ordering::Relaxed);
    if let Some(longest) = open.iter().position(is_idle) {
        open.remove(longest).task.abort();
    }
}

/// Serves operators until it is dropped; that also drops their connections. Returns when another
/// process accepts connections, and all of this one are closed.
pub async fn serve(
    socket: AdminSocket,
    handlers: Arc<AdminHandlers>,
    connections_open: &AdminConnections,
) -> io::Result<()> {
    let socket = AcceptingSocket::from_std(socket)?;
    let permits = connections_open.permits.clone();
    let mut is_closed = connections_open.is_closed.subscribe();
    connections_open.is_listening.send_replace(true);
    let mut tasks = JoinSet::new();
    tasks.spawn(reread_tokens(handlers.tokens.clone()));
    // In the order in which they were accepted; at most as many as there are permits.
    let mut open: Vec<OperatorConnection> = Vec::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = is_closed.wait_for(|is_closed| *is_closed) => break,
        };
        let Ok((stream, peer)) = accepted else {
            sleep(BACKOFF).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        open.retain(|connection| !connection.task.is_finished());
        if permits.available_permits() == 0 {
            close_longest_idle(&mut open);
        }
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Ok(());
        };
        let has_request = Arc::new(AtomicBool::new(false));
        let connection = ServedConnection {
            handlers: handlers.clone(),
            peer,
            has_request: has_request.clone(),
        };
        let task = tasks.spawn(async move {
            let _permit = permit;
            match stream {
                OperatorStream::Tcp(stream) => connection.serve(stream).await,
                OperatorStream::Unix(stream) => connection.serve(stream).await,
            }
        });
        open.push(OperatorConnection { task, has_request });
    }
    drop(socket);
    connections_open.is_listening.send_replace(false);
    connections_open.wait_until_idle().await;
    Ok(())
}

/// Reads the files of the tokens periodically.
async fn reread_tokens(tokens: Arc<ArcSwap<AdminTokens>>) {
    loop {
        sleep(TOKENS_INTERVAL).await;
        // A reload may bring tokens.
        let tokens = tokens.load_full();
        if tokens.is_empty() {
            continue;
        }
        // On a blocking thread: the files may be on a file system that hangs.
        if let Err(error) = spawn_blocking(move || tokens.reread()).await {
            tracing::error!(%error, "the check of the admin tokens failed");
        }
    }
}

/// Serves one connection, with a deadline.
struct ServedConnection {
    handlers: Arc<AdminHandlers>,
    peer: AdminPeer,
    /// Set when the head of the request is complete.
    has_request: Arc<AtomicBool>,
}

impl ServedConnection {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let connection = Arc::new(self);
        let service = service_fn(move |request| {
            let connection = connection.clone();
            async move {
                connection.has_request.store(true, Ordering::Relaxed);
                let response = handle(&connection.handlers, connection.peer, &request).await;
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_header_size(HEAD_BYTES_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        let _ = timeout(CONNECTION_TIMEOUT, connection).await;
    }
}

/// Answers one request: the host and the site, the route, the role, the parameters, then the
/// handler.
async fn handle<B>(
    handlers: &AdminHandlers,
    peer: AdminPeer,
    request: &Request<B>,
) -> AdminResponse {
    let (uri, headers) = (request.uri(), request.headers());
    // Everyone may know it: it says nothing of this server.
    if let Some(response) = page::response(request.method(), uri.path()) {
        return response;
    }
    let routed = declaration::route(ADMIN_ENDPOINTS, request.method(), uri.path());
    let is_write = matches!(routed, Ok(endpoint) if endpoint.role == Some(AdminRole::Write));
    let write = is_write.then(|| write_attempt(request, peer));
    let reject = |rejection: AdminRejection| {
        if let Some(write) = &write {
            handlers.audit.refuse(write, rejection.status);
        }
        rejected(rejection)
    };
    if let Some(rejection) = guard::rejection(request, &handlers.hosts.load()) {
        return reject(rejection);
    }
    let endpoint = match routed {
        Ok(endpoint) => endpoint,
        Err(error) => return no_endpoint(&error),
    };
    let actor = match guard::authorize(headers, peer, &handlers.tokens.load(), endpoint.role) {
        Ok(actor) => actor,
        Err(rejection) => return reject(rejection),
    };
    let query = match AdminQuery::parse(endpoint.parameters, uri.query()) {
        Ok(query) => query,
        Err(error) => return response::error(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let request = AdminRequest {
        handlers,
        query,
        actor: format!("{actor} at {peer}"),
        endpoints: ADMIN_ENDPOINTS,
    };
    let Some(mut write) = write else {
        return endpoint.answer(&request).await;
    };
    write.actor = actor.to_string();
    match handlers.audit.begin(write) {
        Ok(pending) => {
            let response = endpoint.answer(&request).await;
            pending.finish(response.status());
            response
        }
        Err(error) => response::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// What the audit log says of a request for a write by somebody who is not known yet.
fn write_attempt<B>(request: &Request<B>, peer: AdminPeer) -> WriteAttempt {
    WriteAttempt {
        actor: "unknown".to_owned(),
        address: peer.to_string(),
        action: format!("{} {}", request.method(), request.uri().path()),
        parameters: request.uri().query().unwrap_or_default().to_owned(),
        arrived: SystemTime::now(),
        begun: Instant::now(),
    }
}

fn rejected(rejection: AdminRejection) -> AdminResponse {
    let mut response = response::error(rejection.status, rejection.text);
    if rejection.status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"seawall admin\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
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
