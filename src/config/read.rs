//! Readers for single values, named next to the key that they read.
//!
//! Each takes a value and returns its meaning, or a problem with its position. None knows a key.

use std::path::Path;
use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use super::problem::Problem;
use super::quantity;
use super::spelling::nearest;
use super::toml_reader::{ReadResult, TomlEntry, TomlValue};
use super::value_error::ValueError;

const COUNT: &str = "a whole number";
const SIZE: &str = "a size such as \"64MiB\", or a number of bytes";
const TIMEOUT: &str = "a duration longer than 0s";

/// `true` or `false`.
pub(super) fn flag(value: TomlValue<'_>) -> ReadResult<bool> {
    let flag = value.toml().as_bool();
    flag.ok_or_else(|| value.wrong_type("true or false"))
}

/// A whole number, 1 or more.
pub(super) fn count<N: TryFrom<u64>>(value: TomlValue<'_>) -> ReadResult<N> {
    match integer(value, COUNT)? {
        0 => Err(value.problem(ValueError::new(COUNT, "must be at least 1"))),
        number => fit(value, number, COUNT),
    }
}

/// A whole number, 0 included.
pub(super) fn count_or_zero<N: TryFrom<u64>>(value: TomlValue<'_>) -> ReadResult<N> {
    fit(value, integer(value, COUNT)?, COUNT)
}

/// A size, 1 byte or more.
pub(super) fn size<N: TryFrom<u64>>(value: TomlValue<'_>) -> ReadResult<N> {
    match bytes(value)? {
        0 => Err(value.problem(ValueError::new(SIZE, "must be at least 1 byte"))),
        number => fit(value, number, SIZE),
    }
}

/// A size, 0 included.
pub(super) fn size_or_zero<N: TryFrom<u64>>(value: TomlValue<'_>) -> ReadResult<N> {
    fit(value, bytes(value)?, SIZE)
}

fn bytes(value: TomlValue<'_>) -> ReadResult<u64> {
    match value.toml() {
        DeValue::Integer(_) => integer(value, SIZE),
        _ => parsed(quantity::size, SIZE)(value),
    }
}

fn integer(value: TomlValue<'_>, expected: &'static str) -> ReadResult<u64> {
    let integer = value
        .toml()
        .as_integer()
        .ok_or_else(|| value.wrong_type(expected))?;
    let number = i128::from_str_radix(integer.as_str(), integer.radix());
    let error = match number.map(u64::try_from) {
        Ok(Ok(number)) => return Ok(number),
        Ok(Err(_)) if integer.as_str().starts_with('-') => {
            ValueError::new(expected, "must not be negative")
        }
        _ => ValueError::new(expected, "too large"),
    };
    Err(value.problem(error))
}

fn fit<N: TryFrom<u64>>(
    value: TomlValue<'_>,
    number: u64,
    expected: &'static str,
) -> ReadResult<N> {
    N::try_from(number).map_err(|_| value.problem(ValueError::new(expected, "too large")))
}

/// A number, 0 included, not necessarily whole.
pub(super) fn ratio(value: TomlValue<'_>) -> ReadResult<f64> {
    const EXPECTED: &str = "a number from 0 to 1000 such as 1.0 or 0.5";
    let text = match value.toml() {
        DeValue::Integer(whole) if whole.radix() == 10 => whole.as_str(),
        DeValue::Float(float) => float.as_str(),
        _ => return Err(value.wrong_type(EXPECTED)),
    };
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1000.0).contains(&share) => Ok(share),
        _ => Err(value.problem(ValueError::new(EXPECTED, "must be from 0 to 1000"))),
    }
}

/// A duration, 0 included.
pub(super) fn duration(value: TomlValue<'_>) -> ReadResult<Duration> {
    const EXPECTED: &str = "a duration such as \"2s\", \"500ms\", \"1m30s\" or \"24h\"";
    match value.toml() {
        DeValue::Integer(number) if number.as_str() == "0" => Ok(Duration::ZERO),
        DeValue::Integer(number) => {
            let error = ValueError::new(EXPECTED, "the unit is missing");
            Err(value.problem(error.suggestion(format!("{number}s"))))
        }
        _ => parsed(quantity::duration, EXPECTED)(value),
    }
}

/// A deadline: a duration longer than 0.
pub(super) fn timeout(value: TomlValue<'_>) -> ReadResult<Duration> {
    let duration = duration(value)?;
    if duration.is_zero() {
        return Err(value.problem(ValueError::new(TIMEOUT, "must be longer than 0s")));
    }
    Ok(duration)
}

/// A string with variables expanded, parsed by `parse`.
pub(super) fn parsed<'a, T>(
    parse: impl Fn(&str) -> Result<T, ValueError>,
    expected: &'static str,
) -> impl Fn(TomlValue<'a>) -> ReadResult<T> {
    move |value| parse(&value.text(expected)?).map_err(|error| value.problem(error))
}

/// A list of items that `read` reads. Each item's problem is noted.
pub(super) fn list<'a, T>(
    read: impl Fn(TomlValue<'a>) -> ReadResult<T>,
    expected: &'static str,
) -> impl Fn(TomlValue<'a>) -> ReadResult<Vec<T>> {
    move |value| {
        let items = value.items(expected)?;
        Ok(items
            .filter_map(|item| value.reader().value_or_report(read(item)))
            .collect())
    }
}

/// Like [`list`], but not empty.
pub(super) fn nonempty_list<'a, T>(
    read: impl Fn(TomlValue<'a>) -> ReadResult<T>,
    expected: &'static str,
) -> impl Fn(TomlValue<'a>) -> ReadResult<Vec<T>> {
    let list = list(read, expected);
    move |value| match value.toml() {
        DeValue::Array(items) if items.is_empty() => {
            Err(value.problem(ValueError::new(expected, "this is empty")))
        }
        _ => list(value),
    }
}

/// One of several words.
pub(super) fn one_of<'w, 'a, T: Clone>(
    words: &'w [(&'static str, T)],
    expected: &'static str,
) -> impl Fn(TomlValue<'a>) -> ReadResult<T> + use<'w, 'a, T> {
    move |value| {
        let written = value.text(expected)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == written) {
            return Ok(meaning.clone());
        }
        let error = ValueError::new(expected, "not one of these words");
        let meant = nearest(&written, words.iter().map(|(word, _)| *word));
        Err(value.problem(ValueError {
            suggestion: meant.map(str::to_owned),
            ..error
        }))
    }
}

/// The name of a header.
pub(super) fn header_name(value: TomlValue<'_>) -> ReadResult<HeaderName> {
    const EXPECTED: &str = "the name of a header such as \"User-Agent\"";
    let name = value.text(EXPECTED)?;
    let error = ValueError::new(EXPECTED, "not a header's name");
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| value.problem(error))
}

/// The name of a header, written as a key.
pub(super) fn header_key(entry: &TomlEntry<'_>) -> ReadResult<HeaderName> {
    HeaderName::from_bytes(entry.key.as_bytes()).map_err(|_| {
        let what = format!("`{}` cannot be a header", entry.key);
        Problem::new(what).at(entry.span.clone(), "not a header's name")
    })
}

/// A header that only the shield sets, written as a key.
pub(super) fn not_settable(entry: &TomlEntry<'_>, name: &HeaderName) -> Problem {
    let what = format!("the shield sets `{name}` itself");
    Problem::new(what).at(entry.span.clone(), "not settable")
}

/// A problem with a file that the configuration names.
pub(super) fn file_problem(value: TomlValue<'_>, path: &Path, why: impl Into<String>) -> Problem {
    let what = format!("`{}` names a file that cannot be used", value.name());
    let problem = Problem::new(what).at(value.span(), why);
    if value.has_variables() {
        return problem;
    }
    problem.help(format!("the file looked for is {}", path.display()))
}
