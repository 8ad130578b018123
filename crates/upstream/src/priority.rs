//! Priorities of requests in the queue before an origin. Callers choose the priority.

/// Defines the priorities in order, and everything that lists them: one line each below.
macro_rules! priorities {
    ($($(#[$meaning:meta])+ $name:ident = $word:literal,)+) => {
        /// Order of requests in the queue before an origin: lower values first. Also a metric
        /// label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Priority {
            $($(#[$meaning])+ $name,)+
        }

        impl Priority {
            /// Number of priorities.
            pub const COUNT: usize = [$($word),+].len();

            /// Every priority, in the order of [`Priority::index`], highest first.
            pub const ALL: [Priority; Priority::COUNT] = [$(Priority::$name),+];

            /// The metric label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Priority::$name => $word,)+
                }
            }
        }
    };
}

priorities! {
    /// A manifest: small, and players stop without it.
    Manifest = "manifest",
    /// A segment at the live edge: many viewers wait for it at once, with no buffer beyond it.
    Edge = "edge",
    /// A segment, and everything else that a viewer waits for.
    Segment = "segment",
    /// A request that no viewer waits for, such as a background refresh.
    Refresh = "refresh",
    /// A prefetch: no viewer has requested it yet, and one soon will.
    Prefetch = "prefetch",
}

impl Priority {
    /// A dense index for tables.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_puts_manifests_first_and_prefetch_last() {
        assert!(Priority::Manifest < Priority::Edge && Priority::Edge < Priority::Segment);
        assert!(
            Priority::Manifest < Priority::Segment
                && Priority::Segment < Priority::Refresh
                && Priority::Refresh < Priority::Prefetch
        );
        assert!(Priority::ALL.is_sorted());
        for (at, priority) in Priority::ALL.into_iter().enumerate() {
            assert_eq!(priority.index(), at);
            let same = Priority::ALL
                .iter()
                .filter(|r| r.as_str() == priority.as_str());
            assert_eq!(same.count(), 1);
        }
    }
}
