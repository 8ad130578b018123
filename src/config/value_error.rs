//! Why a text is not a valid value. Knows neither files nor positions.

use std::fmt;

/// Why a text is not valid. Quotes nothing of the text, except in `suggestion`, which is left out
/// if the text may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// The expected value, with an article and an example.
    pub expected: &'static str,
    /// What is wrong, in a few words.
    pub why: &'static str,
    /// The value that was probably meant.
    pub suggestion: Option<String>,
}

impl ValueError {
    /// An error for a text that is not the expected value.
    pub(crate) fn new(expected: &'static str, why: &'static str) -> ValueError {
        ValueError {
            expected,
            why,
            suggestion: None,
        }
    }

    /// Adds the value that was probably meant.
    pub(crate) fn suggestion(mut self, text: impl Into<String>) -> ValueError {
        self.suggestion = Some(text.into());
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} ({})", self.expected, self.why)?;
        match &self.suggestion {
            Some(text) => write!(f, "; did you mean \"{text}\"?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ValueError {}
