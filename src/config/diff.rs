//! Compares two configurations, key by key. Pure: knows neither files nor what a key means.
//!
//! Tables are matched by title and name, not by position: routes by `name`, origins by `name`,
//! their endpoints by URL, listeners by address, certificates by path.

use std::fmt;

use serde_json::{Value, json};

use super::written::{WrittenTable, WrittenValue};

/// One difference between two configurations. `Display` shows it in one line, without secrets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// The table in which it is.
    pub(crate) table: TablePath,
    /// What differs there.
    pub(crate) difference: Difference,
}

/// A table, and the tables that it is in: the outermost first, each with its title and its name if
/// it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TablePath(pub(super) Vec<(&'static str, Option<String>)>);

/// How a table differs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Difference {
    /// The table is new. Its keys follow as [`Difference::Set`].
    Added,
    /// The table is gone.
    Removed,
    /// A key of a new table, with a value that is not its default.
    Set {
        /// The key.
        key: String,
        /// Its value.
        value: WrittenValue,
    },
    /// A key has another value.
    Changed {
        /// The key.
        key: String,
        /// Its value before.
        before: WrittenValue,
        /// Its value after.
        after: WrittenValue,
    },
    /// Tables inside this one, whose order matters, stand in another order.
    Reordered {
        /// Their key.
        key: &'static str,
        /// Their names, in the order after.
        names: Vec<String>,
    },
}

/// All differences between two configurations, in the order of the reference.
pub(super) fn compare(before: &[WrittenTable], after: &[WrittenTable]) -> Vec<Change> {
    let mut changes = Vec::new();
    compare_tables(&TablePath::default(), before, after, &mut changes);
    changes
}

/// Compares the tables inside one table, those of one title after the other.
fn compare_tables(
    outer: &TablePath,
    before: &[WrittenTable],
    after: &[WrittenTable],
    changes: &mut Vec<Change>,
) {
    let mut titles: Vec<&'static str> = Vec::new();
    for table in before.iter().chain(after) {
        if !titles.contains(&table.title) {
            titles.push(table.title);
        }
    }
    for title in titles {
        let titled = |table: &&WrittenTable| table.title == title;
        let before: Vec<_> = before.iter().filter(titled).collect();
        let after: Vec<_> = after.iter().filter(titled).collect();
        compare_titled(outer, &before, &after, changes);
    }
}

/// Compares the tables of one title.
fn compare_titled(
    outer: &TablePath,
    before: &[&WrittenTable],
    after: &[&WrittenTable],
    changes: &mut Vec<Change>,
) {
    let mut unmatched: Vec<(usize, &WrittenTable)> = after.iter().copied().enumerate().collect();
    // The positions after: first of what was there before, in that order, then of what is new.
    let mut positions = Vec::new();
    for table in before {
        let path = outer.inner(table);
        match unmatched
            .iter()
            .position(|(_, other)| other.name == table.name)
        {
            Some(at) => {
                let (position, other) = unmatched.remove(at);
                positions.push(position);
                compare_keys(&path, table, other, changes);
                compare_tables(&path, &table.tables, &other.tables, changes);
            }
            None => changes.push(path.change(Difference::Removed)),
        }
    }
    for (position, table) in unmatched {
        positions.push(position);
        add_table(outer, table, changes);
    }
    if after.iter().any(|table| table.is_ordered) && !positions.is_sorted() {
        let names = after
            .iter()
            .filter_map(|table| table.name.clone())
            .collect();
        let key = after.first().map_or("", |table| table.title);
        changes.push(outer.change(Difference::Reordered { key, names }));
    }
}

fn compare_keys(
    path: &TablePath,
    before: &WrittenTable,
    after: &WrittenTable,
    changes: &mut Vec<Change>,
) {
    let was_there = |key: &str| before.keys.iter().any(|written| written.key == key);
    let added = after.keys.iter().filter(|written| !was_there(&written.key));
    for key in before.keys.iter().chain(added).map(|written| &written.key) {
        let (before, after) = (before.value(key), after.value(key));
        if before != after {
            changes.push(path.change(Difference::Changed {
                key: key.clone(),
                before: before.clone(),
                after: after.clone(),
            }));
        }
    }
}

/// Reports a new table and what it sets.
fn add_table(outer: &TablePath, table: &WrittenTable, changes: &mut Vec<Change>) {
    let path = outer.inner(table);
    changes.push(path.change(Difference::Added));
    for written in table.keys.iter().filter(|written| !written.is_default) {
        changes.push(path.change(Difference::Set {
            key: written.key.clone(),
            value: written.value.clone(),
        }));
    }
    for inner in &table.tables {
        add_table(&path, inner, changes);
    }
}

impl TablePath {
    fn inner(&self, table: &WrittenTable) -> TablePath {
        let mut path = self.clone();
        path.0.push((table.title, table.name.clone()));
        path
    }

    fn change(&self, difference: Difference) -> Change {
        Change {
            table: self.clone(),
            difference,
        }
    }

    /// What stands between this table and a key of it.
    fn separator(&self) -> &'static str {
        match &self.0[..] {
            [_] | [.., (_, Some(_))] => ": ",
            _ => ".",
        }
    }
}

impl fmt::Display for TablePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut outer = TablePath::default();
        for (title, name) in &self.0 {
            if !outer.0.is_empty() {
                f.write_str(outer.separator())?;
            }
            f.write_str(title)?;
            if let Some(name) = name {
                write!(f, " {}", Value::from(&**name))?;
            }
            outer.0.push((*title, name.clone()));
        }
        Ok(())
    }
}

impl Change {
    /// The change as JSON: the words of `Display`, one by one, without those that it does not have.
    /// A value is null where the key is not set.
    pub(crate) fn to_json(&self) -> Value {
        let table = self.table.to_string();
        match &self.difference {
            Difference::Added => json!({ "table": table, "difference": "added" }),
            Difference::Removed => json!({ "table": table, "difference": "removed" }),
            Difference::Set { key, value } => json!({
                "table": table,
                "difference": "set",
                "key": key,
                "after": value.to_json(),
            }),
            Difference::Changed { key, before, after } => json!({
                "table": table,
                "difference": "changed",
                "key": key,
                "before": before.to_json(),
                "after": after.to_json(),
            }),
            Difference::Reordered { key, names } => json!({
                "table": table,
                "difference": "reordered",
                "key": key,
                "after": names,
            }),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, separator) = (&self.table, self.table.separator());
        match &self.difference {
            Difference::Added => write!(f, "{table} added"),
            Difference::Removed => write!(f, "{table} removed"),
            Difference::Set { key, value } => write!(f, "{table}{separator}{key} = {value}"),
            Difference::Changed {
                key,
                before: WrittenValue::Secret(_),
                after: WrittenValue::Secret(_),
            } => write!(f, "{table}{separator}{key} changed"),
            Difference::Changed { key, before, after } => {
                write!(f, "{table}{separator}{key} {before} → {after}")
            }
            Difference::Reordered { key, names } => {
                let names = json!(names);
                let names = WrittenValue::Plain(names);
                write!(f, "{table}{separator}{key} in another order: {names}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
