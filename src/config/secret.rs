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
    pub(super) span: Range<usize>,
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
    let mut expanded = String::with_capacity(text.len());
    let mut expanded_to = 0;
    while let Some(offset) = text[expanded_to..].find("${") {
        let start = expanded_to + offset;
        if text[..start].ends_with('$') && start > expanded_to {
            expanded.push_str(&text[expanded_to..start]);
            expanded.push('{');
            expanded_to = start + 2;
            continue;
        }
        expanded.push_str(&text[expanded_to..start]);
        let end = text[start..]
            .find('}')
            .map_or(text.len(), |length| start + length + 1);
        let missing = |why| MissingReference {
            span: start..end,
            why,
        };
        let name = text[start + 2..end]
            .strip_suffix('}')
            .filter(|name| is_variable(name));
        let name = name.ok_or_else(|| missing(MissingReason::Malformed))?;
        match environment(name) {
            Some(value) if !value.is_empty() => expanded.push_str(&value),
            Some(_) => return Err(missing(MissingReason::Empty(name.to_owned()))),
            None => return Err(missing(MissingReason::Missing(name.to_owned()))),
        }
        expanded_to = end;
    }
    expanded.push_str(&text[expanded_to..]);
    Ok(expanded)
}

fn is_variable(name: &str) -> bool {
    let has_valid_start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    has_valid_start && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
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
        let missing_in = |text| expand(text, &environment).expect_err("a gap");
        let missing = missing_in("a ${NOPE} b");
        assert_eq!(
            missing,
            MissingReference {
                span: 2..9,
                why: MissingReason::Missing("NOPE".to_owned())
            }
        );
        assert_eq!(
            missing_in("${EMPTY}").why,
            MissingReason::Empty("EMPTY".to_owned())
        );
        assert_eq!(missing_in("${TOKEN").why, MissingReason::Malformed);
        assert_eq!(missing_in("${}").why, MissingReason::Malformed);
        assert_eq!(missing_in("${A B}").why, MissingReason::Malformed);
    }
}
