//! The services that pingora runs: a thread per worker for viewers, and one for the admin server.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;

use super::liveness::LivenessResponder;
use crate::admin::{self, AdminAddress, AdminConnections, AdminHandlers, AdminSocket};
use crate::frontend::{Frontend, RequestRecorder};
use crate::proxy::ActiveShield;

/// The frontend and the shield that answers its requests.
#[derive(Clone)]
pub(super) struct FrontendService {
    pub(super) frontend: Arc<Frontend>,
    pub(super) shield: Arc<ActiveShield>,
}

impl FrontendService {
    /// Serves viewers as one of the workers, until the frontend is drained.
    pub(super) async fn serve(self, worker: usize) {
        let telemetry = self.shield.load().telemetry().clone();
        let recorder: RequestRecorder = Arc::new(move |record| telemetry.record(record));
        self.frontend.serve(worker, self.shield, recorder).await;
    }
}

/// One thread that serves viewers on every listener.
pub(super) struct WorkerThread {
    name: String,
    number: usize,
    service: FrontendService,
    responder: Option<LivenessResponder>,
}

impl WorkerThread {
    pub(super) fn new(
        number: usize,
        service: FrontendService,
        responder: LivenessResponder,
    ) -> WorkerThread {
        WorkerThread {
            name: format!("seawall worker {number}"),
            number,
            service,
            responder: Some(responder),
        }
    }
}

#[async_trait]
impl Service for WorkerThread {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        if let Some(responder) = self.responder.take() {
            // Not among the tasks that end with the listeners: a worker that drains is alive.
            tokio::spawn(responder.run());
        }
        self.service.clone().serve(self.number).await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// The admin server's thread.
pub(super) struct AdminService {
    socket: Option<AdminSocket>,
    address: AdminAddress,
    operators: AdminConnections,
    pub(super) handlers: Arc<AdminHandlers>,
}

impl AdminService {
    pub(super) fn new(
        (socket, address): (AdminSocket, AdminAddress),
        handlers: AdminHandlers,
        operators: AdminConnections,
    ) -> AdminService {
        AdminService {
            socket: Some(socket),
            address,
            operators,
            handlers: Arc::new(handlers),
        }
    }

    pub(super) fn address(&self) -> &AdminAddress {
        &self.address
    }

    pub(super) fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.address {
            AdminAddress::Tcp(address) => Some(*address),
            AdminAddress::Unix(_) => None,
        }
    }

    /// Serves operators until the process ends.
    pub(super) async fn run(mut self) {
        self.serve().await;
    }

    async fn serve(&mut self) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        if let Err(error) = admin::serve(socket, self.handlers.clone(), &self.operators).await {
            tracing::error!(%error, "cannot serve operators: {error}");
        }
    }
}

#[async_trait]
impl Service for AdminService {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        self.serve().await;
    }

    fn name(&self) -> &'static str {
        "seawall admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
