//! Which request goes to an origin first, when not all can go at once?
//!
//! Knows the order, not how a request comes to its place in it: that is the asker's to say.

/// Makes the ranks, in their order, and everything that lists them: a rank is one line below.
macro_rules! ranks {
    ($($(#[$meaning:meta])+ $rank:ident = $word:literal,)+) => {
        /// A request's place when not all can go at once: the lesser goes first. Also a metric
        /// label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Priority {
            $($(#[$meaning])+ $rank,)+
        }

        impl Priority {
            /// How many there are.
            pub const COUNT: usize = [$($word),+].len();

            /// Every rank, in the order of [`Priority::index`]: first come those who go first.
            pub const ALL: [Priority; Priority::COUNT] = [$(Priority::$rank),+];

            /// The word used in metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Priority::$rank => $word,)+
                }
            }
        }
    };
}

ranks! {
    /// A manifest: small, and players stop without it.
    Manifest = "manifest",
    /// A segment at the live edge: many wait for it at once, and none has a buffer beyond it.
    Edge = "edge",
    /// A segment, and everything else that a viewer waits for.
    Segment = "segment",
    /// What nobody waits for, such as a refresh behind a viewer who has been served.
    Behind = "behind",
    /// What nobody has asked for yet, and somebody soon will.
    Ahead = "ahead",
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
    fn manifests_go_first_and_what_nobody_waits_for_last() {
        assert!(Priority::Manifest < Priority::Edge && Priority::Edge < Priority::Segment);
        assert!(
            Priority::Manifest < Priority::Segment
                && Priority::Segment < Priority::Behind
                && Priority::Behind < Priority::Ahead
        );
        assert!(Priority::ALL.is_sorted());
        for (at, rank) in Priority::ALL.into_iter().enumerate() {
            assert_eq!(rank.index(), at);
            let same = Priority::ALL.iter().filter(|r| r.as_str() == rank.as_str());
            assert_eq!(same.count(), 1);
        }
    }
}
