//! Counts what each class of clients costs origins, and what it shares with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use parking_lot::Mutex;

use crate::telemetry::CLIENT_CLASSES_MAX;
use seawall_policy::{ClientClass, ClientClasses, OTHER_CLASS, OTHER_CLASS_INDEX};
use seawall_upstream::CauseCounters;

/// The word for what no client waits for: refreshes and prefetches.
const BACKGROUND: &str = "background";

/// Counters of a class of clients.
#[derive(Clone, Debug)]
pub struct ClassStats {
    /// Its name.
    pub name: Arc<str>,
    /// Requests to origins that it caused.
    pub origin_requests: u64,
    /// Bytes of their bodies.
    pub origin_bytes: u64,
    /// Requests for what another class had got before. `None`: not counted for what no client
    /// waits for.
    pub collapsed: Option<u64>,
    /// Its requests that were refused, in the order of [`RefusedStatus::ALL`]. `None`: no client
    /// waits for these.
    pub refused: Option<[u64; RefusedStatus::ALL.len()]>,
}

/// The status of a request that is refused because of who sends it: also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedStatus {
    /// 403: an access rule.
    Denied,
    /// 429: a rate limit.
    RateLimited,
}

impl RefusedStatus {
    /// All of them.
    pub const ALL: [RefusedStatus; 2] = [RefusedStatus::Denied, RefusedStatus::RateLimited];

    fn of(status: StatusCode) -> Option<RefusedStatus> {
        match status {
            StatusCode::FORBIDDEN => Some(RefusedStatus::Denied),
            StatusCode::TOO_MANY_REQUESTS => Some(RefusedStatus::RateLimited),
            _ => None,
        }
    }

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusedStatus::Denied => "403",
            RefusedStatus::RateLimited => "429",
        }
    }
}

#[derive(Default)]
struct OneClass {
    cause: Arc<CauseCounters>,
    collapsed: AtomicU64,
    refused: [AtomicU64; RefusedStatus::ALL.len()],
}

/// The counters of all classes. They outlive reloads.
#[derive(Default)]
pub(super) struct ClassCounters {
    classes: [OneClass; CLIENT_CLASSES_MAX],
    background: Arc<CauseCounters>,
    /// By the index of the class. Empty: there are no classes.
    names: Mutex<Vec<Option<Arc<str>>>>,
}

impl ClassCounters {
    /// Names the classes that there are from now on. Those of before keep their counters.
    pub(super) fn set_classes(&self, classes: &ClientClasses) {
        let mut names = self.names.lock();
        let mut set_name = |index: usize, name: &Arc<str>| {
            if names.len() <= index {
                names.resize(index + 1, None);
            }
            names[index] = Some(Arc::clone(name));
        };
        for class in classes
            .iter()
            .filter(|class| class.index != OTHER_CLASS_INDEX)
        {
            set_name(class.index, &class.name);
            set_name(OTHER_CLASS_INDEX, &OTHER_CLASS.into());
        }
    }

    /// Where the requests to origins are counted that are sent on behalf of a client.
    pub(super) fn cause(&self, class: Option<&Arc<ClientClass>>) -> Arc<CauseCounters> {
        let cause = class.map(|class| &self.of(class).cause);
        Arc::clone(cause.unwrap_or(&self.background))
    }

    /// Counts a request for what another class had got before.
    pub(super) fn count_collapsed(&self, class: &ClientClass) {
        self.of(class).collapsed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was refused with this status.
    pub(super) fn count_refused(&self, class: &ClientClass, status: StatusCode) {
        if let Some(status) = RefusedStatus::of(status) {
            let refused = &self.of(class).refused[status as usize];
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn of(&self, class: &ClientClass) -> &OneClass {
        &self.classes[class.index % CLIENT_CLASSES_MAX]
    }

    /// The counters of all classes that there have been; none if there were none.
    pub(super) fn stats(&self) -> Vec<ClassStats> {
        let names = self.names.lock().clone();
        let of = |name: Arc<str>, cause: &CauseCounters| ClassStats {
            name,
            origin_requests: cause.requests(),
            origin_bytes: cause.bytes(),
            collapsed: None,
            refused: None,
        };
        let has_classes = !names.is_empty();
        let classes = names.into_iter().zip(&self.classes);
        let named = classes.filter_map(|(name, class)| {
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            Some(ClassStats {
                collapsed: Some(count(&class.collapsed)),
                refused: Some(class.refused.each_ref().map(count)),
                ..of(name?, &class.cause)
            })
        });
        let background = || of(BACKGROUND.into(), &self.background);
        named.chain(has_classes.then(background)).collect()
    }
}
