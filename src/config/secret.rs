//! Expands `${NAME}` inside strings from the environment.
//!
//! The result is a value and never part of a message: errors name variables, not their content.

use std::ops::Range;

/// The source of variables; a closure, so that tests need no process-wide state.
pub(super) type EnvironmentReader<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// The process's own environment.
pub(super) fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Why a string could not be expanded, and which part of it is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MissingReference {
    /// The reference, as a range of bytes of the string.
    pub(super) place: Range<usize>,
    /// Why.
    pub(super) why: MissingReason,
}

/// Why a reference cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MissingReason {
    /// No such variable, or not UTF-8.
    Missing(String),
    /// There, but empty.
    Empty(String),
    /// `${` without a proper name and `}`.
    Malformed,
}

/// Whether this text refers to a variable.
pub(super) fn has_reference(text: &str) -> bool {
    text.contains("${")
}

/// Expands every `${NAME}`; `$${` is a literal `${`.
pub(super) fn expand(
    text: &str,
    environment: &EnvironmentReader<'_>,
) -> Result<String, MissingReference> {
    let mut filled = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(found) = text[done..].find("${") {
        let start = done + found;
        if text[..start].ends_with('$') && start > done {
            filled.push_str(&text[done..start]);
            filled.push('{');
            done = start + 2;
            continue;
        }
        filled.push_str(&text[done..start]);
        let end = text[start..]
            .find('}')
            .map_or(text.len(), |length| start + length + 1);
        let gap = |why| MissingReference {
            place: start..end,
            why,
        };
        let name = text[start + 2..end]
            .strip_suffix('}')
            .filter(|name| is_variable(name));
        let name = name.ok_or_else(|| gap(MissingReason::Malformed))?;
        match environment(name) {
            Some(value) if !value.is_empty() => filled.push_str(&value),
            Some(_) => return Err(gap(MissingReason::Empty(name.to_owned()))),
            None => return Err(gap(MissingReason::Missing(name.to_owned()))),
        }
        done = end;
    }
    filled.push_str(&text[done..]);
    Ok(filled)
}

fn is_variable(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "TOKEN" => Some("s3cret".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn substitutes_variables() {
        let expand = |text| expand(text, &environment);
        assert_eq!(expand("Bearer ${TOKEN}!"), Ok("Bearer s3cret!".to_owned()));
        assert_eq!(expand("${TOKEN}${TOKEN}"), Ok("s3crets3cret".to_owned()));
        assert_eq!(expand("plain $5 {x}"), Ok("plain $5 {x}".to_owned()));
        assert_eq!(expand("as is: $${TOKEN}"), Ok("as is: ${TOKEN}".to_owned()));
    }

    #[test]
    fn names_the_missing_variable_and_its_location() {
        let gap = |text| expand(text, &environment).expect_err("a gap");
        let missing = gap("a ${NOPE} b");
        assert_eq!(
            missing,
            MissingReference {
                place: 2..9,
                why: MissingReason::Missing("NOPE".to_owned())
            }
        );
        assert_eq!(
            gap("${EMPTY}").why,
            MissingReason::Empty("EMPTY".to_owned())
        );
        assert_eq!(gap("${TOKEN").why, MissingReason::Malformed);
        assert_eq!(gap("${}").why, MissingReason::Malformed);
        assert_eq!(gap("${A B}").why, MissingReason::Malformed);
    }
}
