//! Where do appended lines go when the log is rotated? The file is opened again when its path no
//! longer leads to it, so that moving it away is all a rotation has to do.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Lines name viewers' addresses: for the owner and the group, not for everyone.
const MODE: u32 = 0o640;

/// How often the path is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file that is appended to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
    look_every: Duration,
}

impl LogFile {
    /// Opens or creates it.
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        let file = open(path)?;
        let looked = Instant::now();
        Ok(LogFile {
            path: path.to_owned(),
            file,
            looked,
            look_every: LOOK_EVERY,
        })
    }

    fn was_moved(&self) -> bool {
        let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
        let there = std::fs::metadata(&self.path).map(identity).ok();
        there != self.file.metadata().map(identity).ok()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// Called between lines only, with everything written: the moment to change files.
    fn flush(&mut self) -> io::Result<()> {
        if self.looked.elapsed() >= self.look_every {
            self.looked = Instant::now();
            if self.was_moved() {
                self.file = open(&self.path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{read_to_string, rename};

    use super::*;

    #[test]
    fn a_log_that_was_moved_away_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = LogFile {
            look_every: Duration::ZERO,
            ..LogFile::open(&path).unwrap()
        };
        log.write_all(b"one\n").unwrap();
        log.flush().unwrap();
        rename(&path, &old).unwrap();
        log.write_all(b"two\n").unwrap();
        log.flush().unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_log_that_stayed_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile {
            look_every: Duration::ZERO,
            ..LogFile::open(&path).unwrap()
        };
        log.write_all(b"one\n").unwrap();
        log.flush().unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
