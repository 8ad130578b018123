//! The number of a live stream, by which requests for its objects are counted.

use std::num::NonZeroU16;

/// Streams that have a number at once.
pub const STREAMS_MAX: u16 = 1024;

/// One of [`STREAMS_MAX`] numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamNumber(NonZeroU16);

impl StreamNumber {
    /// The number with this index. `None`: there is no such index.
    pub fn of_index(index: u16) -> Option<StreamNumber> {
        let number = NonZeroU16::new(index.checked_add(1)?)?;
        (index < STREAMS_MAX).then_some(StreamNumber(number))
    }

    /// Its index: below [`STREAMS_MAX`].
    pub fn index(self) -> u16 {
        self.0.get() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_an_index_below_the_maximum() {
        let indexes = [0, 1, STREAMS_MAX - 1, STREAMS_MAX, u16::MAX];
        let numbers = indexes.map(|index| StreamNumber::of_index(index).map(StreamNumber::index));
        assert_eq!(
            numbers,
            [Some(0), Some(1), Some(STREAMS_MAX - 1), None, None]
        );
    }
}
