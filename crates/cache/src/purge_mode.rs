//! What a purge does with the objects that it selects.

/// What a purge does with the objects that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeMode {
    /// Drops them.
    Hard,
    /// Makes them stale, and drops those that may not be served stale.
    Soft,
    /// Counts them and changes nothing.
    DryRun,
}

impl PurgeMode {
    /// All modes.
    pub const ALL: [PurgeMode; 3] = [PurgeMode::Hard, PurgeMode::Soft, PurgeMode::DryRun];

    /// Its name in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            PurgeMode::Hard => "hard",
            PurgeMode::Soft => "soft",
            PurgeMode::DryRun => "dry_run",
        }
    }
}
