//! Gives each class of clients a number for the life of the process, by which it is counted. A
//! reload changes the positions of classes; their counters must not change with them.

use std::sync::Arc;

use crate::telemetry::CLIENT_CLASSES_MAX;
use seawall_policy::{ClientClasses, OTHER_CLASS, OTHER_CLASS_INDEX};

/// The names of all classes that there have ever been; a name's position is its number.
#[derive(Clone, Default)]
pub(super) struct ClassSlots {
    names: Vec<Arc<str>>,
}

impl ClassSlots {
    /// Numbers these classes. Those for which there is no number left count as other clients.
    pub(super) fn assign(&mut self, classes: &mut ClientClasses) {
        for class in classes.iter_mut() {
            if self.names.is_empty() {
                self.names.push(OTHER_CLASS.into());
            }
            let known = self.names.iter().position(|name| *name == class.name);
            class.index = match known {
                Some(slot) => slot,
                None if self.names.len() < CLIENT_CLASSES_MAX => {
                    self.names.push(Arc::clone(&class.name));
                    self.names.len() - 1
                }
                None => {
                    tracing::warn!(
                        class = &*class.name,
                        "no counter is left for this client class: it counts as `{OTHER_CLASS}` \
                         until the next restart"
                    );
                    OTHER_CLASS_INDEX
                }
            };
        }
    }

    /// All names, in the order of their numbers. Empty: there was never a class.
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_policy::ClientClass;

    fn slots_of(slots: &mut ClassSlots, names: &[&str]) -> Vec<usize> {
        let classes = names.iter().map(|name| ClientClass::named(*name, 0));
        let mut classes = ClientClasses::of(classes.collect());
        slots.assign(&mut classes);
        classes.iter().map(|class| class.index).collect()
    }

    #[test]
    fn name_keeps_its_number_at_another_position_and_after_its_return() {
        let mut slots = ClassSlots::default();
        assert!(slots_of(&mut slots, &[]).is_empty() && slots.names().is_empty());
        assert_eq!(slots_of(&mut slots, &["a", "b"]), [1, 2]);
        assert_eq!(slots_of(&mut slots, &["new", "b"]), [3, 2]);
        assert_eq!(slots_of(&mut slots, &["a"]), [1]);
    }

    #[test]
    fn classes_without_a_number_count_as_others() {
        let mut slots = ClassSlots::default();
        let names: Vec<_> = (0..40).map(|number: usize| number.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let numbers = slots_of(&mut slots, &names);
        assert_eq!(
            (numbers[0], numbers[30], numbers[31], numbers[39]),
            (1, 31, 0, 0)
        );
        assert_eq!(slots.names().len(), CLIENT_CLASSES_MAX);
    }
}
