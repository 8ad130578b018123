//! Problems of a configuration: what is wrong, where, and how to correct it.
//!
//! Knows text and spans, not the meaning of keys. Never holds an expanded secret.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// A range of bytes in the file's text.
pub(crate) type SourceSpan = Range<usize>;

/// How serious a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration works, but probably not as intended.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    severity: Severity,
    what: String,
    label: String,
    span: Option<SourceSpan>,
    help: Option<String>,
    other: Option<Box<(SourceSpan, &'static str)>>,
}

impl Problem {
    /// An error, described in one line.
    pub(crate) fn new(what: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            what: what.into(),
            label: String::new(),
            span: None,
            help: None,
            other: None,
        }
    }

    /// A warning, described in one line. It does not keep the configuration from being used.
    pub(crate) fn warning(what: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Warning,
            ..Problem::new(what)
        }
    }

    /// The position, and a short label for the marked text.
    pub(crate) fn at(mut self, span: SourceSpan, label: impl Into<String>) -> Problem {
        self.span = Some(span);
        self.label = label.into();
        self
    }

    /// How to correct it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// A second position that is related.
    pub(crate) fn other(mut self, span: SourceSpan, label: &'static str) -> Problem {
        self.other = Some(Box::new((span, label)));
        self
    }

    fn render(&self, path: &str, source: &str, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group: Group<'_> = Group::with_title(level.primary_title(self.what.as_str()));
        if let Some(span) = &self.span {
            let mark = AnnotationKind::Primary.span(span.clone());
            let mut snippet =
                Snippet::source(source)
                    .path(path)
                    .annotation(if self.label.is_empty() {
                        mark
                    } else {
                        mark.label(self.label.as_str())
                    });
            if let Some(other) = &self.other {
                let mark = AnnotationKind::Context.span(other.0.clone()).label(other.1);
                snippet = snippet.annotation(mark);
            }
            group = group.element(snippet);
        } else if !path.is_empty() {
            group = group.element(Origin::path(path));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// All problems of one configuration: first the errors, then the warnings, each in the order of its
/// text.
///
/// It keeps the text with literal secrets masked, so that neither `Display` nor `Debug` can show
/// one.
#[derive(Clone)]
pub struct Problems {
    path: PathBuf,
    source: String,
    list: Vec<Problem>,
}

impl Problems {
    /// An empty list for `source`, read from `path`; the `secret_spans` are masked.
    pub(crate) fn new(path: &Path, source: String, secret_spans: &[SourceSpan]) -> Problems {
        let source = mask(source, secret_spans);
        Problems {
            path: path.to_owned(),
            source,
            list: Vec::new(),
        }
    }

    /// Adds a problem.
    pub(crate) fn push(&mut self, problem: Problem) {
        let rank = |problem: &Problem| {
            let start = problem.span.as_ref().map(|span| span.start);
            (problem.severity, start)
        };
        let position = self
            .list
            .partition_point(|earlier| rank(earlier) <= rank(&problem));
        self.list.insert(position, problem);
    }

    /// The number of errors.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// The number of warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        let of_severity = |problem: &&Problem| problem.severity == severity;
        self.list.iter().filter(of_severity).count()
    }

    /// Whether there are neither errors nor warnings.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All problems as JSON. What a problem does not have is left out: a position (`line` and
    /// `column`, both from 1), a label for it, help.
    pub fn to_json(&self) -> serde_json::Value {
        let one = |problem: &Problem| {
            let mut json = serde_json::json!({
                "severity": problem.severity.as_str(),
                "message": problem.what,
                "text": self.in_one_line(problem),
            });
            if let Some(span) = &problem.span {
                let (line, column) = self.line_and_column(span);
                json["line"] = line.into();
                json["column"] = column.into();
            }
            if !problem.label.is_empty() {
                json["label"] = problem.label.as_str().into();
            }
            if let Some(help) = &problem.help {
                json["help"] = help.as_str().into();
            }
            json
        };
        self.list.iter().map(one).collect()
    }

    /// Logs each of them as a warning, in one line.
    pub(crate) fn log(&self) {
        for problem in &self.list {
            tracing::warn!("configuration: {}", self.in_one_line(problem));
        }
    }

    /// What is wrong, and in parentheses where, and how to correct it.
    fn in_one_line(&self, problem: &Problem) -> String {
        let mut place = self.path.display().to_string();
        if let Some(span) = &problem.span {
            let (line, column) = self.line_and_column(span);
            let _ = write!(place, ":{line}:{column}");
        }
        let label = Some(problem.label.as_str()).filter(|label| !label.is_empty());
        let details: Vec<_> = label.into_iter().chain(problem.help.as_deref()).collect();
        match details.join("; ").as_str() {
            "" => format!("{} ({place})", problem.what),
            details => format!("{} ({place}: {details})", problem.what),
        }
    }

    fn line_and_column(&self, span: &SourceSpan) -> (usize, usize) {
        let before = self.source.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    /// All problems as text; `colour` for terminals.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let path = self.path.display().to_string();
        let mut texts = Vec::with_capacity(self.list.len());
        for problem in &self.list {
            texts.push(problem.render(&path, &self.source, &renderer));
        }
        texts.join("\n\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Problems {}

/// Replaces these spans by asterisks, byte for byte, so that spans stay valid. Quotes stay, so that
/// a string is recognisable; `${NAME}` stays, because a name is no secret.
fn mask(source: String, secret_spans: &[SourceSpan]) -> String {
    let mut bytes = source.into_bytes();
    for span in secret_spans {
        let mut in_name = false;
        for at in span.clone() {
            if bytes[at..].starts_with(b"${") {
                in_name = bytes[at..span.end].contains(&b'}');
            }
            if !in_name && !matches!(bytes[at], b'"' | b'\'' | b'\n' | b'\r') {
                bytes[at] = b'*';
            }
            in_name &= bytes[at] != b'}';
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn problems(source: &str, secret_spans: &[SourceSpan]) -> Problems {
        Problems::new(Path::new("seawall.toml"), source.to_owned(), secret_spans)
    }

    #[test]
    fn shows_location_and_underlines_the_text() {
        let mut problems = problems("a = 1\nbb = \"5\"\n", &[]);
        let five = Problem::new("`bb` must be a duration").at(11..14, "the unit is missing");
        problems.push(five.help("write \"5s\""));
        assert_snapshot!(problems, @r#"
        error: `bb` must be a duration
         --> seawall.toml:2:6
          |
        2 | bb = "5"
          |      ^^^ the unit is missing
          |
          = help: write "5s"
        "#);
    }

    #[test]
    fn labels_a_warning() {
        let mut problems = problems("a = 1\nbb = \"5\"\n", &[]);
        problems.push(Problem::warning("`bb` is small").at(11..14, "here"));
        assert_eq!((problems.errors(), problems.warnings()), (0, 1));
        assert_snapshot!(problems, @r#"
        warning: `bb` is small
         --> seawall.toml:2:6
          |
        2 | bb = "5"
          |      ^^^ here
        "#);
        let json = problems.to_json();
        assert_eq!(json[0]["severity"], "warning");
        assert_eq!(
            (&json[0]["line"], &json[0]["column"]),
            (&2.into(), &6.into())
        );
        assert_eq!(json[0]["text"], "`bb` is small (seawall.toml:2:6: here)");
        assert_eq!(json[0].get("help"), None);
    }

    #[test]
    fn reports_errors_before_warnings_and_each_in_file_order() {
        let mut problems = problems("a = 1\nb = 2\n", &[]);
        problems.push(Problem::warning("doubtful").at(0..1, ""));
        problems.push(Problem::new("second").at(6..7, ""));
        problems.push(Problem::new("first").at(0..1, ""));
        problems.push(Problem::new("nowhere"));
        assert_snapshot!(problems, @r"
        error: nowhere
        --> seawall.toml

        error: first
         --> seawall.toml:1:1
          |
        1 | a = 1
          | ^

        error: second
         --> seawall.toml:2:1
          |
        2 | b = 2
          | ^

        warning: doubtful
         --> seawall.toml:1:1
          |
        1 | a = 1
          | ^
        ");
    }

    #[test]
    fn masks_secrets_but_not_variable_names() {
        let source = "k = \"pässword ${NAME}x\" # ok";
        let value = 4..source.len() - 5;
        let problems = problems(source, std::slice::from_ref(&value));
        assert_eq!(problems.source, "k = \"**********${NAME}*\" # ok");
        assert_eq!(problems.source.len(), source.len());
        assert!(!format!("{problems:?}{problems}").contains("word"));
    }
}
