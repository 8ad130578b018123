//! Limits the size and duration of request bodies.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Duration, Instant, Sleep, timeout};

use super::Limits;
use super::connection_state::ConnectionState;
use super::connection_table::ConnectionTable;
use super::connection_timer::poll_alarm;
use super::stats::ConnectionEvent;
use seawall_upstream::UploadFault;

/// A request body that is forwarded to an origin. It has one deadline, which each byte extends by
/// its time at the minimum rate.
pub(super) struct ViewerUpload<B> {
    body: B,
    received: u64,
    start: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    limits: Arc<Limits>,
    connections: Arc<ConnectionTable>,
    connection: Arc<ConnectionState>,
}

impl<B> ViewerUpload<B> {
    pub(super) fn new(
        body: B,
        limits: Arc<Limits>,
        connections: Arc<ConnectionTable>,
        connection: Arc<ConnectionState>,
    ) -> ViewerUpload<B> {
        ViewerUpload {
            body,
            received: 0,
            start: Instant::now(),
            alarm: None,
            limits,
            connections,
            connection,
        }
    }

    /// The deadline of the whole body.
    fn due(&self) -> Instant {
        self.start + self.limits.send_rate_window + self.time_allowed()
    }

    /// The time of the received bytes at the minimum rate, but at least one window.
    fn time_allowed(&self) -> Duration {
        let time = self.limits.time_at_min_rate(self.received);
        self.limits.send_rate_window.max(time.unwrap_or_default())
    }

    /// Records that the rest of the body will not be read.
    fn fail(&self, fault: UploadFault) -> Box<dyn Error + Send + Sync> {
        self.connection.leave_unread();
        fault.into()
    }
}

impl<B> Body for ViewerUpload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(_))) => {
                return Poll::Ready(Some(Err(this.fail(UploadFault::Broken))));
            }
            Poll::Ready(None) => {
                this.connection.finish_request_body();
                return Poll::Ready(None);
            }
            Poll::Pending => {
                let due = this.due();
                ready!(poll_alarm(&mut this.alarm, due, cx));
                let counters = &this.connections.counters;
                counters.count(ConnectionEvent::BodyTimeout);
                return Poll::Ready(Some(Err(this.fail(UploadFault::TooSlow))));
            }
        };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        this.received += bytes;
        this.connection.add_flood_credit(bytes);
        if this.received > this.limits.request_body_bytes_max {
            return Poll::Ready(Some(Err(this.fail(UploadFault::TooLarge))));
        }
        if this.body.is_end_stream() {
            this.connection.finish_request_body();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An unwanted body that is read and discarded, up to a limit.
pub(super) struct DrainedBody<B> {
    body: B,
    /// Bytes that may still be read.
    bytes_remaining: u64,
    /// Number of frames read.
    frames: u64,
}

/// Why an unwanted body was not read completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainError {
    /// It is longer than `unwanted_body_bytes_max`.
    TooLong,
    /// It is incomplete, or its framing is invalid.
    Broken,
}

/// How often the task yields without receiving bytes. Within this number of yields, hyper passes on
/// the body bytes that it has already read.
const YIELDS_MAX: u32 = 3;

impl<B> DrainedBody<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    pub(super) fn new(body: B, limits: &Limits) -> DrainedBody<B> {
        DrainedBody {
            body,
            bytes_remaining: limits.unwanted_body_bytes_max,
            frames: 0,
        }
    }

    /// Reads the bytes that have arrived. `None`: the body is incomplete.
    pub(super) async fn read_available(&mut self) -> Option<Result<(), DrainError>> {
        if self.body.size_hint().lower() > self.bytes_remaining {
            return Some(Err(DrainError::TooLong));
        }
        let mut yields = 0;
        while yields < YIELDS_MAX {
            let before = self.frames;
            if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(self.poll_read(cx))).await {
                return Some(read);
            }
            yields = if self.frames == before { yields + 1 } else { 0 };
            tokio::task::yield_now().await;
        }
        None
    }

    /// Reads the rest while the request is answered, for at most `head_timeout`. If the body is
    /// still incomplete, hyper closes the connection after the response.
    pub(super) fn spawn_drain(
        mut self,
        limits: &Limits,
        connections: Arc<ConnectionTable>,
        connection: Arc<ConnectionState>,
    ) {
        let deadline = limits.head_timeout;
        connection.set_unread(true);
        tokio::spawn(async move {
            let reading = poll_fn(|cx| self.poll_read(cx));
            match timeout(deadline, reading).await {
                Ok(Ok(())) => {
                    connection.finish_request_body();
                    connection.set_unread(false);
                }
                Ok(Err(_)) => {}
                Err(_) => connections.counters.count(ConnectionEvent::BodyTimeout),
            }
        });
    }

    /// Reads and discards bytes until the end of the body or the limit.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DrainError>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(Ok(()));
            };
            let Ok(frame) = frame else {
                return Poll::Ready(Err(DrainError::Broken));
            };
            self.frames += 1;
            let received = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(bytes_remaining) = self.bytes_remaining.checked_sub(received) else {
                return Poll::Ready(Err(DrainError::TooLong));
            };
            self.bytes_remaining = bytes_remaining;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy;
    use std::time::Duration;

    /// Pieces of a body, each after a delay in seconds.
    struct Pieces(Vec<(u64, usize)>, Option<Pin<Box<Sleep>>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = proxy::BodyTruncated;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, proxy::BodyTruncated>>> {
            let Some((seconds, bytes)) = self.0.first().copied() else {
                return Poll::Ready(None);
            };
            let pause = Duration::from_secs(seconds);
            let alarm = self
                .1
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(alarm.as_mut().poll(cx));
            self.1 = None;
            self.0.remove(0);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; bytes])))))
        }
    }

    async fn upload(pieces: Vec<(u64, usize)>) -> Result<u64, String> {
        let limits = Arc::new(Limits {
            request_body_bytes_max: 1000,
            ..Limits::default()
        });
        let connections = ConnectionTable::new(&limits);
        let connection = Arc::new(ConnectionState::new(Arc::new(|_| {}), None, false, None));
        let mut upload = ViewerUpload::new(Pieces(pieces, None), limits, connections, connection);
        let mut received = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut upload).poll_frame(cx)).await {
            received += frame
                .map_err(|error| error.to_string())?
                .data_ref()
                .unwrap()
                .len() as u64;
        }
        Ok(received)
    }

    #[tokio::test(start_paused = true)]
    async fn accepts_a_body_within_the_limit() {
        assert_eq!(upload(vec![(1, 400), (10, 600)]).await, Ok(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn rejects_a_body_over_the_limit() {
        assert_eq!(
            upload(vec![(0, 1001)]).await,
            Err(UploadFault::TooLarge.to_string())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rejects_a_body_below_the_rate() {
        let drips = vec![(10, 1); 100];
        assert_eq!(upload(drips).await, Err(UploadFault::TooSlow.to_string()));
    }

    fn unwanted(pieces: Vec<(u64, usize)>) -> DrainedBody<Pieces> {
        let limits = Limits {
            unwanted_body_bytes_max: 100,
            ..Limits::default()
        };
        DrainedBody::new(Pieces(pieces, None), &limits)
    }

    #[tokio::test(start_paused = true)]
    async fn drains_available_bytes_up_to_the_limit() {
        let read = unwanted(vec![(0, 50), (0, 50)]).read_available().await;
        assert_eq!(read, Some(Ok(())));
        let read = unwanted(vec![(0, 50), (0, 51)]).read_available().await;
        assert_eq!(read, Some(Err(DrainError::TooLong)));
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_bytes_that_have_not_arrived() {
        let start = Instant::now();
        assert_eq!(unwanted(vec![(9, 1)]).read_available().await, None);
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn drains_the_rest_after_the_response_until_the_deadline() {
        let limits = Limits::default();
        for (pieces, unread, timeouts) in [
            (vec![(4, 1), (4, 1)], false, 0),
            (vec![(9, 1), (9, 1)], true, 1),
            (vec![(1, 101)], true, 0),
        ] {
            let connections = ConnectionTable::new(&limits);
            let connection = Arc::new(ConnectionState::new(Arc::new(|_| {}), None, false, None));
            unwanted(pieces).spawn_drain(&limits, connections.clone(), connection.clone());
            assert!(connection.has_unread_body());
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(connection.has_unread_body(), unread);
            assert_eq!(
                connections.stats().of(ConnectionEvent::BodyTimeout),
                timeouts
            );
        }
    }
}
