//! How much of a request's body is let in, and how long may it take?

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, timeout};

use super::Limits;
use super::gauge::Gauge;
use super::roll::Roll;
use super::stats::Event;
use super::watch::ring;
use crate::origin::UploadFault;

/// A request's body on its way to an origin. It has one deadline, which every byte that comes moves
/// on by what the byte may take at the minimum rate.
pub(super) struct Upload<B> {
    body: B,
    came: u64,
    start: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    limits: Arc<Limits>,
    roll: Arc<Roll>,
    gauge: Arc<Gauge>,
}

impl<B> Upload<B> {
    pub(super) fn new(
        body: B,
        limits: Arc<Limits>,
        roll: Arc<Roll>,
        gauge: Arc<Gauge>,
    ) -> Upload<B> {
        Upload {
            body,
            came: 0,
            start: Instant::now(),
            alarm: None,
            limits,
            roll,
            gauge,
        }
    }

    fn due(&self) -> Instant {
        self.start + self.limits.send_rate_window + self.limits.slice_time(self.came)
    }
}

impl<B> Body for Upload<B>
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
                return Poll::Ready(Some(Err(UploadFault::Broken.into())));
            }
            Poll::Ready(None) => {
                this.gauge.body_read();
                return Poll::Ready(None);
            }
            Poll::Pending => {
                let due = this.due();
                return ring(&mut this.alarm, due, cx).map(|()| {
                    this.roll.tally.count(Event::BodyTimeout);
                    this.gauge.leave_unread();
                    Some(Err(UploadFault::TooSlow.into()))
                });
            }
        };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        this.came += bytes;
        this.gauge.earn(bytes);
        if this.came > this.limits.request_body_bytes_max {
            this.gauge.leave_unread();
            return Poll::Ready(Some(Err(UploadFault::TooLarge.into())));
        }
        if this.body.is_end_stream() {
            this.gauge.body_read();
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

/// Reads and drops a body nobody wants, up to a bound and for so long as a head may take. `true` if
/// that was all of it, so that the next request can be read; else the connection must close.
pub(super) async fn discard<B>(mut body: B, limits: &Limits) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    let reading = async {
        let mut left = limits.drain_bytes_max;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return false };
            let came = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(came) else {
                return false;
            };
            left = rest;
        }
        true
    };
    timeout(limits.head_timeout, reading).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shield;
    use std::time::Duration;

    /// Pieces of a body, each after so many seconds.
    struct Pieces(Vec<(u64, usize)>, Option<Pin<Box<Sleep>>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = shield::Cut;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, shield::Cut>>> {
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
        let roll = Roll::new(&limits);
        let gauge = Arc::new(Gauge::new(Arc::new(|_| {}), None, false, None));
        let mut upload = Upload::new(Pieces(pieces, None), limits, roll, gauge);
        let mut came = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut upload).poll_frame(cx)).await {
            came += frame
                .map_err(|error| error.to_string())?
                .data_ref()
                .unwrap()
                .len() as u64;
        }
        Ok(came)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_within_bounds_passes() {
        assert_eq!(upload(vec![(1, 400), (10, 600)]).await, Ok(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_over_the_limit_fails() {
        assert_eq!(
            upload(vec![(0, 1001)]).await,
            Err(UploadFault::TooLarge.to_string())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_fails_however_often_it_drips() {
        let drips = vec![(10, 1); 100];
        assert_eq!(upload(drips).await, Err(UploadFault::TooSlow.to_string()));
    }

    #[tokio::test(start_paused = true)]
    async fn discarding_is_bounded_in_bytes_and_time() {
        let limits = Limits {
            drain_bytes_max: 100,
            ..Limits::default()
        };
        assert!(discard(Pieces(vec![(1, 50), (1, 50)], None), &limits).await);
        assert!(!discard(Pieces(vec![(0, 101)], None), &limits).await);
        assert!(!discard(Pieces(vec![(9, 1), (9, 1)], None), &limits).await);
    }
}
