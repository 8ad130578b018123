//! Assembles the modules in order. Sockets come first: nothing starts if a socket cannot be bound.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::probe::{self, Probe, Prober};
use super::workers::{AdminService, FrontendService};
use crate::admin::{AdminHandlers, cache_metrics, explain, origins, streams};
use crate::config::Config;
use crate::frontend::{BoundListener, Frontend};
use crate::proxy::{Shield, ShieldParts};
use crate::telemetry::{Exposition, LogCounts, Telemetry};
use seawall_upstream::{Origin, Resolver};

/// A server whose sockets are bound and whose modules do not exist yet.
pub(super) struct BoundServer {
    config: Config,
    doors: Vec<BoundListener>,
    admin: Option<TcpListener>,
}

/// All parts of a server, ready to accept connections.
pub(super) struct ServerParts {
    pub(super) frontend: FrontendService,
    pub(super) doors: Vec<BoundListener>,
    pub(super) admin_service: Option<AdminService>,
    pub(super) telemetry: Arc<Telemetry>,
    /// After SIGTERM: how long connections are still accepted.
    pub(super) lame_duck: Duration,
    /// One per worker.
    pub(super) probes: Vec<Probe>,
}

impl ServerParts {
    /// Binds every socket.
    pub(super) fn bind(config: Config) -> anyhow::Result<BoundServer> {
        let doors = config.frontend.listeners.iter().map(BoundListener::bind);
        let doors = doors.collect::<Result<Vec<_>, _>>()?;
        let admin = match config.admin.listen {
            None => None,
            Some(address) => Some(
                bind_admin(address)
                    .with_context(|| format!("cannot listen on {address} for operators"))?,
            ),
        };
        Ok(BoundServer {
            config,
            doors,
            admin,
        })
    }
}

impl BoundServer {
    /// Creates the modules. Call it inside a tokio runtime: some start background tasks.
    pub(super) fn build(
        self,
        lookup: &Resolver,
        workers: usize,
        log: &Arc<LogCounts>,
    ) -> anyhow::Result<ServerParts> {
        let BoundServer {
            config,
            doors,
            admin,
        } = self;
        let origins = config.origins.into_iter().map(|settings| {
            let name = settings.name.clone();
            let origin = Origin::new(settings, lookup.clone());
            let origin = origin.with_context(|| format!("cannot prepare origin {name}"))?;
            origin.start_health_checks();
            Ok(Arc::new(origin))
        });
        let origins = origins.collect::<anyhow::Result<Vec<_>>>()?;
        let routes: Vec<Arc<str>> = config
            .rules
            .routes
            .iter()
            .map(|route| route.name.clone())
            .collect();
        let telemetry = Arc::new(Telemetry::new(&config.telemetry, &routes)?);
        let shield = Shield::new(ShieldParts {
            rules: config.rules,
            cache: config.cache,
            settings: config.proxy,
            origins,
            telemetry: telemetry.clone(),
        });
        let edge = Arc::new(Frontend::new(config.frontend.limits)?);
        let (prober, probes) = probe::probes_for_workers(workers);
        // Without an admin server no load balancer can see that the server is about to stop.
        let lame_duck = admin.as_ref().map_or(Duration::ZERO, |_| config.lame_duck);
        let office = admin.map(|socket| {
            let desk = AdminHandlers {
                hosts: config.admin.hosts,
                ..admin_handlers(&shield, &telemetry, &edge, prober, log.clone())
            };
            AdminService::new(socket, desk)
        });
        let front = FrontendService {
            frontend: edge,
            shield,
        };
        Ok(ServerParts {
            frontend: front,
            doors,
            admin_service: office,
            telemetry,
            lame_duck,
            probes,
        })
    }
}

/// The handlers of the admin server.
fn admin_handlers(
    shield: &Arc<Shield>,
    telemetry: &Arc<Telemetry>,
    edge: &Arc<Frontend>,
    prober: Prober,
    log: Arc<LogCounts>,
) -> AdminHandlers {
    let prober = Arc::new(prober);
    let (purging, watching, counted) = (shield.clone(), shield.clone(), edge.clone());
    let explaining = shield.clone();
    let counting = shield.clone();
    let (telemetry, open) = (telemetry.clone(), edge.clone());
    let cache = shield.cache().clone();
    let (asked, standing) = (shield.origins().to_vec(), shield.origins().to_vec());
    let read =
        |groups: &[Arc<Origin>]| -> Vec<_> { groups.iter().map(|group| group.stats()).collect() };
    AdminHandlers {
        hosts: Vec::new(),
        pages: vec![
            Box::new(move |page| page.push_str(&telemetry.render())),
            Box::new(move |page| {
                let mut logged = Exposition::default();
                log.describe(&mut logged);
                page.push_str(&logged.to_string());
            }),
            Box::new(move |page| counted.stats().render(page)),
            Box::new(move |page| page.push_str(&cache_metrics::memory(&cache.stats()))),
            Box::new(move |page| {
                page.push_str(&cache_metrics::codings(&counting.codings()));
                page.push_str(&cache_metrics::clients(&counting.clients()));
            }),
            Box::new(move |page| page.push_str(&origins::metrics(&read(&asked)))),
            Box::new(move |page| page.push_str(&streams::metrics(&watching.streams()))),
        ],
        status: Box::new(move || origins::status(&read(&standing))),
        healthy: Box::new(move || {
            let prober = prober.clone();
            Box::pin(async move { prober.probe_all().await })
        }),
        ready: Box::new(move || !open.leaving()),
        explain: Box::new(move |url| match explaining.explain(url) {
            Ok(told) => Ok(explain::explanation(&told)),
            Err(refusal) => Err(refusal.why),
        }),
        purge: Box::new(move |scope| {
            let shield = Arc::clone(&purging);
            Box::pin(async move { shield.purge(scope).await })
        }),
    }
}

fn bind_admin(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The system's resolver.
pub(super) fn system_lookup() -> Resolver {
    Arc::new(|host: &str, port| Ok((host, port).to_socket_addrs()?.collect()))
}
