//! Which endpoint is asked last for a manifest, since it gave something that is not for viewers?

use std::time::{Duration, Instant};

/// It is asked last for so many segments' time; for twice as long each time when it does so again
/// within as long …
const AVOIDED_SEGMENTS: u32 = 5;
/// … but no longer than this.
const AVOIDED_MAX: Duration = Duration::from_mins(10);

/// An endpoint that is asked last, until when and for how long.
pub(super) struct Avoided {
    endpoint: usize,
    until: Instant,
    span: Duration,
}

impl Avoided {
    /// It gave something unfit, now. True if that is news.
    pub(super) fn again(
        avoided: &mut Option<Avoided>,
        endpoint: usize,
        (segment, now): (Duration, Instant),
    ) -> bool {
        let least = segment * AVOIDED_SEGMENTS;
        let before = avoided.take().filter(|before| before.endpoint == endpoint);
        let is_news = before.as_ref().is_none_or(|before| now >= before.until);
        let span = before.map_or(least, |before| before.span_again(least, now));
        *avoided = Some(Avoided {
            endpoint,
            until: now + span,
            span,
        });
        is_news
    }

    pub(super) fn endpoint_at(&self, now: Instant) -> Option<usize> {
        (self.until > now).then_some(self.endpoint)
    }

    /// For how long it is asked last now, if no longer than the least has been given it.
    fn span_again(&self, least: Duration, now: Instant) -> Duration {
        if now < self.until {
            self.span
        } else if now < self.until + self.span {
            (self.span * 2).min(AVOIDED_MAX)
        } else {
            least
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_avoided_time_and_again_is_so_for_longer() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let avoided = |span| Avoided {
            endpoint: 0,
            until: now,
            span,
        };
        let again = |span, later| avoided(span).span_again(20 * second, now + later);
        assert_eq!(again(20 * second, second), 40 * second);
        assert_eq!(again(20 * second, 21 * second), 20 * second);
        assert_eq!(again(400 * second, second), AVOIDED_MAX);
        let meanwhile = Avoided {
            until: now + second,
            ..avoided(40 * second)
        };
        assert_eq!(meanwhile.span_again(20 * second, now), 40 * second);
    }
}
