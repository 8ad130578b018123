//! Names the reasons for which a manifest from an origin is rejected.

/// Why a manifest from an origin was rejected: its endpoint is avoided for a time, and another one
/// is preferred. If no other endpoint has a better version, this one may be served all the same. A
/// metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// Empty, truncated, or not a manifest.
    Broken,
    /// Older than a version that viewers have seen, or a restart or an end that another endpoint
    /// contradicts.
    Behind,
    /// Unchanged for long after it should have changed: served, and another endpoint is
    /// requested.
    Stalled,
    /// In an unsupported content coding: forwarded without being parsed, if no other endpoint has
    /// another coding.
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

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RejectReason::Broken => "broken",
            RejectReason::Behind => "behind",
            RejectReason::Stalled => "stalled",
            RejectReason::Coded => "coded",
        }
    }
}
