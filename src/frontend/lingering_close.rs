//! Closes a connection so that its viewer loses no bytes that were sent.
//!
//! If a socket is closed while bytes from the viewer are unread or still arrive, the connection is
//! reset. The kernel then drops unsent bytes, and the next write of the viewer fails. Many viewers
//! then discard what they have not read.

use std::future::poll_fn;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Duration, Instant, timeout};

use super::Limits;
use super::connection_state::ConnectionState;
use super::connection_timer::LEAVING_TIME;

/// Time to wait for a viewer that sends nothing, after its kernel has acknowledged all bytes.
const LINGER: Duration = Duration::from_secs(2);

/// Interval for checking whether the kernel still has bytes that the viewer has not acknowledged.
const UNACKNOWLEDGED_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Shuts down writing, and reads what the viewer still sends, within limits.
pub(super) async fn linger<L: AsyncRead + AsyncWrite + Unpin>(mut stream: L, limits: &Limits) {
    let reading = async {
        shut_down_writing(&mut stream).await;
        let mut bytes_remaining = limits.unwanted_body_bytes_max;
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            match bytes_remaining.checked_sub(count as u64) {
                Some(remaining) => bytes_remaining = remaining,
                None => break,
            }
        }
    };
    // After this time, the connection is closed even if the viewer still sends.
    let _ = timeout(LINGER, reading).await;
}

/// Shuts down writing, and waits until the viewer closes too. Waits as long as the viewer receives
/// the bytes in the kernel at the minimum rate, and reads the frames that it sends meanwhile.
pub(super) async fn close_gracefully<L: AsyncRead + AsyncWrite + Unpin>(
    stream: L,
    connection: &ConnectionState,
    limits: &Limits,
) {
    let closing = wait_for_close(stream, connection, limits);
    if connection.is_asked_to_close() {
        // A new connection waits for this one to close.
        let _ = timeout(LEAVING_TIME, closing).await;
    } else {
        closing.await;
    }
}

async fn wait_for_close<L: AsyncRead + AsyncWrite + Unpin>(
    mut stream: L,
    connection: &ConnectionState,
    limits: &Limits,
) {
    let mut wait = CloseWait::new(connection, Instant::now());
    let (mut is_shut_down, mut bytes_remaining) = (false, limits.unwanted_body_bytes_max);
    let mut bytes = [0; 1024];
    loop {
        let read = async {
            if !is_shut_down {
                shut_down_writing(&mut stream).await;
                is_shut_down = true;
            }
            stream.read(&mut bytes).await
        };
        let read = timeout(UNACKNOWLEDGED_CHECK_INTERVAL, read).await;
        let now = Instant::now();
        match read {
            Ok(Ok(count @ 1..)) => {
                let Some(remaining) = bytes_remaining.checked_sub(count as u64) else {
                    return;
                };
                bytes_remaining = remaining;
                wait.last_read_at = now;
            }
            // The viewer has closed the connection, or it failed.
            Ok(_) => return,
            Err(_) => {}
        }
        let has_unacknowledged = !is_shut_down || connection.has_unacknowledged();
        let received_bytes = || connection.received_bytes();
        if wait.is_over(has_unacknowledged, received_bytes, limits, now) {
            return;
        }
    }
}

/// Sends what the stream has buffered and then the end of the connection.
async fn shut_down_writing<L: AsyncWrite + Unpin>(stream: &mut L) {
    // The connection ends next, also after an error.
    let _ = poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await;
}

/// The state of waiting for a viewer to close.
struct CloseWait {
    /// Since when the kernel has had no unacknowledged bytes and no request has been in progress.
    quiet_since: Instant,
    last_read_at: Instant,
    /// Start of the window in which received bytes are counted.
    window_start: Instant,
    /// Bytes that the viewer had received by then.
    received_bytes: u64,
    all_acknowledged_at: Option<Instant>,
}

impl CloseWait {
    fn new(connection: &ConnectionState, now: Instant) -> CloseWait {
        CloseWait {
            quiet_since: connection.phase_since(),
            last_read_at: now,
            window_start: now,
            received_bytes: connection.received_bytes(),
            all_acknowledged_at: None,
        }
    }

    /// Whether the connection is closed now. `received_bytes` is called at the end of a window.
    fn is_over(
        &mut self,
        has_unacknowledged: bool,
        received_bytes: impl FnOnce() -> u64,
        limits: &Limits,
        now: Instant,
    ) -> bool {
        let window = limits.send_rate_window;
        if has_unacknowledged {
            self.quiet_since = now;
            if now < self.window_start + window {
                return false;
            }
            let before = std::mem::replace(&mut self.received_bytes, received_bytes());
            self.window_start = now;
            return self.received_bytes.saturating_sub(before) < limits.send_min_bytes();
        }
        // The viewer's program may not have read the bytes that its kernel has acknowledged.
        let all_acknowledged_at = *self.all_acknowledged_at.get_or_insert(now);
        now >= self.quiet_since + window
            || now >= self.last_read_at + LINGER
            || now >= all_acknowledged_at + window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(20);

    fn limits() -> Limits {
        Limits {
            send_rate_window: WINDOW,
            send_rate_min_bytes_per_second: 500,
            ..Limits::default()
        }
    }

    fn close_wait(now: Instant) -> CloseWait {
        CloseWait {
            quiet_since: now,
            last_read_at: now,
            window_start: now,
            received_bytes: 0,
            all_acknowledged_at: None,
        }
    }

    #[test]
    fn waits_for_a_viewer_at_the_minimum_rate() {
        let now = Instant::now();
        let mut wait = close_wait(now);
        for (window, received, is_over) in
            [(1, 10_000, false), (2, 20_000, false), (3, 29_999, true)]
        {
            let early = now + WINDOW * window - Duration::from_secs(1);
            assert!(!wait.is_over(true, || 0, &limits(), early));
            let over = wait.is_over(true, || received, &limits(), now + WINDOW * window);
            assert_eq!(over, is_over, "{received}");
        }
    }

    #[test]
    fn waits_one_window_at_most_for_frames_after_the_last_byte() {
        let now = Instant::now();
        let mut wait = close_wait(now);
        assert!(!wait.is_over(true, || 0, &limits(), now));
        for second in 0..20 {
            wait.last_read_at = now + Duration::from_secs(second);
            assert!(!wait.is_over(false, || 0, &limits(), wait.last_read_at));
        }
        assert!(wait.is_over(false, || 0, &limits(), now + WINDOW));
    }

    #[test]
    fn is_not_idle_just_after_the_last_bytes() {
        let now = Instant::now();
        let mut wait = close_wait(now);
        let later = now + WINDOW - Duration::from_secs(1);
        assert!(!wait.is_over(true, || 0, &limits(), later));
        wait.last_read_at = later;
        assert!(!wait.is_over(false, || 0, &limits(), now + WINDOW));
    }

    #[test]
    fn waits_shortly_for_a_silent_viewer_and_not_for_an_idle_one() {
        let now = Instant::now();
        let mut silent = close_wait(now);
        assert!(!silent.is_over(false, || 0, &limits(), now));
        assert!(silent.is_over(false, || 0, &limits(), now + LINGER));
        let mut idle = close_wait(now);
        idle.quiet_since = now - WINDOW;
        assert!(idle.is_over(false, || 0, &limits(), now));
    }
}
