//! Runs work that may take long outside the worker threads, with a limit on concurrency.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// A text up to this size is parsed in place: that is faster than a change of thread.
const SHORT_BYTES_MAX: usize = 32 << 10;
/// Maximum longer texts parsed at once.
const AT_ONCE_MAX: usize = 2;
/// Work that has not started after this time is dropped.
const WAIT_MAX: Duration = Duration::from_secs(10);

static PERMITS: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

/// How long work may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkSize {
    /// Short enough for a worker thread.
    Short,
    /// Up to about 0.1 s.
    Long,
}

impl WorkSize {
    /// The size of parsing a text. The decoded size of a coded text is unknown.
    pub(super) fn of(bytes: usize, is_coded: bool) -> WorkSize {
        if bytes <= SHORT_BYTES_MAX && !is_coded {
            WorkSize::Short
        } else {
            WorkSize::Long
        }
    }

    /// Runs the work. `None`: it did not start in time, or it panicked.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self == WorkSize::Short {
            return Some(work());
        }
        let permit = timeout(WAIT_MAX, PERMITS.acquire()).await.ok()?.ok()?;
        let done = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_work_runs_on_another_thread_and_short_work_does_not() {
        let here = std::thread::current().id();
        let at = |size: WorkSize| size.run(|| std::thread::current().id());
        let (small, large) = (SHORT_BYTES_MAX, SHORT_BYTES_MAX + 1);
        assert_eq!(at(WorkSize::of(small, false)).await, Some(here));
        assert_ne!(at(WorkSize::of(large, false)).await, Some(here));
        assert_ne!(at(WorkSize::of(1, true)).await, Some(here));
    }

    #[tokio::test]
    async fn panicking_work_returns_none() {
        let broken = WorkSize::Long.run(|| panic!("on purpose")).await;
        assert_eq!(broken, None::<()>);
    }
}
