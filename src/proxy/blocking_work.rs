//! Where does work run that may take long? Not on the threads that serve viewers, and only so much of it at
//! once.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Texts up to this size are read where they come in: that takes less time than to hand them over.
const SHORT_BYTES_MAX: usize = 32 << 10;
/// So many longer ones are read at once.
const AT_ONCE_MAX: usize = 2;
/// Who has no turn by then has none.
const WAIT_MAX: Duration = Duration::from_secs(10);

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

/// How long some work takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkSize {
    /// No time that anybody would notice.
    Short,
    /// Perhaps a tenth of a second.
    Long,
}

impl WorkSize {
    /// That of reading a text. How long one is that comes in a coding, nobody knows.
    pub(super) fn of(bytes: usize, is_coded: bool) -> WorkSize {
        if bytes <= SHORT_BYTES_MAX && !is_coded {
            WorkSize::Short
        } else {
            WorkSize::Long
        }
    }

    /// Does it. `None`: it had no turn in time, or broke.
    pub(super) async fn put_in<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self == WorkSize::Short {
            return Some(work());
        }
        let turn = timeout(WAIT_MAX, TURNS.acquire()).await.ok()?.ok()?;
        let done = spawn_blocking(move || {
            let _turn = turn;
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
        let at = |effort: WorkSize| effort.put_in(|| std::thread::current().id());
        let (small, large) = (SHORT_BYTES_MAX, SHORT_BYTES_MAX + 1);
        assert_eq!(at(WorkSize::of(small, false)).await, Some(here));
        assert_ne!(at(WorkSize::of(large, false)).await, Some(here));
        assert_ne!(at(WorkSize::of(1, true)).await, Some(here));
    }

    #[tokio::test]
    async fn work_that_breaks_is_no_work() {
        let broken = WorkSize::Long.put_in(|| panic!("on purpose")).await;
        assert_eq!(broken, None::<()>);
    }
}
