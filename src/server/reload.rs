//! Replaces the configuration of a running server. First comes everything that can fail: reading,
//! checking, secrets, origins, sockets. Then comes everything that cannot. So a bad file changes
//! nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::admin_controls::{AdminControls, PreparedAdmin};
use super::class_slots::ClassSlots;
use super::descriptors::DescriptorLimit;
use super::drain::DrainPlan;
use super::reload_report::{ReloadError, ReloadReport, ReloadStats};
use super::route_slots::RouteSlots;
use super::service_manager::ServiceManager;
use crate::config::{CheckScope, Config, Problems};
use crate::frontend::{Frontend, PreparedListeners, RemovedListeners};
use crate::proxy::{AccessControl, ActiveSettings, ActiveShield};
use crate::telemetry::{PreparedAccessLog, ProgramLog};
use seawall_policy::Rules;
use seawall_upstream::{Origin, Resolver};

/// Longest time for everything that can fail. The files may be on a file system that hangs.
const PREPARE_MAX: Duration = Duration::from_secs(30);

/// Where a server's configuration comes from.
#[derive(Clone)]
pub struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// Adds what the environment says, as at the start.
    pub complete: fn(&mut Config),
    /// What was doubtful in it at the start.
    pub warnings: Problems,
}

/// What reloads a server's configuration.
pub(super) struct Reloader {
    shield: Arc<ActiveShield>,
    frontend: Arc<Frontend>,
    descriptors: DescriptorLimit,
    resolver: Resolver,
    /// `None`: the server was started without a file.
    file: Option<ConfigFile>,
    admin: AdminControls,
    log: ProgramLog,
    service_manager: Arc<ServiceManager>,
    running: Mutex<RunningConfig>,
    stats: Mutex<ReloadStats>,
}

/// The configuration in use.
#[derive(Clone)]
struct RunningConfig {
    config: Config,
    slots: RouteSlots,
    class_slots: ClassSlots,
}

/// A configuration that is ready to be used: nothing can fail any more.
struct PreparedReload {
    report: ReloadReport,
    next: RunningConfig,
    settings: ActiveSettings,
    listeners: PreparedListeners,
    access_log: PreparedAccessLog,
    admin: PreparedAdmin,
}

/// Listeners that a reload has removed, and the end of their connections.
struct Removal(Option<oneshot::Receiver<()>>);

impl Removal {
    /// Frees the addresses, and lets the connections finish within this time.
    fn begin(removed: RemovedListeners, drain_max: Duration) -> Removal {
        if removed.is_empty() {
            return Removal(None);
        }
        let (sender, freed) = oneshot::channel();
        tokio::spawn(async move {
            removed.free_addresses().await;
            // Nobody may wait for it.
            let _ = sender.send(());
            removed.drain(drain_max).await;
        });
        Removal(Some(freed))
    }

    /// Returns when the addresses are free.
    async fn wait(self) {
        if let Some(freed) = self.0 {
            // An error: the process ends.
            let _ = freed.await;
        }
    }
}

impl Reloader {
    pub(super) fn new(
        (shield, frontend, descriptors): (Arc<ActiveShield>, Arc<Frontend>, DescriptorLimit),
        (admin, log): (AdminControls, ProgramLog),
        resolver: Resolver,
        file: Option<ConfigFile>,
        (config, slots, class_slots): (Config, RouteSlots, ClassSlots),
        service_manager: Arc<ServiceManager>,
    ) -> Reloader {
        let text = file.as_ref().map(|file| Config::read_text(&file.path));
        let hash = text.and_then(Result::ok).map(|text| hash_of(&text));
        let warnings = file.as_ref().map(|file| &file.warnings);
        let stats = ReloadStats::begin(hash, SystemTime::now(), warnings);
        Reloader {
            admin,
            log,
            stats: Mutex::new(stats),
            shield,
            frontend,
            descriptors,
            resolver,
            file,
            service_manager,
            running: Mutex::new(RunningConfig {
                config,
                slots,
                class_slots,
            }),
        }
    }

    /// Reads the file again and uses it. If that fails, nothing has changed. `cause` asked for it.
    /// Call it inside a tokio runtime that lives as long as the server: origins start background
    /// tasks.
    pub(super) async fn reload(
        self: &Arc<Self>,
        cause: &str,
    ) -> Result<Arc<ReloadReport>, Arc<ReloadError>> {
        self.service_manager.report_reloading();
        let reloader = Arc::clone(self);
        let preparing = spawn_blocking(move || reloader.prepare_file());
        let prepared = match timeout(PREPARE_MAX, preparing).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(panic)) => Err(ReloadError::of(&anyhow::anyhow!(panic))),
            Err(_) => Err(ReloadError::of(&anyhow::anyhow!(
                "cannot read the configuration within {} s",
                PREPARE_MAX.as_secs()
            ))),
        };
        let (result, removal) = match prepared {
            Ok(prepared) => {
                let (report, removal) = self.commit(prepared);
                (Ok(Arc::new(report)), Some(removal))
            }
            Err(error) => (Err(Arc::new(error)), None),
        };
        // First: whoever reads the log finds it in `/status`.
        let status = self.stats.lock().record(&result);
        match &result {
            Ok(report) => report.log(cause),
            Err(error) => error.log(cause),
        }
        // Last: dropped here, the reload is complete all the same.
        if let Some(removal) = removal {
            removal.wait().await;
        }
        self.service_manager.report_ready(&status);
        result
    }

    /// Uses another configuration from now on. If that fails, nothing has changed. Call it inside a
    /// tokio runtime, as [`Reloader::reload`].
    pub(super) fn apply(&self, config: Config) -> Result<ReloadReport, ReloadError> {
        let prepared = self.prepare(config);
        let prepared = prepared.map_err(|error| ReloadError::of(&error))?;
        Ok(self.commit(prepared).0)
    }

    /// Copies of what `/status` and the metrics show.
    pub(super) fn stats(&self) -> ReloadStats {
        self.stats.lock().clone()
    }

    /// How long the steps of a drain last that begins now.
    pub(super) fn drain_plan(&self, has_admin: bool) -> DrainPlan {
        let config = &self.running.lock().config;
        // Without an admin server no load balancer can see that the server is about to stop.
        let delay = if has_admin {
            config.drain_delay
        } else {
            Duration::ZERO
        };
        DrainPlan {
            delay,
            drain_max: config.drain_max,
        }
    }

    /// What `/status` says of the configuration.
    pub(super) fn status(&self) -> serde_json::Value {
        let file = self.file.as_ref().map(|file| file.path.as_path());
        self.stats.lock().to_json(file)
    }

    fn prepare_file(&self) -> Result<PreparedReload, ReloadError> {
        let Some(file) = &self.file else {
            let why = "the server was started without a file: a restart with other flags is needed";
            return Err(ReloadError::of(&anyhow::anyhow!(why)));
        };
        let text = Config::read_text(&file.path).map_err(|why| ReloadError::in_file(&why))?;
        let read = Config::check_text(&text, &file.path, CheckScope::Offline);
        let (mut config, warnings) = read.map_err(|why| ReloadError::in_file(&why))?;
        (file.complete)(&mut config);
        let prepared = self.prepare(config);
        let prepared = prepared.map_err(|error| ReloadError::of(&error))?;
        Ok(PreparedReload {
            report: prepared.report.of_file(hash_of(&text), warnings),
            ..prepared
        })
    }

    fn prepare(&self, read: Config) -> anyhow::Result<PreparedReload> {
        let RunningConfig {
            config,
            mut slots,
            mut class_slots,
        } = self.running.lock().clone();
        let changes = config.changes_to(&read);
        let mut next = config.reloaded(read);
        slots.assign(&mut next.rules.routes);
        class_slots.assign(&mut next.rules.client_classes)?;
        let origins = next.origins.iter();
        let origins = origins.map(|group| self.origin(group));
        let settings = ActiveSettings {
            origins: origins.collect::<Result<_, _>>()?,
            access: read_access(&next.rules)?,
            rules: next.rules.clone(),
            settings: next.proxy.clone(),
        };
        let admin = self.admin.prepare(&config.admin, &next.admin)?;
        let telemetry = self.shield.load().telemetry().clone();
        let access_log = telemetry.access_log.prepare(&next.telemetry.access_log)?;
        // Last of all that can fail: it is what others could notice.
        let listeners = self.frontend.prepare_listeners(&next.frontend.listeners)?;
        Ok(PreparedReload {
            listeners,
            access_log,
            admin,
            report: ReloadReport::of(changes),
            next: RunningConfig {
                config: next,
                slots,
                class_slots,
            },
            settings,
        })
    }

    /// Cannot fail.
    fn commit(&self, prepared: PreparedReload) -> (ReloadReport, Removal) {
        let PreparedReload {
            report,
            next,
            settings,
            listeners,
            access_log,
            admin,
        } = prepared;
        // First: the log may have to say more of what follows.
        let levels = &next.config.telemetry.log_levels;
        if self.running.lock().config.telemetry.log_levels != *levels {
            (self.log.set_levels)(levels);
        }
        let before = self.shield.current();
        let telemetry = before.telemetry();
        telemetry
            .request_metrics
            .set_route_names(next.slots.names());
        telemetry.class_metrics.set_names(next.class_slots.names());
        // Before the settings: what requests need for their lines is noted when they begin.
        if let Some(replaced) = telemetry.access_log.apply(access_log) {
            spawn_blocking(|| replaced.close());
        }
        replace_origins(before.origins(), &settings.origins);
        self.admin.apply(admin);
        let limits = &next.config.frontend.limits;
        self.frontend.set_limits(self.descriptors.apply(limits));
        let drain_max = next.config.drain_max;
        *self.running.lock() = next;
        let generation = self.shield.apply(settings);
        // After the routes: new listeners may be for new ones.
        self.frontend.set_drain_max(drain_max);
        let removed = self.frontend.apply_listeners(listeners);
        let report = report.applied(generation, SystemTime::now());
        (report, Removal::begin(removed, drain_max))
    }

    /// The origin group for these settings: what the running one of this name becomes, or a new
    /// one.
    fn origin(&self, settings: &seawall_upstream::Settings) -> anyhow::Result<Arc<Origin>> {
        let (shield, settings) = (self.shield.load(), settings.clone());
        let name = settings.name.clone();
        let mut running = shield.origins().iter();
        let origin = match running.find(|origin| *origin.name() == name) {
            Some(origin) => origin.succeed(settings, &self.resolver),
            None => Origin::new(settings, self.resolver.clone()).map(Arc::new),
        };
        origin.with_context(|| format!("cannot prepare origin {name}"))
    }
}

fn hash_of(text: &str) -> String {
    use std::fmt::Write as _;
    let mut hexadecimal = String::new();
    for byte in digest(&SHA256, text.as_bytes()).as_ref() {
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    hexadecimal
}

/// Lets new origin groups rule, and ends the health checks of those that are gone.
fn replace_origins(before: &[Arc<Origin>], after: &[Arc<Origin>]) {
    for origin in after {
        if !before.iter().any(|known| Arc::ptr_eq(known, origin)) {
            origin.take_effect();
            origin.start_health_checks();
        }
    }
    for origin in before {
        if !after.iter().any(|known| known.name() == origin.name()) {
            origin.retire();
        }
    }
}

/// Creates an origin group and starts its health checks.
pub(super) fn create_origin(
    settings: seawall_upstream::Settings,
    resolver: &Resolver,
) -> anyhow::Result<Arc<Origin>> {
    let name = settings.name.clone();
    let origin = Origin::new(settings, resolver.clone());
    let origin = origin.with_context(|| format!("cannot prepare origin {name}"))?;
    origin.start_health_checks();
    Ok(Arc::new(origin))
}

/// Reads the secrets of the routes' access rules.
pub(super) fn read_access(rules: &Rules) -> anyhow::Result<AccessControl> {
    AccessControl::read(rules).map_err(|(path, why)| {
        let path = path.display();
        anyhow::anyhow!("cannot read the secret in {path}: {why}")
    })
}
