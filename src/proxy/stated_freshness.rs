//! The freshness that a response states to downstream caches, where that is not the origin's.

use std::time::{Duration, Instant};

use http::HeaderMap;

use seawall_cache::StoredHead;
use seawall_policy::freshness::{
    FRESHNESS_READ, past_second, restated, seconds_unchanged_for, used_up,
};
use seawall_policy::lifetime::Rule;

/// The freshness stated in place of the origin's, if it is another one.
pub(super) fn changed_freshness(head: &StoredHead, now: Instant) -> Option<HeaderMap> {
    let age = head.lifetime.age(now).as_secs();
    if head.lifetime.rule == Rule::SoftPurge {
        return Some(used_up(&head.headers.only(&FRESHNESS_READ), age));
    }
    let until_poll = time_until_stated_poll(head, now)?;
    // Caches count whole seconds.
    let seconds = until_poll.as_secs().max(1);
    restated(&head.headers.only(&FRESHNESS_READ), age, seconds)
}

/// Time for which downstream caches may keep a manifest whose stated freshness is over, but which
/// the refresher keeps current: the time to the next poll, at most the origin's lifetime.
fn time_until_stated_poll(head: &StoredHead, now: Instant) -> Option<Duration> {
    let access_tracker = head.access_tracker.as_ref()?;
    let lifetime = &head.lifetime;
    // Avoids reading the headers of every hit: objects fresh by fields that downstream caches see
    // too are skipped.
    let may_be_used_up = lifetime.age(now).as_secs() >= lifetime.fresh_for.as_secs()
        || lifetime.rule == Rule::Override
        || head.targeted.is_some();
    let is_due = may_be_used_up
        && lifetime.rule != Rule::SoftPurge
        && access_tracker.has_refresher()
        && head.restates_freshness();
    is_due.then(|| access_tracker.time_until_poll(now).min(lifetime.fresh_for))
}

/// How long the fields of a response that state whole seconds stay the same.
pub(super) fn fields_unchanged_for(head: &StoredHead, now: Instant) -> Duration {
    // A poll that is due within a second is stated as due in one second, until it is due.
    let until_poll = time_until_stated_poll(head, now)
        .filter(|until_poll| until_poll.as_secs() > 0)
        .map_or(Duration::MAX, past_second);
    seconds_unchanged_for(&head.lifetime, now).min(until_poll)
}
