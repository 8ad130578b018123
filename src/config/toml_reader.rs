//! A TOML file while it is read: its values with their positions, and the problems found so far.
//! Knows TOML, not the meaning of keys.
//!
//! Readers do not stop at the first problem: they note it here and continue with a default.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, SourceSpan};
use super::secret::{self, EnvironmentReader, MissingReason};
use super::spelling::nearest;
use super::value_error::ValueError;

/// Keys that an earlier version read under another name, with the present name.
const RENAMED_KEYS: &[(&str, &str)] = &[
    ("uncacheable_memory", "uncacheable_ttl"),
    ("requests_min", "failed_urls_min"),
    ("slow_floor", "slow_min"),
    ("key", "decryption_key"),
    ("clock", "time_server"),
    ("lame_duck", "drain_delay"),
];

/// The name that an unknown key has now, if it is one of those that are known in its place.
pub(super) fn new_name(unknown: &str, known: &[&str]) -> Option<&'static str> {
    let (_, new) = RENAMED_KEYS.iter().find(|(old, _)| *old == unknown)?;
    known.contains(new).then_some(new)
}

/// The result of reading a value, or a problem with a position.
pub(super) type ReadResult<T> = Result<T, Problem>;

/// A file being read.
pub(super) struct TomlReader<'a> {
    source: &'a str,
    folder: PathBuf,
    environment: &'a EnvironmentReader<'a>,
    problems: RefCell<Vec<Problem>>,
    secret_spans: RefCell<Vec<SourceSpan>>,
}

impl<'a> TomlReader<'a> {
    /// A reader without problems. Relative paths in the file start at its own folder.
    pub(super) fn new(
        source: &'a str,
        path: &Path,
        environment: &'a EnvironmentReader<'a>,
    ) -> TomlReader<'a> {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        TomlReader {
            source,
            folder,
            environment,
            problems: RefCell::default(),
            secret_spans: RefCell::default(),
        }
    }

    /// The source of variables.
    pub(super) fn environment(&self) -> &'a EnvironmentReader<'a> {
        self.environment
    }

    /// Notes a problem.
    pub(super) fn add_problem(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// The value, if it could be read; else notes the problem.
    pub(super) fn value_or_report<T>(&self, read: ReadResult<T>) -> Option<T> {
        read.map_err(|problem| self.add_problem(problem)).ok()
    }

    /// Masks a span wherever problems are shown.
    pub(super) fn mask(&self, span: SourceSpan) {
        self.secret_spans.borrow_mut().push(span);
    }

    /// All problems, and the spans that must not be shown.
    pub(super) fn into_problems(self) -> (Vec<Problem>, Vec<SourceSpan>) {
        (self.problems.into_inner(), self.secret_spans.into_inner())
    }
}

/// One value of the file.
#[derive(Clone, Copy)]
pub(super) struct TomlValue<'a> {
    reader: &'a TomlReader<'a>,
    /// Its name in messages: its key, or the key of the list that it is in.
    name: &'a str,
    toml: &'a Spanned<DeValue<'a>>,
}

impl<'a> TomlValue<'a> {
    /// The file that it is in.
    pub(super) fn reader(&self) -> &'a TomlReader<'a> {
        self.reader
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// Its position.
    pub(super) fn span(&self) -> SourceSpan {
        self.toml.span()
    }

    /// The TOML value itself.
    pub(super) fn toml(&self) -> &'a DeValue<'a> {
        self.toml.get_ref()
    }

    /// Whether part of it comes from the environment. Messages must not quote it then.
    pub(super) fn has_variables(&self) -> bool {
        self.toml().as_str().is_some_and(secret::has_reference)
    }

    /// A problem with this value, made of an error.
    pub(super) fn problem(&self, error: ValueError) -> Problem {
        let what = format!("`{}` must be {}", self.name, error.expected);
        let problem = Problem::new(what).at(self.span(), error.why);
        if self.has_variables() {
            return problem.help("this is about the text after its variables are filled in");
        }
        match error.suggestion {
            Some(suggestion) => problem.help(format!("did you mean \"{suggestion}\"?")),
            None => problem,
        }
    }

    /// A problem because the value has the wrong type.
    pub(super) fn wrong_type(&self, expected: &'static str) -> Problem {
        let why = match self.toml() {
            DeValue::String(_) => "this is a string",
            DeValue::Integer(_) => "this is an integer",
            DeValue::Float(_) => "this is a float",
            DeValue::Boolean(_) => "this is a boolean",
            DeValue::Datetime(_) => "this is a date or time",
            DeValue::Array(_) => "this is an array",
            DeValue::Table(_) => "this is a table",
        };
        self.problem(ValueError::new(expected, why))
    }

    /// Its text with variables expanded; `expected` describes the value, for a problem with it.
    pub(super) fn text(&self, expected: &'static str) -> ReadResult<String> {
        let text = self
            .toml()
            .as_str()
            .ok_or_else(|| self.wrong_type(expected))?;
        secret::expand(text, self.reader.environment).map_err(|missing| {
            let span = self.span_of(&text[missing.span]);
            match missing.why {
                MissingReason::Missing(name) => {
                    Problem::new(format!("the environment has no variable `{name}`"))
                        .at(span, "expected here")
                        .help(format!("set {name}, or write `$${{` for a literal `${{`"))
                }
                MissingReason::Empty(name) => {
                    Problem::new(format!("the environment variable `{name}` is empty"))
                        .at(span, "expected here")
                }
                MissingReason::Malformed => {
                    Problem::new("`${` must be followed by a variable's name and `}`")
                        .at(span, "as in `${NAME}`")
                        .help("write `$${` for a literal `${`")
                }
            }
        })
    }

    /// Its path, made absolute relative to the file's folder.
    pub(super) fn path(&self) -> ReadResult<PathBuf> {
        const EXPECTED: &str = "a path such as \"certs/live.pem\"";
        match self.text(EXPECTED)?.as_str() {
            "" => Err(self.problem(ValueError::new(EXPECTED, "this is empty"))),
            text => Ok(self.reader.folder.join(text)),
        }
    }

    /// Its items.
    pub(super) fn items(
        &self,
        expected: &'static str,
    ) -> ReadResult<impl Iterator<Item = TomlValue<'a>>> {
        let array = self
            .toml()
            .as_array()
            .ok_or_else(|| self.wrong_type(expected))?;
        let (reader, name) = (self.reader, self.name);
        Ok(array
            .iter()
            .map(move |toml| TomlValue { reader, name, toml }))
    }

    /// The entries of a table with arbitrary keys.
    pub(super) fn entries(
        &self,
        expected: &'static str,
    ) -> ReadResult<impl Iterator<Item = TomlEntry<'a>>> {
        let table = self
            .toml()
            .as_table()
            .ok_or_else(|| self.wrong_type(expected))?;
        let reader = self.reader;
        Ok(table.iter().map(move |(key, toml)| TomlEntry {
            key: key.get_ref(),
            span: key.span(),
            value: TomlValue {
                reader,
                name: key.get_ref(),
                toml,
            },
        }))
    }

    /// Reads it as a table called `title`; keys that `read` does not use are problems.
    pub(super) fn table<T>(
        &self,
        title: &'a str,
        read: impl FnOnce(&mut TomlTable<'a>) -> T,
    ) -> ReadResult<T> {
        let entries = self
            .toml()
            .as_table()
            .ok_or_else(|| self.wrong_type("a table"))?;
        let span = self.span();
        Ok(TomlTable {
            reader: self.reader,
            title,
            entries,
            span,
            known: Vec::new(),
        }
        .read(read))
    }

    /// The position of a part of the string; the whole string if it contains escapes.
    fn span_of(&self, part: &str) -> SourceSpan {
        let whole = self.span();
        match self
            .reader
            .source
            .get(whole.clone())
            .and_then(|written| written.find(part))
        {
            Some(offset) => whole.start + offset..whole.start + offset + part.len(),
            None => whole,
        }
    }
}

/// One entry of a table with arbitrary keys.
pub(super) struct TomlEntry<'a> {
    /// The key.
    pub(super) key: &'a str,
    /// The position of the key.
    pub(super) span: SourceSpan,
    /// Its value.
    pub(super) value: TomlValue<'a>,
}

/// A table with known keys.
pub(super) struct TomlTable<'a> {
    reader: &'a TomlReader<'a>,
    title: &'a str,
    entries: &'a DeTable<'a>,
    span: SourceSpan,
    known: Vec<&'static str>,
}

impl<'a> TomlTable<'a> {
    /// Reads the whole file as a table.
    pub(super) fn root<T>(
        reader: &'a TomlReader<'a>,
        entries: &'a DeTable<'a>,
        read: impl FnOnce(&mut TomlTable<'a>) -> T,
    ) -> T {
        TomlTable {
            reader,
            title: "the file",
            entries,
            span: 0..0,
            known: Vec::new(),
        }
        .read(read)
    }

    fn read<T>(mut self, read: impl FnOnce(&mut TomlTable<'a>) -> T) -> T {
        let value = read(&mut self);
        self.report_unknown_keys();
        value
    }

    /// The file that it is in.
    pub(super) fn reader(&self) -> &'a TomlReader<'a> {
        self.reader
    }

    /// Its position.
    pub(super) fn span(&self) -> SourceSpan {
        self.span.clone()
    }

    /// The value of a key, if present.
    pub(super) fn value(&mut self, key: &'static str) -> Option<TomlValue<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let toml = self.entries.get(key)?;
        Some(TomlValue {
            reader: self.reader,
            name: key,
            toml,
        })
    }

    /// The value of a key, read by `read`. `None` if the key is missing, or has a problem, which is
    /// noted.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(TomlValue<'a>) -> ReadResult<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        self.reader.value_or_report(read(value))
    }

    /// Reads a key's value into `target`, which keeps its default if that fails.
    pub(super) fn read_into<T>(
        &mut self,
        key: &'static str,
        target: &mut T,
        read: impl FnOnce(TomlValue<'a>) -> ReadResult<T>,
    ) {
        if let Some(value) = self.get(key, read) {
            *target = value;
        }
    }

    /// Like [`TomlTable::read_into`], for settings that are `None` by default.
    pub(super) fn read_some_into<T>(
        &mut self,
        key: &'static str,
        target: &mut Option<T>,
        read: impl FnOnce(TomlValue<'a>) -> ReadResult<T>,
    ) {
        self.read_into(key, target, |value| read(value).map(Some));
    }

    /// Notes that a required key is missing.
    pub(super) fn report_missing(&self, key: &str, example: &str) {
        let what = format!("{} has no `{key}`", self.title);
        let problem = Problem::new(what).at(self.span(), "expected in here");
        self.reader
            .add_problem(problem.help(format!("add {example}")));
    }

    fn report_unknown_keys(&self) {
        for (key, _) in self.entries {
            let written_key: &str = key.get_ref();
            if self.known.contains(&written_key) {
                continue;
            }
            let problem = Problem::new(format!("unknown key `{written_key}` in {}", self.title));
            let new_name = new_name(written_key, &self.known);
            let known = self.known.iter().copied();
            self.reader
                .add_problem(match (new_name, nearest(written_key, known)) {
                    (Some(new), _) => problem.at(key.span(), format!("its name is `{new}` now")),
                    (_, Some(name)) => problem.at(key.span(), format!("did you mean `{name}`?")),
                    (_, None) => problem
                        .at(key.span(), "not a key here")
                        .help(format!("the keys here are {}", self.known.join(", "))),
                });
        }
        #[cfg(test)]
        super::examples::record_known_keys(self.title, &self.known);
    }
}
