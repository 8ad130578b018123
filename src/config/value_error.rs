//! Why can a text not be read as what it should be? Knows neither files nor places.

use std::fmt;

/// Why a text is not what it should be. Quotes nothing of the text, except in `instead`, which
/// is left out wherever the text may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// What it should be, with an article and an example.
    pub wanted: &'static str,
    /// What is wrong with it, in a few words.
    pub why: &'static str,
    /// What was probably meant.
    pub instead: Option<String>,
}

impl ValueError {
    /// A text that is not what was wanted.
    pub(crate) fn new(wanted: &'static str, why: &'static str) -> ValueError {
        ValueError {
            wanted,
            why,
            instead: None,
        }
    }

    /// What was probably meant.
    pub(crate) fn instead(mut self, text: impl Into<String>) -> ValueError {
        self.instead = Some(text.into());
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} ({})", self.wanted, self.why)?;
        match &self.instead {
            Some(text) => write!(f, "; did you mean \"{text}\"?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ValueError {}
