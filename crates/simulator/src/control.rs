//! Switches the faults of an origin: by tests through a handle, by people through a URL:
//! `/control?late=3`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::clock::Clock;
use super::faults::{Faults, OriginScene};
use super::media_assets::DemoRendition;

/// The syntax of the query of `/control`.
pub const USAGE: &str = "late=SECONDS stall=on|off back=SEGMENTS cut=media|manifests|off \
     missing=SECONDS refuse=PERCENT slow=SECONDS only=360p|180p|audio|all restart heal";

/// Switches an origin's faults. Its clones control the same origin.
#[derive(Clone, Debug)]
pub struct Control {
    scene: Arc<watch::Sender<OriginScene>>,
    clock: Clock,
}

impl Control {
    pub(super) fn new(scene: OriginScene, clock: Clock) -> Control {
        let scene = Arc::new(watch::Sender::new(scene));
        Control { scene, clock }
    }

    /// Changes the active faults.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.scene.send_modify(|scene| change(&mut scene.faults));
    }

    /// The active faults.
    pub fn faults(&self) -> Faults {
        self.scene.borrow().faults.clone()
    }

    /// Manifests stop changing.
    pub fn stall(&self) {
        let now = self.clock.now();
        self.set(|faults| faults.stalled = Some(now));
    }

    /// Ends all faults. A restart is not undone.
    pub fn heal(&self) {
        self.set(|faults| *faults = Faults::default());
    }

    /// Restarts the packager: numbers from 0, the same names, other bytes.
    pub fn restart(&self) {
        let now = self.clock.now();
        self.scene.send_modify(|scene| {
            scene.broadcast = Arc::new(scene.broadcast.restarted(now));
        });
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<OriginScene> {
        self.scene.subscribe()
    }

    /// Executes a query: all of it, or nothing if a part is invalid.
    pub(super) fn execute(&self, query: &str) -> Result<(), String> {
        let mut faults = self.faults();
        let mut restart = false;
        for command in query.split('&').filter(|command| !command.is_empty()) {
            let (name, value) = command.split_once('=').unwrap_or((command, ""));
            match name {
                "restart" => restart = true,
                "heal" => faults = Faults::default(),
                _ => self
                    .change(&mut faults, name, value)
                    .ok_or_else(|| format!("not understood: {command}\nknown: {USAGE}\n"))?,
            }
        }
        self.set(|current| *current = faults);
        if restart {
            self.restart();
        }
        Ok(())
    }

    fn change(&self, faults: &mut Faults, name: &str, value: &str) -> Option<()> {
        match (name, value) {
            ("late", _) => faults.late = seconds(value)?,
            ("missing", _) => faults.missing = seconds(value)?,
            ("slow", _) => faults.slow = seconds(value)?,
            ("back", _) => faults.back = value.parse().ok().filter(|back| *back <= 1000)?,
            ("refuse", _) => {
                faults.refused_percent = value.parse().ok().filter(|share| *share <= 100)?;
            }
            ("stall", "on") => faults.stalled = Some(self.clock.now()),
            ("stall", "off") => faults.stalled = None,
            ("cut", _) => {
                let is_known = ["media", "manifests", "off"].contains(&value);
                is_known.then_some(())?;
                faults.cut_media = value == "media";
                faults.cut_manifests = value == "manifests";
            }
            ("only", "all") => faults.only = None,
            ("only", _) => faults.only = Some(DemoRendition::from_name(value)?),
            _ => return None,
        }
        Some(())
    }
}

fn seconds(text: &str) -> Option<Duration> {
    const HOUR: f64 = 3600.0;
    let seconds: f64 = text.parse().ok()?;
    let is_in_range = (0.0..=HOUR).contains(&seconds);
    is_in_range.then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::super::broadcast::{Broadcast, BroadcastPlan};
    use super::*;

    fn control() -> Control {
        let now = Duration::from_secs(1_750_000_000);
        let (clock, _) = Clock::manual(now);
        let scene = OriginScene {
            broadcast: Arc::new(Broadcast::new(BroadcastPlan::from(now))),
            faults: Faults::default(),
            lag: 0,
        };
        Control::new(scene, clock)
    }

    #[test]
    fn parses_commands_into_faults() {
        let control = control();
        let commands = "late=1.5&stall=on&back=2&cut=media&missing=3&refuse=50&slow=0.2&only=audio";
        control.execute(commands).unwrap();
        let expected = Faults {
            late: Duration::from_millis(1500),
            stalled: Some(Duration::from_secs(1_750_000_000)),
            back: 2,
            cut_media: true,
            cut_manifests: false,
            missing: Duration::from_secs(3),
            refused_percent: 50,
            slow: Duration::from_millis(200),
            only: Some(DemoRendition::Audio),
        };
        assert_eq!(control.faults(), expected);
        control.execute("heal&cut=manifests").unwrap();
        let expected = Faults {
            cut_manifests: true,
            ..Faults::default()
        };
        assert_eq!(control.faults(), expected);
    }

    #[test]
    fn rejects_all_commands_when_one_is_invalid() {
        let control = control();
        for mistake in [
            "late=x",
            "late=-1",
            "late=1e9",
            "stall=yes",
            "back=-1",
            "cut=all",
            "refuse=101",
            "only=720p",
            "burn=1",
        ] {
            let error = control.execute(&format!("slow=1&{mistake}")).unwrap_err();
            assert!(
                error.contains(mistake) && error.contains("missing=SECONDS"),
                "{error}"
            );
        }
        assert_eq!(control.faults(), Faults::default());
    }
}
