//! Limits the control frames of an HTTP/2 viewer with a budget that useful work refills. Pure.
//!
//! A PING, SETTINGS or `WINDOW_UPDATE` frame costs a viewer a few bytes and causes work here. Each
//! connection has an allowance of frames. Time refills it slowly. Useful work refills it quickly:
//! complete responses, chunks of bodies, and bytes. A connection that only sends control frames
//! runs out of it.
//!
//! `WINDOW_UPDATE` has its own allowance, which body bytes refill much faster. Clients may
//! acknowledge every DATA frame on two windows, and if the connection window is small, h2 sends
//! DATA frames of a dozen bytes.

use tokio::time::{Duration, Instant};

use super::frames::{FrameHead, FrameKind};

/// A full allowance in frames: what a connection may send before it has earned anything.
const CREDIT_MAX: u32 = 2_000;

/// The time that adds one frame.
const TIME_PER_CREDIT: Duration = Duration::from_millis(10);

/// The bytes sent that add one frame.
const BYTES_PER_CREDIT: u64 = 256;

/// The body bytes that add one `WINDOW_UPDATE`. A viewer that opens a window by single bytes runs
/// out.
const BODY_BYTES_PER_WINDOW_UPDATE: u64 = 2;

/// The credit for a complete response and for a chunk of a body, in bytes. An origin may send small
/// chunks, and a client may answer each of them with two `WINDOW_UPDATE` frames and a PING.
pub(super) const RESPONSE_CREDIT: u64 = 8 * BYTES_PER_CREDIT;
pub(super) const CHUNK_CREDIT: u64 = 4 * BYTES_PER_CREDIT;

/// New settings may affect every stream. Clients send them once or a few times.
const SETTINGS_COST: u32 = 128;

/// Payload bytes that cost as much as one more frame.
const BYTES_PER_COST: u32 = 4 << 10;

/// The useful work of a connection up to a moment.
#[derive(Clone, Copy)]
pub(super) struct WorkDone {
    pub(super) now: Instant,
    /// Credit for all useful work, in bytes.
    pub(super) credit_bytes: u64,
    /// Body bytes among them.
    pub(super) body_bytes: u64,
}

/// The remaining allowances of a connection.
pub(super) struct FrameBudget {
    /// For all frames but `WINDOW_UPDATE`.
    frames: FrameAllowance,
    window_updates: FrameAllowance,
    /// The cost of each frame type since its allowance was last full.
    spent: [u32; FrameKind::ALL.len()],
}

impl FrameBudget {
    /// A budget with full allowances.
    pub(super) fn new(now: Instant) -> FrameBudget {
        FrameBudget {
            frames: FrameAllowance::full(now, 0),
            window_updates: FrameAllowance::full(now, 0),
            spent: [0; FrameKind::ALL.len()],
        }
    }

    /// Charges the cost of a frame. If the allowance is used up, it is first refilled from `work`.
    /// If that is not enough, the error is the frame type with the highest cost.
    pub(super) fn spend(
        &mut self,
        frame: FrameHead,
        work: impl FnOnce() -> WorkDone,
    ) -> Result<(), FrameKind> {
        let cost = cost(frame);
        let is_window_update = frame.kind == FrameKind::WindowUpdate;
        let allowance = if is_window_update {
            &mut self.window_updates
        } else {
            &mut self.frames
        };
        if allowance.credit < cost {
            let work = work();
            let mut frames_earned = work.credit_bytes / BYTES_PER_CREDIT;
            if is_window_update {
                frames_earned += work.body_bytes / BODY_BYTES_PER_WINDOW_UPDATE;
            }
            allowance.refill(work.now, frames_earned);
            if allowance.credit == CREDIT_MAX {
                self.spent = [0; FrameKind::ALL.len()];
            }
        }
        let spent = &mut self.spent[frame.kind as usize];
        *spent = spent.saturating_add(cost);
        match allowance.credit.checked_sub(cost) {
            Some(credit) => allowance.credit = credit,
            None => return Err(self.costliest()),
        }
        Ok(())
    }

    /// The frame type with the highest cost.
    fn costliest(&self) -> FrameKind {
        let spent = FrameKind::ALL.into_iter().zip(self.spent);
        let largest = spent.max_by_key(|(_, spent)| *spent);
        largest.map_or(FrameKind::Unknown, |(kind, _)| kind)
    }
}

/// A number of frames that the viewer may send, refilled by time and by useful work.
struct FrameAllowance {
    credit: u32,
    /// Up to when time has been credited.
    refilled: Instant,
    /// Frames already credited for work.
    frames_earned: u64,
}

impl FrameAllowance {
    fn full(now: Instant, frames_earned: u64) -> FrameAllowance {
        FrameAllowance {
            credit: CREDIT_MAX,
            refilled: now,
            frames_earned,
        }
    }

    /// Adds the credit for time and work since the last refill. `frames_earned` is the number of
    /// frames that work has earned since the connection began.
    fn refill(&mut self, now: Instant, frames_earned: u64) {
        let missing = u64::from(CREDIT_MAX - self.credit);
        let elapsed = now.saturating_duration_since(self.refilled);
        let by_time = elapsed.as_nanos() / TIME_PER_CREDIT.as_nanos();
        let by_time = u64::try_from(by_time).unwrap_or(u64::MAX);
        let by_work = frames_earned.saturating_sub(self.frames_earned);
        if by_time.saturating_add(by_work) >= missing {
            *self = FrameAllowance::full(now, frames_earned);
            return;
        }
        // The sum is less than `missing`, which is at most `CREDIT_MAX`.
        #[expect(clippy::cast_possible_truncation)]
        let (by_time, gained) = (by_time as u32, (by_time + by_work) as u32);
        self.credit += gained;
        // The remainder of the time counts at the next refill.
        self.refilled += TIME_PER_CREDIT * by_time;
        self.frames_earned = frames_earned;
    }
}

/// The cost of a frame, in frames.
fn cost(frame: FrameHead) -> u32 {
    match frame.kind {
        FrameKind::Settings if !frame.is_ack => SETTINGS_COST + frame.length / BYTES_PER_COST,
        // A request: the size of its head is limited elsewhere.
        FrameKind::Headers => 1,
        _ => 1 + frame.length / BYTES_PER_COST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection with a simulated clock, frames and work.
    struct Connection {
        budget: FrameBudget,
        work: WorkDone,
    }

    impl Connection {
        fn new() -> Connection {
            let now = Instant::now();
            Connection {
                budget: FrameBudget::new(now),
                work: WorkDone {
                    now,
                    credit_bytes: 0,
                    body_bytes: 0,
                },
            }
        }

        fn send(&mut self, kind: FrameKind, length: u32) -> Result<(), FrameKind> {
            let work = self.work;
            self.budget.spend(FrameHead::new(kind, length), || work)
        }

        fn wait(&mut self, time: Duration) {
            self.work.now += time;
        }

        /// Sends a DATA frame with `bytes` body bytes.
        fn send_body(&mut self, bytes: u64) {
            self.work.credit_bytes += bytes + 9;
            self.work.body_bytes += bytes;
        }
    }

    /// The number of frames accepted from an endless flood without a pause, and its named cause.
    fn flood(kind: FrameKind, length: u32) -> (usize, FrameKind) {
        let mut connection = Connection::new();
        for count in 0.. {
            if let Err(cause) = connection.send(kind, length) {
                return (count, cause);
            }
        }
        unreachable!()
    }

    #[test]
    fn detects_a_flood_of_each_frame_type() {
        for kind in FrameKind::ALL {
            let (count, cause) = flood(kind, 0);
            assert_eq!(cause, kind);
            assert!((10..=2_000).contains(&count), "{kind:?}: {count}");
        }
    }

    #[test]
    fn flood_of_large_unknown_frames_is_stopped_sooner() {
        let (small, _) = flood(FrameKind::Unknown, 0);
        let (large, _) = flood(FrameKind::Unknown, 16 << 10);
        assert!(large < small / 4, "{large} of {small}");
    }

    #[test]
    fn names_the_costliest_frame_of_a_mixed_flood() {
        let mut connection = Connection::new();
        let cause = loop {
            for kind in [FrameKind::Ping, FrameKind::Ping, FrameKind::WindowUpdate] {
                let _ = connection.send(kind, 8);
            }
            if let Err(cause) = connection.send(FrameKind::Priority, 5) {
                break cause;
            }
        };
        assert_eq!(cause, FrameKind::Ping);
    }

    #[test]
    fn allows_fifty_pings_per_second_without_end() {
        let mut connection = Connection::new();
        for _ in 0..100_000 {
            connection.send(FrameKind::Ping, 8).unwrap();
            connection.wait(Duration::from_millis(20));
        }
    }

    /// Time shorter than one frame is credited too.
    #[test]
    fn credits_short_intervals_completely() {
        let mut connection = Connection::new();
        while connection.send(FrameKind::Ping, 8).is_ok() {}
        let mut accepted = 0;
        for _ in 0..1_000 {
            connection.wait(Duration::from_millis(3));
            accepted += u32::from(connection.send(FrameKind::Ping, 8).is_ok());
        }
        assert_eq!(accepted, 300);
    }

    /// A client that acknowledges every 4 KB on both windows and measures the delay with a PING.
    #[test]
    fn allows_the_window_updates_of_a_download() {
        let mut connection = Connection::new();
        for _ in 0..1_000_000 {
            connection.send_body(4 << 10);
            connection.send(FrameKind::WindowUpdate, 4).unwrap();
            connection.send(FrameKind::WindowUpdate, 4).unwrap();
            connection.send(FrameKind::Ping, 8).unwrap();
        }
    }

    /// A live stream with chunks of a few bytes, acknowledged in the same way.
    #[test]
    fn allows_the_window_updates_of_small_chunks() {
        let mut connection = Connection::new();
        for _ in 0..1_000_000 {
            connection.send_body(20);
            connection.work.credit_bytes += CHUNK_CREDIT;
            connection.send(FrameKind::WindowUpdate, 4).unwrap();
            connection.send(FrameKind::WindowUpdate, 4).unwrap();
            connection.send(FrameKind::Ping, 8).unwrap();
        }
    }

    /// A small window used in tiny frames, each acknowledged on both windows.
    #[test]
    fn allows_the_window_updates_of_tiny_frames() {
        let mut connection = Connection::new();
        for _ in 0..1_000_000 {
            connection.send_body(10);
            connection.send(FrameKind::WindowUpdate, 4).unwrap();
            connection.send(FrameKind::WindowUpdate, 4).unwrap();
        }
    }

    #[test]
    fn detects_a_window_opened_byte_by_byte() {
        let mut connection = Connection::new();
        let mut accepted = 0;
        while connection.send(FrameKind::WindowUpdate, 4).is_ok() {
            connection.send_body(1);
            accepted += 1;
        }
        assert!(accepted < 10_000, "{accepted}");
    }

    /// Downloaded bytes do not pay for frames that do not acknowledge them.
    #[test]
    fn detects_a_flood_beside_a_download() {
        for kind in [FrameKind::Ping, FrameKind::Settings, FrameKind::Unknown] {
            let mut connection = Connection::new();
            let mut accepted = 0;
            while connection.send(kind, 8).is_ok() {
                connection.send_body(100);
                accepted += 1;
            }
            assert!(accepted < 5_000, "{accepted}");
        }
    }

    /// Requests for tiny files with a priority, and a reset of the finished stream.
    #[test]
    fn allows_the_frames_of_short_requests() {
        let mut connection = Connection::new();
        for _ in 0..1_000_000 {
            connection.send(FrameKind::Headers, 500).unwrap();
            connection.send(FrameKind::Priority, 5).unwrap();
            connection.send(FrameKind::WindowUpdate, 4).unwrap();
            connection.send(FrameKind::WindowUpdate, 4).unwrap();
            connection.send(FrameKind::RstStream, 4).unwrap();
            connection.send(FrameKind::Unknown, 40).unwrap();
            connection.send_body(1);
            connection.work.credit_bytes += CHUNK_CREDIT + RESPONSE_CREDIT;
        }
    }

    /// Credit earned long ago does not pay for a flood.
    #[test]
    fn never_exceeds_the_maximum_credit() {
        let mut connection = Connection::new();
        connection.send_body(1 << 40);
        connection.wait(Duration::from_hours(24));
        let count = (0..).take_while(|_| connection.send(FrameKind::Ping, 8).is_ok());
        assert!(count.count() <= 4_000);
    }
}
