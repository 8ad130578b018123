//! The simulator's clock: real time, accelerated time, or time that a test sets. Everything in this
//! module that waits uses it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::utc::Utc;

/// A clock. Its clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(ClockMode);

#[derive(Clone, Debug)]
enum ClockMode {
    Runs {
        from: Utc,
        since: Instant,
        times: f64,
    },
    Manual(Arc<watch::Sender<Utc>>),
}

/// Controls a manual clock.
#[derive(Clone, Debug)]
pub struct ClockControl(Arc<watch::Sender<Utc>>);

impl Clock {
    /// The real time.
    pub fn real() -> Clock {
        Clock::times(1.0)
    }

    /// Starts at the real time and runs this many times as fast.
    pub fn times(times: f64) -> Clock {
        let from = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Clock(ClockMode::Runs {
            from: from.unwrap_or_default(),
            since: Instant::now(),
            times: times.clamp(0.001, 1000.0),
        })
    }

    /// A clock that stands still until its control moves it.
    pub fn manual(from: Utc) -> (Clock, ClockControl) {
        let sender = Arc::new(watch::Sender::new(from));
        (
            Clock(ClockMode::Manual(sender.clone())),
            ClockControl(sender),
        )
    }

    /// The current time.
    pub fn now(&self) -> Utc {
        match &self.0 {
            ClockMode::Runs { from, since, times } => *from + since.elapsed().mul_f64(*times),
            ClockMode::Manual(time) => *time.borrow(),
        }
    }

    /// Waits for a time, but at most a minute of real time: callers check again in a loop.
    pub async fn wait_until(&self, time: Utc) {
        const WAIT_MAX: Duration = Duration::from_mins(1);
        match &self.0 {
            ClockMode::Runs { times, .. } => {
                let remaining = time.saturating_sub(self.now()).div_f64(*times);
                tokio::time::sleep(remaining.min(WAIT_MAX)).await;
            }
            ClockMode::Manual(changes) => {
                let mut changes = changes.subscribe();
                let reached = changes.wait_for(|now| *now >= time);
                let _ = tokio::time::timeout(WAIT_MAX, reached).await;
            }
        }
    }
}

impl ClockControl {
    /// Moves the clock forward and wakes the tasks that wait for the new time.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|time| *time += by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn advancing_wakes_waiters_that_are_due() {
        let (clock, control) = Clock::manual(Duration::from_secs(100));
        let waiter = clock.clone();
        let waiting = tokio::spawn(async move {
            waiter.wait_until(Duration::from_secs(103)).await;
            waiter.now()
        });
        for _ in 0..3 {
            tokio::task::yield_now().await;
            control.advance(Duration::from_secs(1));
        }
        assert_eq!(waiting.await.unwrap(), Duration::from_secs(103));
    }

    #[tokio::test(start_paused = true)]
    async fn waits_less_with_a_fast_clock() {
        let clock = Clock::times(10.0);
        let (started, now) = (Instant::now(), clock.now());
        clock.wait_until(now + Duration::from_secs(20)).await;
        assert!(clock.now() >= now + Duration::from_secs(20));
        assert!(started.elapsed() < Duration::from_secs(3));
    }
}
