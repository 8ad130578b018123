//! Holds the shield that answers requests now, and replaces it when the configuration changes.
//!
//! A [`Shield`] never changes: it is one generation of everything that a request is decided by.
//! What runs for a request (a fill, a race, a slice, a pass) keeps the shield with which it began,
//! so that its route, its settings and its origin always belong together. Only what outlives
//! requests takes the current shield, at each of its rounds: the refresher of a manifest, and the
//! prefetch by an MPD's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use super::{AccessControl, Settings, Shield, ShieldParts};
use seawall_policy::Rules;
use seawall_upstream::Origin;

/// Everything that a request is decided by. A reload replaces all of it at once.
pub struct ActiveSettings {
    /// Routes and their rules.
    pub rules: Rules,
    /// Waits and limits of the proxy.
    pub settings: Settings,
    /// Origin groups, in the order routes refer to them.
    pub origins: Vec<Arc<Origin>>,
    /// The secrets of the routes' access rules.
    pub access: AccessControl,
}

/// The caching proxy. One per process, and one per test.
pub struct ActiveShield {
    shield: ArcSwap<Shield>,
    generation: AlignedGeneration,
    /// Locked while the shield is replaced.
    replacing: Mutex<()>,
}

/// The number of the generation that answers requests. Workers read it for each repeated response,
/// so it shares its cache line with nothing that is written.
#[derive(Default)]
#[repr(align(64))]
struct AlignedGeneration(AtomicU64);

impl ActiveShield {
    /// Builds the first generation.
    pub fn new(parts: ShieldParts) -> Arc<ActiveShield> {
        Arc::new_cyclic(|active| {
            let shield = Shield::first(parts, active.clone());
            ActiveShield {
                generation: AlignedGeneration(AtomicU64::new(shield.generation)),
                shield: ArcSwap::from_pointee(shield),
                replacing: Mutex::default(),
            }
        })
    }

    /// The shield for one request that is answered without a wait.
    pub fn load(&self) -> Guard<Arc<Shield>> {
        self.shield.load()
    }

    /// The shield for one request.
    pub fn current(&self) -> Arc<Shield> {
        self.shield.load_full()
    }

    /// The number of the current generation. When it has changed, responses of before must not be
    /// repeated.
    pub fn generation(&self) -> u64 {
        // No order is needed: who hears that a reload has ended sees this store too.
        self.generation.0.load(Ordering::Relaxed)
    }

    /// Replaces everything that requests are decided by, for those that begin from now on. Stored
    /// objects, live streams and counters stay. Returns the number of the new generation.
    pub fn apply(&self, settings: ActiveSettings) -> u64 {
        let _replacing = self.replacing.lock();
        let next = self.shield.load().succeed(settings);
        let generation = next.generation;
        let next = Arc::new(next);
        self.shield.store(Arc::clone(&next));
        // After the shield: who sees the new number finds the new shield.
        self.generation.0.store(generation, Ordering::Release);
        next.live.follow(&next.rules, generation);
        generation
    }
}

#[cfg(test)]
impl ActiveShield {
    /// A shield with one route and no origins.
    pub(crate) fn without_origins() -> Arc<ActiveShield> {
        use crate::telemetry::{MetricRegistry, Settings as TelemetrySettings, Telemetry};

        let routes = ["main".into()];
        let settings = TelemetrySettings::default();
        let telemetry = Telemetry::new(&settings, &routes, &mut MetricRegistry::default());
        ActiveShield::new(ShieldParts {
            rules: Rules {
                routes: vec![Arc::new(seawall_policy::Route::everything("main"))],
                name: "seawall".into(),
                trusted_proxies: seawall_policy::TrustedProxies::default(),
                client_classes: seawall_policy::ClientClasses::default(),
            },
            cache: seawall_cache::Settings::default(),
            settings: Settings::default(),
            origins: Vec::new(),
            telemetry: Arc::new(telemetry.unwrap()),
            access: AccessControl::default(),
        })
    }
}
