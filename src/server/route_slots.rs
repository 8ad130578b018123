//! Gives each route a number for the life of the process, by which its requests are counted. A
//! reload changes the positions of routes; their counters must not change with them.

use std::sync::Arc;

use seawall_policy::Route;

/// The names of all routes that there have ever been; a name's position is its number.
#[derive(Clone, Default)]
pub(super) struct RouteSlots {
    names: Vec<Arc<str>>,
}

impl RouteSlots {
    /// Numbers these routes. Routes with one name, such as those that one table of the file
    /// becomes, get one number.
    pub(super) fn assign(&mut self, routes: &mut [Arc<Route>]) {
        for route in routes {
            let known = self.names.iter().position(|name| *name == route.name);
            let slot = known.unwrap_or(self.names.len());
            if known.is_none() {
                self.names.push(Arc::clone(&route.name));
            }
            Arc::make_mut(route).index = slot;
        }
    }

    /// All names, in the order of their numbers.
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(names: &[&str]) -> Vec<Arc<Route>> {
        let named = |name: &&str| {
            Arc::new(Route {
                name: (*name).into(),
                ..Route::everything("origin")
            })
        };
        names.iter().map(named).collect()
    }

    fn slots_of(slots: &mut RouteSlots, names: &[&str]) -> Vec<usize> {
        let mut routes = routes(names);
        slots.assign(&mut routes);
        routes.iter().map(|route| route.index).collect()
    }

    #[test]
    fn name_keeps_its_number_at_another_position() {
        let mut slots = RouteSlots::default();
        assert_eq!(slots_of(&mut slots, &["a", "b"]), [0, 1]);
        assert_eq!(slots_of(&mut slots, &["new", "b", "a"]), [2, 1, 0]);
    }

    #[test]
    fn removed_name_keeps_its_number_for_its_return() {
        let mut slots = RouteSlots::default();
        slots_of(&mut slots, &["a", "b"]);
        assert_eq!(slots_of(&mut slots, &["b"]), [1]);
        assert_eq!(slots_of(&mut slots, &["c", "a", "b"]), [2, 0, 1]);
        assert_eq!(slots.names().len(), 3);
    }

    #[test]
    fn one_table_in_several_positions_has_one_number() {
        let mut slots = RouteSlots::default();
        assert_eq!(slots_of(&mut slots, &["a", "b", "a"]), [0, 1, 0]);
    }
}
