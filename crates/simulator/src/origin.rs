//! The origin's HTTP/1.1 server, with its own limits and deadlines.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::broadcast::{Broadcast, BroadcastPlan};
use super::clock::Clock;
use super::control::Control;
use super::faults::{Faults, OriginScene};
use super::handler::OriginHandler;
use super::request_log::RequestLog;
use super::resource::Packaging;

/// Connections at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 4096;

/// For a request head, and idle time before the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// After this time a connection is closed behind its response, and after `GRACE` in any case.
const CONNECTION_MAX: Duration = Duration::from_mins(10);
const GRACE: Duration = Duration::from_secs(30);

/// A larger request head is rejected.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Pause after a failed accept.
const BACKOFF: Duration = Duration::from_millis(250);

/// A live origin with its own socket; stops when dropped.
#[derive(Debug)]
pub struct SimulatedOrigin {
    address: SocketAddr,
    handler: Arc<OriginHandler>,
    scene: OriginScene,
    task: JoinHandle<()>,
}

impl Drop for SimulatedOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SimulatedOrigin {
    /// Starts on a free port of the loopback address. Call it inside a tokio runtime.
    pub fn start(plan: BroadcastPlan, clock: Clock) -> io::Result<SimulatedOrigin> {
        SimulatedOrigin::start_at((Ipv4Addr::LOCALHOST, 0).into(), plan, clock)
    }

    /// Starts at an address.
    pub fn start_at(
        address: SocketAddr,
        plan: BroadcastPlan,
        clock: Clock,
    ) -> io::Result<SimulatedOrigin> {
        let scene = OriginScene {
            broadcast: Arc::new(Broadcast::new(plan)),
            faults: Faults::default(),
            lag: 0,
        };
        SimulatedOrigin::of(address, scene, clock)
    }

    /// A second origin of the same stream, this many segments behind. It has its own faults and
    /// request log.
    pub fn twin(&self, lag_segments: u64) -> io::Result<SimulatedOrigin> {
        let scene = OriginScene {
            lag: lag_segments,
            ..self.scene.clone()
        };
        let address = (self.address.ip(), 0).into();
        SimulatedOrigin::of(address, scene, self.handler.clock.clone())
    }

    fn of(address: SocketAddr, scene: OriginScene, clock: Clock) -> io::Result<SimulatedOrigin> {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let control = Control::new(scene.clone(), clock.clone());
        let handler = Arc::new(OriginHandler::new(clock, control));
        let task = tokio::spawn(accept_connections(socket, handler.clone()));
        Ok(SimulatedOrigin {
            address,
            handler,
            scene,
            task,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL at which players of a packaging start.
    pub fn entry(&self, packaging: Packaging) -> String {
        format!("{}{}", self.url(), packaging.entry())
    }

    /// The stream as planned: the expected bytes. Restarts are not included.
    pub fn broadcast(&self) -> &Broadcast {
        &self.scene.broadcast
    }

    /// Controls its faults.
    pub fn control(&self) -> &Control {
        &self.handler.control
    }

    /// The log of its requests.
    pub fn request_log(&self) -> &RequestLog {
        &self.handler.request_log
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.handler.clock
    }
}

async fn accept_connections(socket: tokio::net::TcpListener, handler: Arc<OriginHandler>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = socket.accept().await else {
            sleep(BACKOFF).await;
            continue;
        };
        let handler = handler.clone();
        connections.spawn(async move {
            let _permit = permit;
            serve_connection(stream, handler).await;
        });
    }
}

async fn serve_connection(stream: TcpStream, handler: Arc<OriginHandler>) {
    // Chunks must be sent when they are made.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, std::convert::Infallible>(handler.handle(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    if timeout(CONNECTION_MAX, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(GRACE, connection).await;
    }
}
