//! Names the reasons for which viewers are not shown a manifest that an origin sent.

/// Why a manifest that an origin sent was not shown. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// Empty, cut off, or no manifest.
    Broken,
    /// Behind what viewers have seen.
    Behind,
    /// Unchanged for long after it should have changed: shown, and another endpoint is asked.
    Stalled,
    /// In a content coding that is not read here: passed on unread, where no other endpoint has it in another.
    Coded,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [RejectReason; 4] = [
        RejectReason::Broken,
        RejectReason::Behind,
        RejectReason::Stalled,
        RejectReason::Coded,
    ];

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RejectReason::Broken => "broken",
            RejectReason::Behind => "behind",
            RejectReason::Stalled => "stalled",
            RejectReason::Coded => "coded",
        }
    }
}
