//! Counts what each class of clients costs origins, and what it shares with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

#[derive(Default)]
struct OneClass {
    cause: Arc<CauseCounters>,
    collapsed: AtomicU64,
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

    fn of(&self, class: &ClientClass) -> &OneClass {
        &self.classes[class.index % CLIENT_CLASSES_MAX]
    }

    /// The counters of all classes that there have been; none if there were none.
    pub(super) fn stats(&self) -> Vec<ClassStats> {
        let names = self.names.lock().clone();
        let of = |name: Arc<str>, cause: &CauseCounters, collapsed| ClassStats {
            name,
            origin_requests: cause.requests(),
            origin_bytes: cause.bytes(),
            collapsed,
        };
        let has_classes = !names.is_empty();
        let classes = names.into_iter().zip(&self.classes);
        let named = classes.filter_map(|(name, class)| {
            let collapsed = class.collapsed.load(Ordering::Relaxed);
            Some(of(name?, &class.cause, Some(collapsed)))
        });
        let background = || of(BACKGROUND.into(), &self.background, None);
        named.chain(has_classes.then(background)).collect()
    }
}
