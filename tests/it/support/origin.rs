//! The scripted origin of a scenario, over plain TCP, with a record of its requests.
//!
//! It uses no HTTP library: bytes are sent exactly as written, so every fault is possible.

mod book;
mod h1;
mod h2;
mod reply;
mod request;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use book::Book;
pub use reply::{Reply, Script, computed, hang_up, manifest, reply, segment, status};
pub use request::Request;
use seawall_upstream::Protocol;

use super::patience::within;

/// Connections in the accept queue.
const BACKLOG: u32 = 1024;

/// A running origin. Its connections end when it is dropped.
pub struct Origin {
    address: SocketAddr,
    speaks: Speaks,
    book: Arc<Book>,
    door: Mutex<Door>,
}

#[derive(Clone, Copy)]
enum Speaks {
    H1,
    H2,
}

enum Door {
    /// Accepting; aborting the task ends every connection.
    Open(AbortHandle),
    /// The port is reserved without a listener: connections are refused.
    Closed(TcpSocket),
    /// Between these states.
    Moving,
}

impl Origin {
    /// An HTTP/1.1 origin on a free local port. Unknown paths get 404.
    pub async fn start() -> Origin {
        Origin::start_with(Speaks::H1).await
    }

    /// An HTTP/2 origin (prior knowledge) with the same scripts.
    pub async fn start_h2() -> Origin {
        Origin::start_with(Speaks::H2).await
    }

    async fn start_with(speaks: Speaks) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let book = Arc::new(Book::default());
        let door = Mutex::new(Door::Open(open(listener, speaks, &book)));
        Origin {
            address,
            speaks,
            book,
            door,
        }
    }

    /// Scripts a path (with its query, or for every query of the path).
    #[must_use]
    pub fn on(self, target: &str, script: impl Into<Script>) -> Origin {
        self.set_script(target, script);
        self
    }

    /// Replaces the script of a path while the scenario runs.
    pub fn set_script(&self, target: &str, script: impl Into<Script>) {
        self.book.set_script(target, script.into());
    }

    /// The protocol to speak to it.
    pub fn protocol(&self) -> Protocol {
        match self.speaks {
            Speaks::H1 => Protocol::H1,
            Speaks::H2 => Protocol::H2,
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of requests for a path (with its query, or for every query of the path).
    pub fn hits(&self, target: &str) -> usize {
        self.requests(target).len()
    }

    /// The requests for a path, oldest first.
    pub fn requests(&self, target: &str) -> Vec<Request> {
        self.book.requests(target)
    }

    /// The latest request for a path.
    pub fn latest(&self, target: &str) -> Request {
        let latest = self.requests(target).pop();
        latest.unwrap_or_else(|| panic!("the origin was never asked for {target}"))
    }

    /// Waits until a path has been requested this often.
    pub async fn wait_hits(&self, target: &str, count: usize) {
        let what = format!("request {count} for {target} at the origin");
        within(
            what,
            self.book.wait_until(|record| record.hits(target) >= count),
        )
        .await;
    }

    /// Waits until the shield has closed this many connections before their responses ended.
    pub async fn wait_abandoned(&self, count: usize) {
        let what = format!("{count} answers given up by the shield");
        within(
            what,
            self.book.wait_until(|record| record.abandoned >= count),
        )
        .await;
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.book.open()
    }

    /// The highest number of responses in progress at the same time.
    pub fn concurrent_max(&self) -> usize {
        self.book.concurrent_max()
    }

    /// Ends every connection and refuses new ones.
    pub async fn stop(&self) {
        let door = std::mem::replace(&mut *self.listening(), Door::Moving);
        let Door::Open(task) = door else {
            panic!("the origin is stopped already");
        };
        task.abort();
        within(
            "the origin to stop",
            self.book.wait_until(|record| record.open == 0),
        )
        .await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a fresh socket");
        within("the origin's port", async {
            while socket.bind(self.address).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        *self.listening() = Door::Closed(socket);
    }

    /// Listens again, on the same port.
    pub fn resume(&self) {
        let mut door = self.listening();
        let Door::Closed(socket) = std::mem::replace(&mut *door, Door::Moving) else {
            panic!("the origin is not stopped");
        };
        let listener = socket.listen(BACKLOG).expect("the port was kept");
        *door = Door::Open(open(listener, self.speaks, &self.book));
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, Door> {
        self.door.lock().expect("no scenario panics holding it")
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Ok(Door::Open(task)) = self.door.get_mut() {
            task.abort();
        }
    }
}

/// Accepts until aborted; the connections end with it.
fn open(listener: TcpListener, speaks: Speaks, book: &Arc<Book>) -> AbortHandle {
    let book = book.clone();
    let accepting = async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).ok();
            connections.spawn(serve(stream, speaks, book.connect()));
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::spawn(accepting).abort_handle()
}

async fn serve(stream: TcpStream, speaks: Speaks, connection: book::Connection) {
    match speaks {
        Speaks::H1 => h1::serve(stream, &connection).await,
        Speaks::H2 => h2::serve(stream, connection).await,
    }
}
