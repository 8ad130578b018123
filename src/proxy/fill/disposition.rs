//! Decides what happens to a manifest that has arrived. Pure: knows no cache, no origin and no
//! clock. `publish.rs` collects the facts and applies the decision.

use std::sync::Arc;
use std::time::Duration;

use seawall_cache::Object;
use seawall_policy::Lifetime;
use seawall_policy::lifetime::{StorageDecision, UncacheableReason};
use seawall_policy::progress::Progress;

/// What the decision depends on.
pub(super) struct UpdateFacts {
    /// The version's position relative to the newest one that viewers have seen.
    pub(super) progress: Progress,
    /// What the caching rules say of the response.
    pub(super) storage: StorageDecision,
    /// The text was parsed; if false, its content coding is not supported.
    pub(super) is_readable: bool,
    /// The stored version, if it is the newest that viewers have seen. Needed only of a version
    /// that is behind.
    pub(super) newest_stored: Option<Arc<Object>>,
}

/// What to do with the manifest.
#[derive(Debug)]
pub(super) enum Disposition {
    /// Store it for this time, and serve it to all followers.
    Store(Lifetime),
    /// End the fill without storing it.
    Settle(Settlement),
}

/// How a fill ends whose manifest is not stored.
#[derive(Debug)]
pub(super) enum Settlement {
    /// The manifest is behind this stored version: followers get that one, as if the origin had
    /// just confirmed it.
    ConfirmStored(Arc<Object>),
    /// It is behind, and nothing newer is stored any more: the current followers get it, and later
    /// viewers do not.
    ServeOnce,
    /// It is for one viewer alone.
    PassOn(UncacheableReason),
    /// It cannot be parsed, so no tracker could refresh it.
    PassOnUnread,
    /// The response makes no sense.
    Fail,
}

/// Decides about a manifest that has arrived.
pub(super) fn decide(facts: UpdateFacts) -> Disposition {
    if facts.progress == Progress::Behind {
        return Disposition::Settle(decide_behind(facts.newest_stored, &facts.storage));
    }
    match facts.storage {
        StorageDecision::Store(lifetime) if facts.is_readable => Disposition::Store(lifetime),
        StorageDecision::Store(_) => Disposition::Settle(Settlement::PassOnUnread),
        StorageDecision::Pass(reason) => Disposition::Settle(Settlement::PassOn(reason)),
        // These need a status other than 200.
        StorageDecision::Failure { .. }
        | StorageDecision::CacheableFailure(_)
        | StorageDecision::Gone
        | StorageDecision::Refused => Disposition::Settle(Settlement::Fail),
    }
}

/// Decides about a manifest that is behind what viewers have seen.
pub(super) fn decide_behind(
    newest_stored: Option<Arc<Object>>,
    storage: &StorageDecision,
) -> Settlement {
    match (newest_stored, storage) {
        (Some(newest), _) => Settlement::ConfirmStored(newest),
        (None, StorageDecision::Pass(reason)) => Settlement::PassOn(*reason),
        (None, _) => Settlement::ServeOnce,
    }
}

/// What the delay of a version's publication depends on.
pub(super) struct DelayFacts {
    pub(super) progress: Progress,
    /// A viewer may wait for this fill: it started it, or joined it. Not so a plain refresh, whose
    /// viewers get the stored version.
    pub(super) may_have_waiting_viewer: bool,
    /// How long the stored version before may still be served. `None`: there is none.
    pub(super) stored_remaining: Option<Duration>,
    /// The most that its reload interval permits. `None`: it has no tracker.
    pub(super) delay_max: Option<Duration>,
}

/// How long a version may be delayed until its new segments begin to arrive: only when no viewer
/// waits for it, the version before may still be served, and this one continues it.
pub(super) fn publication_delay(facts: &DelayFacts) -> Option<Duration> {
    if facts.may_have_waiting_viewer || facts.progress != Progress::Newer {
        return None;
    }
    Some(facts.delay_max?.min(facts.stored_remaining?))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::StatusCode;

    use super::*;

    fn stored_version() -> Arc<Object> {
        Arc::new(crate::proxy::rejections::own_error_object(
            StatusCode::OK,
            None,
        ))
    }

    #[test]
    fn decides_by_progress_then_by_storage() {
        let lifetime = Lifetime::none(Instant::now());
        let store = || StorageDecision::Store(lifetime.clone());
        let pass = || StorageDecision::Pass(UncacheableReason::Private);
        let failure = || StorageDecision::Failure {
            retry_after: None,
            is_shareable: false,
        };
        // Progress, storage, readable, the newest version is stored → result.
        let table = [
            (Progress::Newer, store(), true, false, "store"),
            (Progress::Same, store(), true, false, "store"),
            (Progress::Restarted, store(), true, false, "store"),
            (Progress::Newer, store(), false, false, "pass on unread"),
            (Progress::Newer, pass(), true, false, "pass on"),
            (Progress::Restarted, pass(), false, false, "pass on"),
            (Progress::Newer, failure(), true, false, "fail"),
            (Progress::Same, StorageDecision::Gone, true, false, "fail"),
            (
                Progress::Same,
                StorageDecision::Refused,
                true,
                false,
                "fail",
            ),
            (Progress::Behind, store(), true, true, "confirm stored"),
            (Progress::Behind, pass(), true, true, "confirm stored"),
            (Progress::Behind, failure(), true, true, "confirm stored"),
            (Progress::Behind, store(), true, false, "serve once"),
            (Progress::Behind, store(), false, false, "serve once"),
            (Progress::Behind, failure(), true, false, "serve once"),
            (Progress::Behind, pass(), true, false, "pass on"),
        ];
        for (progress, storage, is_readable, is_stored, expected) in table {
            let case = format!("{progress:?} {storage:?} {is_readable} {is_stored}");
            let decided = decide(UpdateFacts {
                progress,
                storage,
                is_readable,
                newest_stored: is_stored.then(stored_version),
            });
            let decided = match decided {
                Disposition::Store(_) => "store",
                Disposition::Settle(Settlement::ConfirmStored(_)) => "confirm stored",
                Disposition::Settle(Settlement::ServeOnce) => "serve once",
                Disposition::Settle(Settlement::PassOn(_)) => "pass on",
                Disposition::Settle(Settlement::PassOnUnread) => "pass on unread",
                Disposition::Settle(Settlement::Fail) => "fail",
            };
            assert_eq!(decided, expected, "{case}");
        }
    }

    #[test]
    fn delays_a_version_only_where_no_viewer_notices() {
        let millis = |number| Some(Duration::from_millis(number));
        // Progress, a viewer may wait, time left of the version before, the most → delayed for.
        let table = [
            (
                Progress::Newer,
                false,
                millis(900),
                millis(200),
                millis(200),
            ),
            (Progress::Newer, false, millis(50), millis(200), millis(50)),
            (Progress::Newer, true, millis(900), millis(200), None),
            (Progress::Newer, false, None, millis(200), None),
            (Progress::Newer, false, millis(900), None, None),
            (Progress::Same, false, millis(900), millis(200), None),
            (Progress::Restarted, false, millis(900), millis(200), None),
        ];
        for (progress, may_have_waiting_viewer, stored_remaining, delay_max, expected) in table {
            let facts = DelayFacts {
                progress,
                may_have_waiting_viewer,
                stored_remaining,
                delay_max,
            };
            let case = format!(
                "{progress:?} {may_have_waiting_viewer} {stored_remaining:?} {delay_max:?}"
            );
            assert_eq!(publication_delay(&facts), expected, "{case}");
        }
    }
}
