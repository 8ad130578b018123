//! Gives each class of clients a number for the life of the process, by which it is counted. A
//! reload changes the positions of classes; their counters must not change with them.

use std::sync::Arc;

use crate::telemetry::CLIENT_CLASSES_MAX;
use seawall_policy::{ClientClasses, OTHER_CLASS};

/// The names of all classes that there have ever been; a name's position is its number.
#[derive(Clone, Default)]
pub(super) struct ClassSlots {
    names: Vec<Arc<str>>,
}

impl ClassSlots {
    /// Numbers these classes. Fails if no number is left for one of them: it would have neither
    /// counters nor a quota of its own.
    pub(super) fn assign(&mut self, classes: &mut ClientClasses) -> anyhow::Result<()> {
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
                None => anyhow::bail!(
                    "[[client_class]] `{}`: {} names of classes have been counted since the start, \
                     those of removed classes included, and there are no counters for another: use \
                     a name that a removed class had, or restart or upgrade the server",
                    class.name,
                    CLIENT_CLASSES_MAX - 1
                ),
            };
        }
        Ok(())
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

    fn slots_of(slots: &mut ClassSlots, names: &[&str]) -> anyhow::Result<Vec<usize>> {
        let classes = names.iter().map(|name| ClientClass::named(*name, 0));
        let mut classes = ClientClasses::of(classes.collect());
        slots.assign(&mut classes)?;
        Ok(classes.iter().map(|class| class.index).collect())
    }

    #[test]
    fn name_keeps_its_number_at_another_position_and_after_its_return() {
        let mut slots = ClassSlots::default();
        assert!(slots_of(&mut slots, &[]).unwrap().is_empty() && slots.names().is_empty());
        assert_eq!(slots_of(&mut slots, &["a", "b"]).unwrap(), [1, 2]);
        assert_eq!(slots_of(&mut slots, &["new", "b"]).unwrap(), [3, 2]);
        assert_eq!(slots_of(&mut slots, &["a"]).unwrap(), [1]);
    }

    #[test]
    fn class_without_a_number_is_refused() {
        let mut slots = ClassSlots::default();
        let names: Vec<_> = (0..32).map(|number: usize| number.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let numbers = slots_of(&mut slots, &names[..31]).unwrap();
        assert_eq!((numbers[0], numbers[30]), (1, 31));
        let refused = slots_of(&mut slots, &names[31..]).unwrap_err();
        assert!(refused.to_string().contains("`31`"), "{refused}");
        assert_eq!(slots_of(&mut slots, &names[30..31]).unwrap(), [31]);
        assert_eq!(slots.names().len(), CLIENT_CLASSES_MAX);
    }
}
