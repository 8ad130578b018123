//! How the parameters of an endpoint are declared, and how the query of a request is read by them.

use http::Uri;
use percent_encoding::percent_decode_str;

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub struct AdminParameter {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub kind: ParameterKind,
    /// Whether a request without it is rejected.
    pub is_required: bool,
    /// Whether it may be given several times.
    pub is_repeatable: bool,
    /// What it means, in a sentence.
    pub help: &'static str,
}

/// What the value of a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// An absolute http or https URL.
    Url,
    /// `true` or `1`, `false` or `0`; the name alone means `true`.
    Flag,
    /// A whole number, at least 1.
    Count,
    /// Any text that is not empty, percent-encoded.
    Text,
}

impl AdminParameter {
    /// An optional parameter that is a number.
    pub(super) const fn count(name: &'static str, help: &'static str) -> AdminParameter {
        AdminParameter {
            name,
            kind: ParameterKind::Count,
            is_required: false,
            is_repeatable: false,
            help,
        }
    }
}

/// The parameters of a request, each as declared.
#[derive(Debug, Default)]
pub struct AdminQuery(Vec<(&'static str, ParameterValue)>);

#[derive(Debug)]
enum ParameterValue {
    Url(Uri),
    Flag(bool),
    Count(u64),
    Text(String),
}

/// Why a query is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("unknown parameter `{name}`: {}", known_names(.declared))]
    Unknown {
        name: String,
        declared: Vec<&'static str>,
    },
    #[error("`{0}` is given more than once")]
    Repeated(&'static str),
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error(
        "`{0}` must be an absolute http or https URL such as http://media.example/live/a.m3u8, \
         percent-encoded"
    )]
    NoUrl(&'static str),
    #[error(
        "`{0}` must be percent-encoded as a whole: in it, a `%` begins no escape. One that belongs \
         to the value is written %25"
    )]
    NoEscape(&'static str),
    #[error("`{0}` must be true or false")]
    NoFlag(&'static str),
    #[error("`{0}` must be a whole number above 0")]
    NoCount(&'static str),
    #[error("`{0}` must be a text, percent-encoded")]
    NoText(&'static str),
}

fn known_names(declared: &[&str]) -> String {
    match declared {
        [] => "there are none here".to_owned(),
        names => format!("known are {}", names.join(", ")),
    }
}

impl AdminQuery {
    /// Reads a query with these parameters.
    pub(super) fn parse(
        declared: &[AdminParameter],
        query: Option<&str>,
    ) -> Result<AdminQuery, QueryError> {
        let mut parsed = AdminQuery::default();
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, encoded) = match pair.split_once('=') {
                Some((name, encoded)) => (name, Some(encoded)),
                None => (pair, None),
            };
            let Some(parameter) = declared.iter().find(|parameter| parameter.name == name) else {
                return Err(QueryError::Unknown {
                    name: name.chars().take(64).collect(),
                    declared: declared.iter().map(|parameter| parameter.name).collect(),
                });
            };
            if !parameter.is_repeatable && parsed.has(parameter.name) {
                return Err(QueryError::Repeated(parameter.name));
            }
            let value = parse_value(parameter, encoded)?;
            parsed.0.push((parameter.name, value));
        }
        let is_missing =
            |parameter: &&AdminParameter| parameter.is_required && !parsed.has(parameter.name);
        match declared.iter().find(is_missing) {
            Some(parameter) => Err(QueryError::Missing(parameter.name)),
            None => Ok(parsed),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| *given == name)
    }

    /// The first URL of this name.
    pub fn url(&self, name: &str) -> Option<&Uri> {
        self.0.iter().find_map(|(given, value)| match value {
            ParameterValue::Url(url) if *given == name => Some(url),
            _ => None,
        })
    }

    /// All URLs of this name.
    pub fn urls<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Uri> {
        self.0.iter().filter_map(move |(given, value)| match value {
            ParameterValue::Url(url) if *given == name => Some(url),
            _ => None,
        })
    }

    /// All texts of this name.
    pub fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |(given, value)| match value {
            ParameterValue::Text(text) if *given == name => Some(&**text),
            _ => None,
        })
    }

    /// The number of this name.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.0.iter().find_map(|(given, value)| match value {
            ParameterValue::Count(count) if *given == name => Some(*count),
            _ => None,
        })
    }

    /// Whether the flag of this name is given, and true.
    pub fn flag(&self, name: &str) -> bool {
        let is_set = |(given, value): &(&str, ParameterValue)| {
            *given == name && matches!(value, ParameterValue::Flag(true))
        };
        self.0.iter().any(is_set)
    }
}

/// `encoded` is `None` for a name without `=`.
fn parse_value(
    parameter: &AdminParameter,
    encoded: Option<&str>,
) -> Result<ParameterValue, QueryError> {
    let name = parameter.name;
    match parameter.kind {
        ParameterKind::Flag => match encoded.unwrap_or_default() {
            "" | "true" | "1" => Ok(ParameterValue::Flag(true)),
            "false" | "0" => Ok(ParameterValue::Flag(false)),
            _ => Err(QueryError::NoFlag(name)),
        },
        ParameterKind::Url => {
            let url = decode(encoded.unwrap_or_default()).ok_or(QueryError::NoEscape(name))?;
            let url = absolute_url(url).ok_or(QueryError::NoUrl(name))?;
            Ok(ParameterValue::Url(url))
        }
        ParameterKind::Count => {
            let count = encoded.unwrap_or_default().parse().ok();
            let count = count.filter(|count| *count > 0);
            count
                .map(ParameterValue::Count)
                .ok_or(QueryError::NoCount(name))
        }
        ParameterKind::Text => {
            let text = decode(encoded.unwrap_or_default()).ok_or(QueryError::NoEscape(name))?;
            let text = String::from_utf8(text).ok();
            let text = text.filter(|text| !text.is_empty());
            text.map(ParameterValue::Text)
                .ok_or(QueryError::NoText(name))
        }
    }
}

fn absolute_url(text: Vec<u8>) -> Option<Uri> {
    let url = Uri::try_from(text).ok()?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    (is_http && url.authority().is_some()).then_some(url)
}

/// Decodes a value of a query; `None` if a `%` begins no escape.
fn decode(encoded: &str) -> Option<Vec<u8>> {
    let spaced = encoded.replace('+', " ");
    let decoded: Vec<u8> = percent_decode_str(&spaced).collect();
    // Each escape is two bytes shorter when decoded; a `%` that begins none is kept.
    let is_well_formed = spaced.len() - decoded.len() == 2 * spaced.matches('%').count();
    is_well_formed.then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &[AdminParameter] = &[
        AdminParameter {
            name: "url",
            kind: ParameterKind::Url,
            is_required: true,
            is_repeatable: false,
            help: "A URL.",
        },
        AdminParameter {
            name: "again",
            kind: ParameterKind::Url,
            is_required: false,
            is_repeatable: true,
            help: "A URL.",
        },
        AdminParameter {
            name: "dry",
            kind: ParameterKind::Flag,
            is_required: false,
            is_repeatable: false,
            help: "A flag.",
        },
        AdminParameter {
            name: "word",
            kind: ParameterKind::Text,
            is_required: false,
            is_repeatable: true,
            help: "A text.",
        },
    ];

    fn parse(query: &str) -> Result<AdminQuery, String> {
        AdminQuery::parse(DECLARED, Some(query)).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_urls_and_flags_as_declared() {
        let query =
            parse("dry&url=https%3A%2F%2Fa.example%2Fb%3Fc%3Dd&again=http://b/&again=http://c/");
        let query = query.unwrap();
        assert_eq!(query.url("url").unwrap(), "https://a.example/b?c=d");
        assert_eq!(query.url("again").unwrap(), "http://b/");
        let words = parse("url=http://a/&word=a%20b&word=c").unwrap();
        assert_eq!(words.texts("word").collect::<Vec<_>>(), ["a b", "c"]);
        assert!(query.flag("dry"));
        for (text, expected) in [
            ("dry=1", true),
            ("dry=", true),
            ("dry=false", false),
            ("", false),
        ] {
            let query = parse(&format!("url=http://a/&{text}")).unwrap();
            assert_eq!(query.flag("dry"), expected, "{text}");
        }
    }

    #[test]
    fn names_what_is_wrong_with_a_query() {
        const NO_URL: &str = "`url` must be an absolute http or https URL such as \
                              http://media.example/live/a.m3u8, percent-encoded";
        const NO_ESCAPE: &str = "`url` must be percent-encoded as a whole: in it, a `%` begins no \
                                 escape. One that belongs to the value is written %25";
        for (text, expected) in [
            (
                "url=http://a/&uri=x",
                "unknown parameter `uri`: known are url, again, dry, word",
            ),
            (
                "url=http://a/&url=http://b/",
                "`url` is given more than once",
            ),
            ("dry", "`url` is missing"),
            ("", "`url` is missing"),
            ("url", NO_URL),
            ("url=%zz", NO_ESCAPE),
            ("url=%4", NO_ESCAPE),
            ("url=ftp://a/", NO_URL),
            ("url=/a", NO_URL),
            ("url=http://a/&dry=maybe", "`dry` must be true or false"),
            (
                "url=http://a/&word=",
                "`word` must be a text, percent-encoded",
            ),
            (
                "url=http://a/&word=%ff",
                "`word` must be a text, percent-encoded",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
        let none = AdminQuery::parse(&[], Some("a=b")).unwrap_err();
        assert_eq!(
            none.to_string(),
            "unknown parameter `a`: there are none here"
        );
        assert!(AdminQuery::parse(&[], None).is_ok());
    }
}
