//! Names the reasons for which viewers are not shown a manifest that an origin sent.

/// Why a manifest that an origin sent was not shown. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Empty, cut off, or no manifest.
    Broken,
    /// Behind what viewers have seen.
    Behind,
    /// Unchanged for long after it should have changed: shown, and another endpoint is asked.
    Stalled,
    /// In a content coding that is not read here: passed on unread, where no other endpoint has it in another.
    Coded,
}

impl Unfit {
    /// Every reason.
    pub const ALL: [Unfit; 4] = [Unfit::Broken, Unfit::Behind, Unfit::Stalled, Unfit::Coded];

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Unfit::Broken => "broken",
            Unfit::Behind => "behind",
            Unfit::Stalled => "stalled",
            Unfit::Coded => "coded",
        }
    }
}
