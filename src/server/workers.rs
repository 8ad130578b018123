//! Who does the work? Workers that serve viewers, each on a thread of its own, and an office for
//! operators.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::task::JoinSet;

use super::probe::Probe;
use crate::admin::{self, Desk};
use crate::edge::{Door, Edge, Teller};
use crate::shield::Shield;

/// The viewers' side and what answers them.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) edge: Arc<Edge>,
    pub(super) shield: Arc<Shield>,
}

impl Front {
    /// Opens doors on the current runtime; the tasks end when the edge is drained.
    pub(super) fn open(&self, doors: Vec<Door>, tasks: &mut JoinSet<()>) {
        let telemetry = self.shield.telemetry().clone();
        let teller: Teller = Arc::new(move |tale| telemetry.tell(tale));
        for door in doors {
            let (shield, teller, edge) = (self.shield.clone(), teller.clone(), self.edge.clone());
            tasks.spawn(async move {
                let address = door.address().clone();
                if let Err(error) = edge.serve(door, shield, teller).await {
                    tracing::error!(%address, %error, "cannot serve {address}: {error}");
                }
            });
        }
    }
}

/// One thread that serves viewers at every door.
pub(super) struct Worker {
    name: String,
    front: Front,
    doors: Vec<Door>,
    probe: Option<Probe>,
}

impl Worker {
    pub(super) fn new(number: usize, front: Front, doors: Vec<Door>, probe: Probe) -> Worker {
        Worker {
            name: format!("seawall worker {number}"),
            front,
            doors,
            probe: Some(probe),
        }
    }
}

#[async_trait]
impl Service for Worker {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        if let Some(probe) = self.probe.take() {
            // Not among those that end with the doors: a worker that drains is alive.
            tokio::spawn(probe.answer());
        }
        let mut tasks = JoinSet::new();
        self.front.open(std::mem::take(&mut self.doors), &mut tasks);
        tasks.join_all().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Where operators are received.
pub(super) struct Office {
    socket: Option<TcpListener>,
    desk: Arc<Desk>,
}

impl Office {
    pub(super) fn new(socket: TcpListener, desk: Desk) -> Office {
        Office {
            socket: Some(socket),
            desk: Arc::new(desk),
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.socket
            .as_ref()
            .and_then(|socket| socket.local_addr().ok())
    }

    /// Receives operators until the process ends.
    pub(super) async fn work(mut self) {
        self.receive().await;
    }

    async fn receive(&mut self) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        if let Err(error) = admin::serve(socket, self.desk.clone()).await {
            tracing::error!(%error, "cannot serve operators: {error}");
        }
    }
}

#[async_trait]
impl Service for Office {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        self.receive().await;
    }

    fn name(&self) -> &'static str {
        "seawall admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
