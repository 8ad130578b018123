//! Which request goes to an origin first, when not all can go at once?
//!
//! Knows the order, not how a request comes to its place in it: that is the asker's to say.

/// Makes the ranks, in their order, and everything that lists them: a rank is one line below.
macro_rules! ranks {
    ($($(#[$meaning:meta])+ $rank:ident = $word:literal,)+) => {
        /// A request's place when not all can go at once: the lesser goes first. Also a metric
        /// label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rank {
            $($(#[$meaning])+ $rank,)+
        }

        impl Rank {
            /// How many there are.
            pub const COUNT: usize = [$($word),+].len();

            /// Every rank, in the order of [`Rank::index`]: first come those who go first.
            pub const ALL: [Rank; Rank::COUNT] = [$(Rank::$rank),+];

            /// The word used in metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Rank::$rank => $word,)+
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

impl Rank {
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
        assert!(Rank::Manifest < Rank::Edge && Rank::Edge < Rank::Segment);
        assert!(
            Rank::Manifest < Rank::Segment
                && Rank::Segment < Rank::Behind
                && Rank::Behind < Rank::Ahead
        );
        assert!(Rank::ALL.is_sorted());
        for (at, rank) in Rank::ALL.into_iter().enumerate() {
            assert_eq!(rank.index(), at);
            let same = Rank::ALL.iter().filter(|r| r.as_str() == rank.as_str());
            assert_eq!(same.count(), 1);
        }
    }
}
