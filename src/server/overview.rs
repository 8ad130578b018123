//! Makes what the page shows, once for all who look.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::drain::{DrainState, DrainStatus};
use super::reload::Reloader;
use crate::admin::overview::OverviewSource;
use crate::admin::{Overview, OverviewHandler};
use crate::frontend::Frontend;
use crate::proxy::ActiveShield;
use crate::telemetry::RecentEvents;

/// An overview is made at most as often as this, however many look at it.
const KEPT_FOR: Duration = Duration::from_millis(500);

/// The state of all origins.
pub(super) fn stats(shield: &ActiveShield) -> Vec<seawall_upstream::Stats> {
    let shield = shield.load();
    shield.origins().iter().map(|group| group.stats()).collect()
}

/// What an overview is read from.
pub(super) struct OverviewParts {
    pub(super) shield: Arc<ActiveShield>,
    pub(super) frontend: Arc<Frontend>,
    pub(super) drain: Arc<DrainStatus>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) events: Arc<RecentEvents>,
}

/// Answers with the last overview while it is new.
pub(super) fn handler(parts: OverviewParts) -> OverviewHandler {
    let started_at = Instant::now();
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let kept: Mutex<Option<(Instant, Overview)>> = Mutex::default();
    Arc::new(move || {
        let mut kept = kept.lock();
        let now = Instant::now();
        if let Some((made_at, overview)) = &*kept
            && now.saturating_duration_since(*made_at) < KEPT_FOR
        {
            return overview.clone();
        }
        let source = parts.read(host.clone(), now.saturating_duration_since(started_at));
        let overview = Overview {
            is_last: source.drain != DrainState::Serving.as_str(),
            json: source.to_json().to_string().into(),
        };
        *kept = Some((now, overview.clone()));
        overview
    })
}

impl OverviewParts {
    fn read(&self, host: String, uptime: Duration) -> OverviewSource {
        let shield = self.shield.load();
        let connections = self.frontend.stats();
        OverviewSource {
            now: SystemTime::now(),
            uptime,
            host,
            drain: self.drain.state().as_str(),
            totals: shield.telemetry().request_metrics.totals(),
            connections: (connections.open, connections.max),
            cache: shield.cache().stats(),
            streams: shield.streams(),
            origins: stats(&self.shield),
            events: self.events.read(),
            config: self.reloader.status(),
        }
    }
}
