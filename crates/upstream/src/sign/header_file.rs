//! A header value from a file: the last good value and, for a while, the one before.
//!
//! Files are read where blocking is allowed; reading the value never blocks. Values are secrets and
//! are never shown.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::file;

/// How long a replaced value is kept: MediaPackage may take this long to accept a new one.
const GRACE: Duration = Duration::from_mins(10);

/// A header whose value is in a file.
pub struct HeaderFile {
    pub(super) name: HeaderName,
    path: PathBuf,
    values: RwLock<HeaderFileValues>,
    /// The file was unusable at the last read.
    was_unusable: AtomicBool,
}

struct HeaderFileValues {
    current: HeaderValue,
    /// The previous value, and until when it may be tried.
    previous: Option<(HeaderValue, Instant)>,
}

impl HeaderFile {
    /// Reads the file for the first time. An error names it again.
    pub fn new(name: HeaderName, path: PathBuf) -> Result<HeaderFile, (PathBuf, String)> {
        let current = match header_value(&path) {
            Ok(value) => value,
            Err(why) => return Err((path, why)),
        };
        let previous = None;
        Ok(HeaderFile {
            name,
            path,
            values: RwLock::new(HeaderFileValues { current, previous }),
            was_unusable: AtomicBool::new(false),
        })
    }

    /// Reads the file again; true if the value changed. Blocks.
    pub fn reread(&self) -> bool {
        self.apply(header_value(&self.path), Instant::now())
    }

    fn apply(&self, read: Result<HeaderValue, String>, now: Instant) -> bool {
        let (header, path) = (self.name.as_str(), self.path.display());
        let value = match read {
            Ok(value) => value,
            Err(why) => {
                if !self.was_unusable.swap(true, Ordering::Relaxed) {
                    tracing::warn!(header, %path, why, "header file not usable: last value kept");
                }
                return false;
            }
        };
        self.was_unusable.store(false, Ordering::Relaxed);
        let mut values = self.values.write();
        if values.current == value {
            return false;
        }
        let previous = std::mem::replace(&mut values.current, value);
        values.previous = Some((previous, now + GRACE));
        drop(values);
        tracing::info!(header, %path, "header file changed: its new value is used");
        true
    }

    /// The value that the file had at the last read at which it was usable.
    pub fn current(&self) -> HeaderValue {
        self.values.read().current.clone()
    }

    /// The previous value, while it is kept.
    pub(super) fn previous(&self, now: Instant) -> Option<HeaderValue> {
        let values = self.values.read();
        let (value, until) = values.previous.as_ref()?;
        (now < *until).then(|| value.clone())
    }
}

/// Reads a header value from a file that contains nothing else; a trailing newline is removed.
/// Blocks. Errors quote nothing of it.
pub fn header_value(path: &Path) -> Result<HeaderValue, String> {
    let text = file::text(path).map_err(|why| why.to_string())?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err("this file is empty".to_owned());
    }
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| "characters that a header cannot carry".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, text: &str) -> HeaderFile {
        let path = folder.join("code");
        std::fs::write(&path, text).unwrap();
        let name = HeaderName::from_static("x-mediapackagev2-cdnidentifier");
        HeaderFile::new(name, path).ok().unwrap()
    }

    #[test]
    fn changed_file_is_used_and_old_value_is_kept_for_grace() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path(), "first\n");
        assert_eq!(file.current(), "first");
        assert!(file.current().is_sensitive());
        assert!(!file.reread());
        let now = Instant::now();
        assert_eq!(file.previous(now), None);
        std::fs::write(folder.path().join("code"), "second\r\n").unwrap();
        assert!(file.reread());
        assert_eq!(file.current(), "second");
        assert_eq!(file.previous(now).unwrap(), "first");
        assert_eq!(file.previous(Instant::now() + GRACE), None);
    }

    #[test]
    fn unusable_file_keeps_the_current_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path(), "first");
        let path = folder.path().join("code");
        for text in ["", "\n", "a\nb", "caf\u{e9}\u{7}", &"x".repeat(300_000)] {
            std::fs::write(&path, text).unwrap();
            assert!(!file.reread());
            assert_eq!(file.current(), "first");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!file.reread() && file.was_unusable.load(Ordering::Relaxed));
        std::fs::write(&path, "second").unwrap();
        assert!(file.reread() && !file.was_unusable.load(Ordering::Relaxed));
    }

    #[test]
    fn header_file_error_does_not_quote_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        std::fs::write(&path, "hunter\u{1}2").unwrap();
        assert_eq!(
            header_value(&path).unwrap_err(),
            "characters that a header cannot carry"
        );
        assert_eq!(
            header_value(folder.path()).unwrap_err(),
            "this is not a plain file"
        );
    }
}
