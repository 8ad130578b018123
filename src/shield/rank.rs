//! Whose request goes to the origin first? Told by what it asks for and by whether anybody waits.

use crate::media::Kind;
use crate::origin::Rank;

/// A viewer waits for it.
pub(super) fn waited_for(kind: Kind) -> Rank {
    if kind.is_manifest() {
        Rank::Manifest
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
            let ranks = (waited_for(kind), behind(kind));
            let expected = match kind {
                Kind::Hls | Kind::Dash => (Rank::Manifest, Rank::Manifest),
                _ => (Rank::Segment, Rank::Behind),
            };
            assert_eq!(ranks, expected, "{kind:?}");
        }
    }
}
