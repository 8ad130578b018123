//! Assembles the modules in order. Sockets come first: nothing starts if a socket cannot be bound.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;

use super::ServerStart;
use super::admin_controls::AdminControls;
use super::class_slots::ClassSlots;
use super::control::{self, ControlSender};
use super::control_task::ControlTask;
use super::descriptors::DescriptorLimit;
use super::drain::{DRAIN_METRICS, Drain, DrainStatus};
use super::liveness::{self, LivenessMonitor, LivenessResponder};
use super::overview::{self, OverviewParts, stats};
use super::reload::{Reloader, create_origin, read_access};
use super::reload_report::RELOAD_METRICS;
use super::route_slots::RouteSlots;
use super::service_manager::ServiceManager;
use super::upgrade::{UPGRADE_METRICS, Upgrader};
use super::workers::{AdminService, FrontendService};
use crate::admin::access_metrics::{ACCESS_METRICS, RATE_LIMIT_METRICS};
use crate::admin::audit::AUDIT_METRICS;
use crate::admin::cache_metrics::{
    CLIENT_METRICS, CODING_METRICS, MEMORY_METRICS, PRIVATE_METRICS, QUERY_METRICS,
};
use crate::admin::class_metrics::{CLASS_METRICS, class_status};
use crate::admin::endpoint_metrics::ENDPOINT_METRICS;
use crate::admin::origin_metrics::GROUP_METRICS;
use crate::admin::overview::stream_details_json;
use crate::admin::purge_metrics::PURGE_METRICS;
use crate::admin::stream_metrics::STREAM_METRICS;
use crate::admin::{AdminAddress, AdminConnections, AdminHandlers, AdminSocket, explain, origins};
use crate::config::Config;
use crate::frontend::{
    BoundListener, CONNECTION_METRICS, Frontend, HandedSocket, InheritedSockets, ListenAddress,
    bind_unix,
};
use crate::proxy::{AccessControl, ActiveShield, HANDOVER_METRICS, ShieldParts};
use crate::telemetry::{LOG_METRICS, LogCounts, MetricRegistry, ProgramLog, Telemetry};
use seawall_upstream::{Origin, Resolver};

/// A server whose sockets are bound and whose modules do not exist yet.
pub(super) struct BoundServer {
    config: Config,
    /// How it was started.
    pub(super) start: ServerStart,
    /// What this machine allows.
    pub(super) descriptors: DescriptorLimit,
    listeners: Vec<BoundListener>,
    admin: Option<(AdminSocket, AdminAddress)>,
}

/// All parts of a server, ready to accept connections.
pub(super) struct ServerParts {
    pub(super) frontend: FrontendService,
    pub(super) admin_service: Option<AdminService>,
    pub(super) telemetry: Arc<Telemetry>,
    /// Reaches the control task.
    pub(super) control: ControlSender,
    pub(super) control_task: ControlTask,
    pub(super) monitor: Arc<LivenessMonitor>,
    pub(super) reloader: Arc<Reloader>,
    /// One per worker.
    pub(super) responders: Vec<LivenessResponder>,
}

impl ServerParts {
    /// Binds every socket that no other process has handed over.
    pub(super) fn bind(config: Config, mut start: ServerStart) -> anyhow::Result<BoundServer> {
        let mut inherited = InheritedSockets::default();
        if let Some(predecessor) = &mut start.predecessor {
            inherited = std::mem::take(&mut predecessor.sockets);
            let (sockets, pid) = (inherited.len(), predecessor.pid());
            tracing::info!(
                sockets,
                pid,
                "upgrade: got {sockets} sockets of process {pid}"
            );
        }
        let listeners = config.frontend.listeners.iter();
        let listeners = listeners.map(|one| BoundListener::inherit(one, &mut inherited));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        config.admin.check_protection()?;
        let admin = match &config.admin.listen {
            None => None,
            Some(address) => Some(
                bind_admin(address, &mut inherited)
                    .with_context(|| format!("cannot listen on {address} for operators"))?,
            ),
        };
        for address in inherited.addresses() {
            tracing::info!(address, "no listener has the address {address} any more");
        }
        Ok(BoundServer {
            descriptors: DescriptorLimit::default(),
            config,
            start,
            listeners,
            admin,
        })
    }
}

impl BoundServer {
    /// Creates the modules. Call it inside a tokio runtime: some start background tasks.
    pub(super) fn build(
        self,
        resolver: &Resolver,
        workers: usize,
        log: &ProgramLog,
        service_manager: &Arc<ServiceManager>,
    ) -> anyhow::Result<ServerParts> {
        let BoundServer {
            mut config,
            start,
            descriptors,
            listeners,
            admin,
        } = self;
        let groups = config.origins.iter().cloned();
        let origins = groups.map(|group| create_origin(group, resolver));
        let origins = origins.collect::<Result<_, _>>()?;
        let access = read_access(&config.rules)?;
        let (mut slots, mut class_slots) = (RouteSlots::default(), ClassSlots::default());
        slots.assign(&mut config.rules.routes);
        class_slots.assign(&mut config.rules.client_classes)?;
        let mut registry = MetricRegistry::default();
        let telemetry = new_telemetry(&config, (&slots, &class_slots), &mut registry)?;
        let shield = new_shield(&config, origins, access, &telemetry);
        let limits = descriptors.apply(&config.frontend.limits);
        let frontend = Arc::new(Frontend::new(limits, workers)?);
        frontend.set_drain_max(config.drain_max);
        frontend.open(listeners)?;
        let (monitor, responders) = liveness::monitor_workers(workers);
        let monitor = Arc::new(monitor);
        let (control, requests) = control::channel();
        let drain = new_drain(admin.is_some(), &frontend, service_manager);
        let operators = drain.operators.clone();
        collect_metrics(&mut registry, &shield, &frontend, &log.counts)?;
        let controls = AdminControls::start(&config.admin)?;
        report_operations(&drain, &controls, &mut registry)?;
        let upgrader = Upgrader::new(
            start.program,
            (frontend.clone(), admin_duplicate(admin.as_ref(), &config)?),
            shield.clone(),
            service_manager.clone(),
        );
        let upgrader = report_upgrades(upgrader, &shield, &mut registry)?;
        let reloader = Arc::new(Reloader::new(
            (shield.clone(), frontend.clone(), descriptors),
            (controls.clone(), log.clone()),
            resolver.clone(),
            start.file,
            (config, slots, class_slots),
            service_manager.clone(),
        ));
        let reloads = reloader.clone();
        registry.collect("Configuration", &RELOAD_METRICS, move || reloads.stats())?;
        let admin_service = admin.map(|socket| {
            let handlers = AdminHandlers {
                metrics: registry,
                ..admin_handlers(
                    (&shield, &frontend, log),
                    &drain.status,
                    &monitor,
                    (&control, controls),
                    (&reloader, &upgrader),
                )
            };
            AdminService::new(socket, handlers, operators)
        });
        let service = FrontendService { frontend, shield };
        Ok(ServerParts {
            reloader: reloader.clone(),
            frontend: service,
            admin_service,
            telemetry,
            control,
            control_task: ControlTask {
                requests,
                reloader,
                upgrader,
                drain,
            },
            monitor,
            responders,
        })
    }
}

fn new_telemetry(
    config: &Config,
    (routes, classes): (&RouteSlots, &ClassSlots),
    registry: &mut MetricRegistry,
) -> anyhow::Result<Arc<Telemetry>> {
    let telemetry = Telemetry::new(&config.telemetry, routes.names(), registry)?;
    telemetry.class_metrics.set_names(classes.names());
    Ok(Arc::new(telemetry))
}

fn new_shield(
    config: &Config,
    origins: Vec<Arc<Origin>>,
    access: AccessControl,
    telemetry: &Arc<Telemetry>,
) -> Arc<ActiveShield> {
    ActiveShield::new(ShieldParts {
        rules: config.rules.clone(),
        cache: config.cache.clone(),
        settings: config.proxy.clone(),
        origins,
        telemetry: telemetry.clone(),
        access,
    })
}

fn report_upgrades(
    upgrader: Upgrader,
    shield: &ActiveShield,
    registry: &mut MetricRegistry,
) -> Result<Arc<Upgrader>, prometheus::Error> {
    let upgrader = Arc::new(upgrader);
    let upgrades = upgrader.clone();
    registry.collect("Upgrades", &UPGRADE_METRICS, move || upgrades.stats())?;
    let handover = shield.load().handover().clone();
    registry.collect(
        "Stored objects in an upgrade",
        &HANDOVER_METRICS,
        move || handover.stats(),
    )?;
    Ok(upgrader)
}

fn report_operations(
    drain: &Drain,
    controls: &AdminControls,
    registry: &mut MetricRegistry,
) -> Result<(), prometheus::Error> {
    let status = drain.status.clone();
    registry.collect("Process", &DRAIN_METRICS, move || status.state())?;
    let audit = controls.audit.clone();
    registry.collect("Operators", &AUDIT_METRICS, move || audit.stats())
}

fn new_drain(
    has_admin: bool,
    frontend: &Arc<Frontend>,
    service_manager: &Arc<ServiceManager>,
) -> Drain {
    Drain {
        has_admin,
        status: DrainStatus::new(),
        frontend: frontend.clone(),
        operators: AdminConnections::default(),
        service_manager: service_manager.clone(),
    }
}

/// Registers the metrics of all modules that keep their own counts.
fn collect_metrics(
    registry: &mut MetricRegistry,
    shield: &Arc<ActiveShield>,
    frontend: &Arc<Frontend>,
    log: &Arc<LogCounts>,
) -> Result<(), prometheus::Error> {
    let log = log.clone();
    registry.collect("Logs", &LOG_METRICS, move || log.clone())?;
    let connections = frontend.clone();
    registry.collect("Viewer connections", &CONNECTION_METRICS, move || {
        connections.stats()
    })?;
    let access = shield.clone();
    registry.collect("Access rules", &ACCESS_METRICS, move || {
        access.load().access_stats()
    })?;
    let limits = shield.clone();
    registry.collect("Rate limits", &RATE_LIMIT_METRICS, move || {
        limits.load().rate_limit_stats()
    })?;
    let cache = shield.load().cache().clone();
    registry.collect("Memory and fills", &MEMORY_METRICS, move || cache.stats())?;
    let purges = shield.clone();
    registry.collect("Purges", &PURGE_METRICS, move || purges.load().purges())?;
    let clients = shield.clone();
    registry.collect("Abandoned requests", &CLIENT_METRICS, move || {
        clients.load().clients()
    })?;
    let classes = shield.clone();
    registry.collect("Client classes", &CLASS_METRICS, move || {
        classes.load().classes()
    })?;
    let queries = shield.clone();
    registry.collect("Query parameters", &QUERY_METRICS, move || {
        queries.load().varying_query_parameters()
    })?;
    let private = shield.clone();
    registry.collect("Private responses", &PRIVATE_METRICS, move || {
        private.load().private_overridden()
    })?;
    let codings = shield.clone();
    registry.collect("Compression", &CODING_METRICS, move || {
        codings.load().codings()
    })?;
    let groups = shield.clone();
    let origin_metrics: [(_, &'static [_]); 2] = [
        ("Origin groups", &GROUP_METRICS),
        ("Endpoints", &ENDPOINT_METRICS),
    ];
    registry.collect_groups(&origin_metrics, move || stats(&groups))?;
    let streams = shield.clone();
    registry.collect("Live streams", &STREAM_METRICS, move || {
        streams.load().streams()
    })
}

/// The handlers of the admin server. The registry of metrics is empty.
fn admin_handlers(
    (shield, frontend, log): (&Arc<ActiveShield>, &Arc<Frontend>, &ProgramLog),
    drain: &Arc<DrainStatus>,
    monitor: &Arc<LivenessMonitor>,
    (control, controls): (&ControlSender, AdminControls),
    (reloader, upgrader): (&Arc<Reloader>, &Arc<Upgrader>),
) -> AdminHandlers {
    let monitor = monitor.clone();
    let detailing = shield.clone();
    let (purging, explaining, warming) = (shield.clone(), shield.clone(), shield.clone());
    let (readiness, drain, control) = (drain.clone(), drain.clone(), control.clone());
    let (groups, classes) = (shield.clone(), shield.clone());
    let (reloads, reloading) = (reloader.clone(), control.clone());
    let (upgrades, upgrading) = (upgrader.clone(), control.clone());
    let started_at = SystemTime::now();
    let overview = OverviewParts {
        shield: shield.clone(),
        frontend: frontend.clone(),
        drain: drain.clone(),
        reloader: reloader.clone(),
        events: log.events.clone(),
    };
    AdminHandlers {
        overview: overview::handler(overview),
        stream: Box::new(move |name| {
            let details = detailing.load().stream_details(name);
            details.map(|details| stream_details_json(name, &details))
        }),
        hosts: controls.hosts,
        tokens: controls.tokens,
        audit: controls.audit,
        metrics: MetricRegistry::default(),
        status: Box::new(move || {
            let mut status = origins::status(&stats(&groups));
            status["drain"] = serde_json::json!({ "state": drain.state().as_str() });
            status["config"] = reloads.status();
            status["upgrade"] = upgrades.stats().to_json();
            status["process"] = process_status(started_at);
            status["client_classes"] = class_status(&classes.load());
            status
        }),
        health: Box::new(move || {
            let monitor = monitor.clone();
            Box::pin(async move { monitor.check_all().await })
        }),
        ready: Box::new(move || readiness.answer_probe()),
        drain: Box::new(move |waits| {
            let control = control.clone();
            Box::pin(async move { control.drain("POST /drain", waits).await })
        }),
        reload: Box::new(move || {
            let control = reloading.clone();
            Box::pin(async move { control.reload("POST /reload").await })
        }),
        upgrade: Box::new(move || {
            let control = upgrading.clone();
            Box::pin(async move { control.upgrade("POST /upgrade").await })
        }),
        explain: Box::new(move |url| match explaining.load().explain(url) {
            Ok(explanation) => Ok(explain::explanation(&explanation)),
            Err(error) => Err(error.why),
        }),
        purge: Box::new(move |order| {
            let shield = purging.current();
            Box::pin(async move { shield.purge(order).await })
        }),
        warm: Box::new(move |url, batch| {
            let shield = warming.current();
            Box::pin(async move { shield.warm(&url, &batch).await })
        }),
    }
}

/// What `/status` says of the process.
fn process_status(started_at: SystemTime) -> serde_json::Value {
    let since_1970 = started_at.duration_since(SystemTime::UNIX_EPOCH);
    serde_json::json!({
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": since_1970.unwrap_or_default().as_secs_f64(),
    })
}

/// A duplicate of the admin server's socket, for another process.
fn admin_duplicate(
    admin: Option<&(AdminSocket, AdminAddress)>,
    config: &Config,
) -> anyhow::Result<Option<HandedSocket>> {
    let admin = admin.zip(config.admin.listen.as_ref());
    let duplicate = admin.map(|((socket, _), configured)| match socket {
        AdminSocket::Tcp(socket) => HandedSocket::of(configured.to_string(), socket),
        AdminSocket::Unix(socket) => HandedSocket::of(configured.to_string(), socket),
    });
    let duplicate = duplicate.transpose();
    duplicate.context("cannot duplicate the admin server's socket")
}

/// The socket, and its address with the port that the system chose if port 0 was requested.
fn bind_admin(
    address: &AdminAddress,
    inherited: &mut InheritedSockets,
) -> io::Result<(AdminSocket, AdminAddress)> {
    match address {
        AdminAddress::Tcp(address) => {
            let socket = match inherited.take(&ListenAddress::Tcp(*address)) {
                Some(socket) => socket.into(),
                None => TcpListener::bind(address)?,
            };
            socket.set_nonblocking(true)?;
            let bound = socket.local_addr()?;
            Ok((AdminSocket::Tcp(socket), bound.into()))
        }
        AdminAddress::Unix(path) => {
            let socket = match inherited.take(&ListenAddress::Unix(path.clone())) {
                Some(socket) => socket.into(),
                None => bind_unix(path)?,
            };
            Ok((AdminSocket::Unix(socket), address.clone()))
        }
    }
}

/// The system's resolver.
pub(super) fn system_lookup() -> Resolver {
    Arc::new(|host: &str, port| Ok((host, port).to_socket_addrs()?.collect()))
}
