//! Replaces the configuration of a running server: first everything that can fail, then everything
//! that cannot.

use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;

use super::route_slots::RouteSlots;
use crate::config::Config;
use crate::proxy::{AccessControl, ActiveSettings, ActiveShield};
use seawall_policy::Rules;
use seawall_upstream::{Origin, Resolver};

/// What reloads a server's configuration.
pub(super) struct Reloader {
    shield: Arc<ActiveShield>,
    resolver: Resolver,
    slots: Mutex<RouteSlots>,
}

/// A configuration that is ready to be used: nothing can fail any more.
struct PreparedReload {
    slots: RouteSlots,
    settings: ActiveSettings,
}

impl Reloader {
    pub(super) fn new(
        shield: Arc<ActiveShield>,
        resolver: Resolver,
        slots: RouteSlots,
    ) -> Reloader {
        Reloader {
            shield,
            resolver,
            slots: Mutex::new(slots),
        }
    }

    /// Uses another configuration from now on. If that fails, nothing has changed. Call it inside a
    /// tokio runtime that lives as long as the server: origins start background tasks.
    pub(super) fn apply(&self, config: Config) -> anyhow::Result<u64> {
        let mut running = self.slots.lock();
        let PreparedReload { slots, settings } = self.prepare(&running, config)?;
        let telemetry = Arc::clone(self.shield.load().telemetry());
        telemetry.request_metrics.set_route_names(slots.names());
        *running = slots;
        replace_origins(self.shield.load().origins(), &settings.origins);
        Ok(self.shield.apply(settings))
    }

    fn prepare(&self, running: &RouteSlots, mut config: Config) -> anyhow::Result<PreparedReload> {
        let mut slots = running.clone();
        slots.assign(&mut config.rules.routes);
        let origins = config.origins.iter();
        let origins = origins.map(|group| self.origin(group));
        let settings = ActiveSettings {
            origins: origins.collect::<Result<_, _>>()?,
            access: read_access(&config.rules)?,
            rules: config.rules,
            settings: config.proxy,
        };
        Ok(PreparedReload { slots, settings })
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
