//! Numbers streams, so that a hit is counted for its stream by an index.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use seawall_policy::{STREAMS_MAX, StreamNumber};

/// The numbers that no stream has. The one that has been free longest is given next: what is still
/// stored of an ended stream counts for another one only after all others have been given.
pub(super) struct StreamNumbers(Mutex<VecDeque<StreamNumber>>);

/// The number of one stream, as long as it lives. By default it has none.
#[derive(Default)]
pub(super) struct OwnNumber(Option<(StreamNumber, Arc<StreamNumbers>)>);

impl Default for StreamNumbers {
    fn default() -> StreamNumbers {
        let all = (0..STREAMS_MAX).filter_map(StreamNumber::of_index);
        StreamNumbers(Mutex::new(all.collect()))
    }
}

impl OwnNumber {
    /// None if all are taken.
    pub(super) fn next(numbers: &Arc<StreamNumbers>) -> OwnNumber {
        let number = numbers.0.lock().pop_front();
        OwnNumber(number.map(|number| (number, Arc::clone(numbers))))
    }

    pub(super) fn get(&self) -> Option<StreamNumber> {
        self.0.as_ref().map(|(number, _)| *number)
    }
}

impl Drop for OwnNumber {
    fn drop(&mut self) {
        if let Some((number, numbers)) = &self.0 {
            numbers.0.lock().push_back(*number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_number_that_has_been_free_longest() {
        let numbers = Arc::default();
        let index = |own: &OwnNumber| own.get().map(StreamNumber::index);
        let (first, second) = (OwnNumber::next(&numbers), OwnNumber::next(&numbers));
        assert_eq!((index(&first), index(&second)), (Some(0), Some(1)));
        drop(first);
        let others: Vec<_> = (2..STREAMS_MAX)
            .map(|_| OwnNumber::next(&numbers))
            .collect();
        assert_eq!(index(&others[0]), Some(2));
        let last = OwnNumber::next(&numbers);
        assert_eq!(index(&last), Some(0));
        assert_eq!(index(&OwnNumber::next(&numbers)), None, "all are taken");
        drop(last);
        assert_eq!(index(&OwnNumber::next(&numbers)), Some(0));
    }
}
