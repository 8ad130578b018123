//! A gate holds an origin's response until the scenario opens it.

use std::sync::Arc;

use tokio::sync::watch;

use super::patience::within;

/// Closed at first; once open it stays open. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    state: Arc<watch::Sender<State>>,
}

#[derive(Default)]
struct State {
    open: bool,
    arrived: usize,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Gate {
        Gate {
            state: Arc::new(watch::Sender::new(State::default())),
        }
    }

    /// Opens the gate, for good.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Waits until `count` responses have reached this gate (held or not).
    pub async fn wait_arrived(&self, count: usize) {
        let mut seen = self.state.subscribe();
        let arrival = seen.wait_for(|state| state.arrived >= count);
        within(format!("{count} answers at a gate"), arrival)
            .await
            .expect("the gate holds its own sender");
    }

    /// Waits until the gate is open.
    pub(super) async fn wait_open(&self) {
        self.state.send_modify(|state| state.arrived += 1);
        let mut seen = self.state.subscribe();
        seen.wait_for(|state| state.open)
            .await
            .expect("the gate holds its own sender");
    }
}
