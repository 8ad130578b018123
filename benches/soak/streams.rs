//! The live origins: two per stream, in step until some of them lag and restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seawall_simulator::{Broadcast, BroadcastPlan, Clock, Packaging, SimulatedOrigin};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long the streams have been live: longer than any window.
const ON_AIR: Duration = Duration::from_mins(5);
/// One in this many streams has a failing origin.
const TROUBLED_EVERY: usize = 5;
/// How long and by how much an origin lags.
const LAGS_FOR: Duration = Duration::from_secs(12);
const LAGS_BY: Duration = Duration::from_secs(4);
/// The pause between the faults of one stream and the next.
const PAUSE: Duration = Duration::from_secs(3);

/// All streams.
pub struct Streams {
    list: Vec<Arc<Stream>>,
    tasks: parking_lot::Mutex<JoinSet<()>>,
}

/// One stream and its two origins.
pub struct Stream {
    pub form: Packaging,
    pub clock: Clock,
    pub broadcast: Broadcast,
    /// Whether one of its origins lags or has restarted, now or before.
    pub is_troubled: AtomicBool,
    origins: [SimulatedOrigin; 2],
}

impl Streams {
    /// Starts them, in all formats in turn, each with another start time.
    pub fn start(count: usize) -> std::io::Result<Streams> {
        let stream = |number: usize| {
            let form = Packaging::ALL[number % Packaging::ALL.len()];
            let clock = Clock::real();
            let begun = ON_AIR + Duration::from_millis(370) * number as u32;
            let plan = BroadcastPlan::from(clock.now().saturating_sub(begun)).segment_seconds(2);
            let first = SimulatedOrigin::start(plan, clock.clone())?;
            let second = first.twin(0)?;
            Ok(Arc::new(Stream {
                form,
                clock,
                broadcast: first.broadcast().clone(),
                is_troubled: AtomicBool::new(false),
                origins: [first, second],
            }))
        };
        Ok(Streams {
            list: (0..count).map(stream).collect::<std::io::Result<_>>()?,
            tasks: parking_lot::Mutex::default(),
        })
    }

    /// Their origins' URLs, in order.
    pub fn pairs(&self) -> impl Iterator<Item = [String; 2]> {
        self.list
            .iter()
            .map(|stream| [stream.origins[0].url(), stream.origins[1].url()])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.list.iter()
    }

    /// From now on the first origins of some streams lag for a while, one after another, and then
    /// restart.
    pub fn start_faults(&self) {
        let troubled: Vec<_> = self.list.iter().step_by(TROUBLED_EVERY).cloned().collect();
        self.tasks.lock().spawn(async move {
            for round in 0_usize.. {
                for stream in &troubled {
                    stream.is_troubled.store(true, Ordering::Relaxed);
                    let control = stream.origins[0].control();
                    control.set(|faults| faults.late = LAGS_BY);
                    sleep(LAGS_FOR).await;
                    control.heal();
                    if round == 0 {
                        control.restart();
                    }
                    sleep(PAUSE).await;
                }
            }
        });
    }
}
