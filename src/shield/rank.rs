//! Whose request goes to the origin first? Told by what it asks for and by whether anybody waits.

use crate::media::Kind;
use crate::origin::Rank;

/// A viewer waits for it; it is new at the live edge of a stream, or not.
pub(super) fn waited_for(kind: Kind, is_new: impl FnOnce() -> bool) -> Rank {
    if kind.is_manifest() {
        Rank::Manifest
    } else if is_new() {
        Rank::Edge
    } else {
        Rank::Segment
    }
}

/// It happens behind viewers who have been served something stale. A manifest is urgent all the
/// same: every viewer sees how old it is.
pub(super) fn behind(kind: Kind) -> Rank {
    if kind.is_manifest() {
        Rank::Manifest
    } else {
        Rank::Behind
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
                Kind::Hls | Kind::Dash => (Rank::Manifest, Rank::Manifest),
                _ => (Rank::Segment, Rank::Behind),
            };
            assert_eq!(ranks, expected, "{kind:?}");
            let new = waited_for(kind, || true);
            assert!(new == Rank::Edge || new == Rank::Manifest && kind.is_manifest());
        }
    }
}
