//! What is on the page? One TOML file while it is being read: its values with their places, and
//! everything found wrong so far. Knows TOML; knows nothing of what the keys mean.
//!
//! Readers never stop at the first problem: they note it here and go on with a default.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, SourceSpan};
use super::secret::{self, EnvironmentReader, MissingReason};
use super::spelling::nearest;
use super::value_error::ValueError;

/// What a reader makes of a value: something, or a problem with a place.
pub(super) type ReadResult<T> = Result<T, Problem>;

/// A file being read.
pub(super) struct TomlReader<'a> {
    source: &'a str,
    folder: PathBuf,
    environment: &'a EnvironmentReader<'a>,
    problems: RefCell<Vec<Problem>>,
    hidden: RefCell<Vec<SourceSpan>>,
}

impl<'a> TomlReader<'a> {
    /// A page with nothing wrong so far. Relative paths on it start at its own folder.
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
            hidden: RefCell::default(),
        }
    }

    /// Where variables come from.
    pub(super) fn environment(&self) -> &'a EnvironmentReader<'a> {
        self.environment
    }

    /// Notes a problem.
    pub(super) fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// What was read, if it could be read; the problem is noted otherwise.
    pub(super) fn keep<T>(&self, read: ReadResult<T>) -> Option<T> {
        read.map_err(|problem| self.note(problem)).ok()
    }

    /// Blots out a stretch of text wherever problems are shown.
    pub(super) fn hide(&self, span: SourceSpan) {
        self.hidden.borrow_mut().push(span);
    }

    /// Everything wrong, and what must not be shown.
    pub(super) fn findings(self) -> (Vec<Problem>, Vec<SourceSpan>) {
        (self.problems.into_inner(), self.hidden.into_inner())
    }
}

/// One value on the page.
#[derive(Clone, Copy)]
pub(super) struct TomlValue<'a> {
    page: &'a TomlReader<'a>,
    /// What to call it in messages: its key, or the key of the list it is in.
    name: &'a str,
    toml: &'a Spanned<DeValue<'a>>,
}

impl<'a> TomlValue<'a> {
    /// The page it is on.
    pub(super) fn page(&self) -> &'a TomlReader<'a> {
        self.page
    }

    /// What to call it in messages.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// Where it is.
    pub(super) fn span(&self) -> SourceSpan {
        self.toml.span()
    }

    /// The TOML value itself.
    pub(super) fn toml(&self) -> &'a DeValue<'a> {
        self.toml.get_ref()
    }

    /// Whether part of it comes from the environment: it must not be quoted then.
    pub(super) fn is_filled_in(&self) -> bool {
        self.toml().as_str().is_some_and(secret::refers)
    }

    /// A problem with this value, in the words of a fault.
    pub(super) fn problem(&self, fault: ValueError) -> Problem {
        let what = format!("`{}` must be {}", self.name, fault.wanted);
        let problem = Problem::new(what).at(self.span(), fault.why);
        if self.is_filled_in() {
            return problem.help("this is about the text after its variables are filled in");
        }
        match fault.instead {
            Some(instead) => problem.help(format!("did you mean \"{instead}\"?")),
            None => problem,
        }
    }

    /// A problem because this is another type of value than wanted.
    pub(super) fn mismatch(&self, wanted: &'static str) -> Problem {
        let why = match self.toml() {
            DeValue::String(_) => "this is a string",
            DeValue::Integer(_) => "this is an integer",
            DeValue::Float(_) => "this is a float",
            DeValue::Boolean(_) => "this is a boolean",
            DeValue::Datetime(_) => "this is a date or time",
            DeValue::Array(_) => "this is an array",
            DeValue::Table(_) => "this is a table",
        };
        self.problem(ValueError::new(wanted, why))
    }

    /// Its text with variables filled in; `wanted` says what it should be if it is no string.
    pub(super) fn text(&self, wanted: &'static str) -> ReadResult<String> {
        let text = self.toml().as_str().ok_or_else(|| self.mismatch(wanted))?;
        secret::expand(text, self.page.environment).map_err(|gap| {
            let span = self.place_of(&text[gap.place]);
            match gap.why {
                MissingReason::Missing(name) => {
                    Problem::new(format!("the environment has no variable `{name}`"))
                        .at(span, "wanted here")
                        .help(format!("set {name}, or write `$${{` for a literal `${{`"))
                }
                MissingReason::Empty(name) => {
                    Problem::new(format!("the environment variable `{name}` is empty"))
                        .at(span, "wanted here")
                }
                MissingReason::Malformed => {
                    Problem::new("`${` must be followed by a variable's name and `}`")
                        .at(span, "as in `${NAME}`")
                        .help("write `$${` for a literal `${`")
                }
            }
        })
    }

    /// Its path, made absolute against the folder of the page.
    pub(super) fn path(&self) -> ReadResult<PathBuf> {
        const WANTED: &str = "a path such as \"certs/live.pem\"";
        match self.text(WANTED)?.as_str() {
            "" => Err(self.problem(ValueError::new(WANTED, "this is empty"))),
            text => Ok(self.page.folder.join(text)),
        }
    }

    /// Its items.
    pub(super) fn items(
        &self,
        wanted: &'static str,
    ) -> ReadResult<impl Iterator<Item = TomlValue<'a>>> {
        let array = self
            .toml()
            .as_array()
            .ok_or_else(|| self.mismatch(wanted))?;
        let (page, name) = (self.page, self.name);
        Ok(array.iter().map(move |toml| TomlValue { page, name, toml }))
    }

    /// The entries of a table whose keys are free.
    pub(super) fn entries(
        &self,
        wanted: &'static str,
    ) -> ReadResult<impl Iterator<Item = TomlEntry<'a>>> {
        let table = self
            .toml()
            .as_table()
            .ok_or_else(|| self.mismatch(wanted))?;
        let page = self.page;
        Ok(table.iter().map(move |(key, toml)| TomlEntry {
            key: key.get_ref(),
            span: key.span(),
            value: TomlValue {
                page,
                name: key.get_ref(),
                toml,
            },
        }))
    }

    /// Reads it as a table called `title`; keys that `read` never asks for are problems.
    pub(super) fn table<T>(
        &self,
        title: &'a str,
        read: impl FnOnce(&mut TomlTable<'a>) -> T,
    ) -> ReadResult<T> {
        let entries = self
            .toml()
            .as_table()
            .ok_or_else(|| self.mismatch("a table"))?;
        let span = self.span();
        Ok(TomlTable {
            page: self.page,
            title,
            entries,
            span,
            known: Vec::new(),
        }
        .read(read))
    }

    /// Where a part of the string is in the file; the whole string where escapes hide it.
    fn place_of(&self, part: &str) -> SourceSpan {
        let whole = self.span();
        match self
            .page
            .source
            .get(whole.clone())
            .and_then(|typed| typed.find(part))
        {
            Some(offset) => whole.start + offset..whole.start + offset + part.len(),
            None => whole,
        }
    }
}

/// One entry of a table whose keys are free.
pub(super) struct TomlEntry<'a> {
    /// The key.
    pub(super) key: &'a str,
    /// Where the key is.
    pub(super) span: SourceSpan,
    /// What it is set to.
    pub(super) value: TomlValue<'a>,
}

/// A table whose keys are known.
pub(super) struct TomlTable<'a> {
    page: &'a TomlReader<'a>,
    title: &'a str,
    entries: &'a DeTable<'a>,
    span: SourceSpan,
    known: Vec<&'static str>,
}

impl<'a> TomlTable<'a> {
    /// Reads the whole page as a table.
    pub(super) fn root<T>(
        page: &'a TomlReader<'a>,
        entries: &'a DeTable<'a>,
        read: impl FnOnce(&mut TomlTable<'a>) -> T,
    ) -> T {
        TomlTable {
            page,
            title: "the file",
            entries,
            span: 0..0,
            known: Vec::new(),
        }
        .read(read)
    }

    fn read<T>(mut self, read: impl FnOnce(&mut TomlTable<'a>) -> T) -> T {
        let made = read(&mut self);
        self.note_unknown_keys();
        made
    }

    /// The page it is on.
    pub(super) fn page(&self) -> &'a TomlReader<'a> {
        self.page
    }

    /// Where it begins.
    pub(super) fn span(&self) -> SourceSpan {
        self.span.clone()
    }

    /// The value of a key, if it is there.
    pub(super) fn value(&mut self, key: &'static str) -> Option<TomlValue<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let toml = self.entries.get(key)?;
        Some(TomlValue {
            page: self.page,
            name: key,
            toml,
        })
    }

    /// What a reader makes of a key's value. Problems are noted; then, and when the key is not
    /// there, it is `None`.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(TomlValue<'a>) -> ReadResult<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        self.page.keep(read(value))
    }

    /// Puts what a reader makes of a key's value in its place; the default stays otherwise.
    pub(super) fn put<T>(
        &mut self,
        key: &'static str,
        place: &mut T,
        read: impl FnOnce(TomlValue<'a>) -> ReadResult<T>,
    ) {
        if let Some(made) = self.get(key, read) {
            *place = made;
        }
    }

    /// As [`Table::put`], where the default is to have none.
    pub(super) fn put_some<T>(
        &mut self,
        key: &'static str,
        place: &mut Option<T>,
        read: impl FnOnce(TomlValue<'a>) -> ReadResult<T>,
    ) {
        self.put(key, place, |value| read(value).map(Some));
    }

    /// Notes that a key is missing that this table cannot do without.
    pub(super) fn note_missing(&self, key: &str, example: &str) {
        let what = format!("{} has no `{key}`", self.title);
        let problem = Problem::new(what).at(self.span(), "wanted in here");
        self.page.note(problem.help(format!("add {example}")));
    }

    fn note_unknown_keys(&self) {
        for (key, _) in self.entries {
            let typed: &str = key.get_ref();
            if self.known.contains(&typed) {
                continue;
            }
            let problem = Problem::new(format!("unknown key `{typed}` in {}", self.title));
            let known = self.known.iter().copied();
            self.page.note(match nearest(typed, known) {
                Some(name) => problem.at(key.span(), format!("did you mean `{name}`?")),
                None => problem
                    .at(key.span(), "not a key here")
                    .help(format!("the keys here are {}", self.known.join(", "))),
            });
        }
        #[cfg(test)]
        super::examples::remember(self.title, &self.known);
    }
}
