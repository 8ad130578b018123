//! Whose request goes to the origin first? Told by what it asks for and by whether anybody waits.

use crate::manifest::Kind;
use crate::upstream::Priority;

/// A viewer waits for it; it is new at the live edge of a stream, or not.
pub(super) fn waited_for(kind: Kind, is_new: impl FnOnce() -> bool) -> Priority {
    if kind.is_manifest() {
        Priority::Manifest
    } else if is_new() {
        Priority::Edge
    } else {
        Priority::Segment
    }
}

/// It happens behind viewers who have been served something stale. A manifest is urgent all the
/// same: every viewer sees how old it is.
pub(super) fn behind(kind: Kind) -> Priority {
    if kind.is_manifest() {
        Priority::Manifest
    } else {
        Priority::Behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_always_first_and_other_refreshes_last() {
        for kind in Kind::ALL {
            let ranks = (waited_for(kind, || false), behind(kind));
            let expected = match kind {
                Kind::Hls | Kind::Dash => (Priority::Manifest, Priority::Manifest),
                _ => (Priority::Segment, Priority::Behind),
            };
            assert_eq!(ranks, expected, "{kind:?}");
            let new = waited_for(kind, || true);
            assert!(new == Priority::Edge || new == Priority::Manifest && kind.is_manifest());
        }
    }
}
