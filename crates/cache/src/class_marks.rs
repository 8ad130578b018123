//! Remembers which classes of clients have got an object, to tell what they share.

use std::sync::atomic::{AtomicU16, Ordering};

/// Classes of clients, by their numbers. Two bytes for each object are all there is room for: two
/// classes whose numbers differ by 16 count as one.
#[derive(Debug, Default)]
pub struct ClassMarks(AtomicU16);

impl ClassMarks {
    /// Marks a class. Whether it was not marked before, and others were. Writes only the first
    /// time: all workers share the object.
    pub fn mark(&self, class: usize) -> bool {
        let mark = 1 << (class % 16);
        if self.0.load(Ordering::Relaxed) & mark != 0 {
            return false;
        }
        let before = self.0.fetch_or(mark, Ordering::Relaxed);
        before & mark == 0 && before != 0
    }

    pub(super) fn mark_all(&self, others: &ClassMarks) {
        self.0
            .fetch_or(others.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Clone for ClassMarks {
    fn clone(&self) -> ClassMarks {
        ClassMarks(AtomicU16::new(self.0.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_shares_what_another_one_got_before_it_once() {
        let marks = ClassMarks::default();
        assert!(!marks.mark(3), "the first class");
        assert!(!marks.mark(3));
        assert!(marks.mark(0));
        assert!(!marks.mark(0));
        assert!(!marks.mark(3));
        assert!(marks.mark(15));
    }
}
