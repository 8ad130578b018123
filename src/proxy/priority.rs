//! Chooses the priority of an origin request, by its kind and by who waits.

use seawall_manifest::Kind;
use seawall_upstream::Priority;

/// A viewer waits. `is_new`: the object is new at the live edge.
pub(super) fn for_waiting_viewer(kind: Kind, is_new: impl FnOnce() -> bool) -> Priority {
    if kind.is_manifest() {
        Priority::Manifest
    } else if is_new() {
        Priority::Edge
    } else {
        Priority::Segment
    }
}

/// A background refresh. A manifest is urgent all the same: viewers see its age.
pub(super) fn for_refresh(kind: Kind) -> Priority {
    if kind.is_manifest() {
        Priority::Manifest
    } else {
        Priority::Refresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_get_first_and_other_refreshes_last_priority() {
        for kind in Kind::ALL {
            let priorities = (for_waiting_viewer(kind, || false), for_refresh(kind));
            let expected = match kind {
                Kind::Hls | Kind::Dash => (Priority::Manifest, Priority::Manifest),
                _ => (Priority::Segment, Priority::Refresh),
            };
            assert_eq!(priorities, expected, "{kind:?}");
            let new = for_waiting_viewer(kind, || true);
            assert!(new == Priority::Edge || new == Priority::Manifest && kind.is_manifest());
        }
    }
}
