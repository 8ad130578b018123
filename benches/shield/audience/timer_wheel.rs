//! Which viewers are due next: a wheel of slots of a millisecond. Adding and taking cost the same
//! for any number of viewers, and allocate nothing once the slots have grown. Knows no clock.

/// One turn of the wheel, in milliseconds: more than any wait.
const SLOTS: u64 = 1 << 15;

/// The wheel.
pub struct TimerWheel {
    slots: Vec<Vec<u32>>,
    /// All slots before this millisecond have been taken.
    now: u64,
}

impl TimerWheel {
    /// At millisecond 0.
    pub fn new() -> TimerWheel {
        TimerWheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            now: 0,
        }
    }

    /// Makes a viewer due at this millisecond; at once if that is past.
    pub fn add(&mut self, viewer: u32, at: u64) {
        let at = at.clamp(self.now, self.now + SLOTS - 1);
        self.slots[(at % SLOTS) as usize].push(viewer);
    }

    /// Moves those that are due at this millisecond or before it to `due`.
    pub fn take_due(&mut self, now: u64, due: &mut Vec<u32>) {
        while self.now <= now {
            due.append(&mut self.slots[(self.now % SLOTS) as usize]);
            self.now += 1;
        }
    }
}
