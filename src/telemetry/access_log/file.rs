//! The access log's file or named pipe. It is opened again when its path leads to another file, so
//! a log rotation only has to move it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

/// Lines contain viewers' addresses: readable by owner and group only.
const MODE: u32 = 0o640;

/// Interval between checks of the path.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum wait for a full pipe, …
const FULL_MAX: Duration = Duration::from_secs(1);
/// … and the interval between attempts.
const FULL_RETRY: Duration = Duration::from_millis(10);

/// A file that is appended to, or a named pipe.
pub(super) struct LogFile {
    path: PathBuf,
    /// `None`: a pipe without a reader.
    file: Option<File>,
    /// The last write ended in the middle of a line.
    is_torn: bool,
    /// Skips the rest of a line whose beginning went to the previous reader of the pipe.
    skips_rest: bool,
    checked_at: Instant,
    check_interval: Duration,
}

impl LogFile {
    /// Opens or creates it.
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        let file = open(path)?;
        let checked_at = Instant::now();
        let log = LogFile {
            path: path.to_owned(),
            file,
            is_torn: false,
            skips_rest: false,
            checked_at,
            check_interval: CHECK_INTERVAL,
        };
        if log.file.is_none() {
            log.warn_of_no_reader();
        }
        Ok(log)
    }

    fn warn_of_no_reader(&self) {
        let path = self.path.display();
        tracing::warn!(%path, "no process reads the access log's pipe: its lines are lost until one does");
    }

    /// Whether the next check of the path is due.
    fn is_check_due(&mut self) -> bool {
        let is_time = self.checked_at.elapsed() >= self.check_interval;
        if is_time {
            self.checked_at = Instant::now();
        }
        is_time
    }

    fn was_moved(&self) -> bool {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let current = std::fs::metadata(&self.path).map(identity).ok();
        let file = self.file.as_ref();
        file.is_some_and(|file| current != file.metadata().map(identity).ok())
    }
}

/// Opens without blocking. `None`: a pipe without a reader.
fn open(path: &Path) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    match opened {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) && is_pipe(path) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Waits for a slow reader of a full pipe, on the log's own thread.
#[expect(clippy::disallowed_methods, reason = "the log has a thread of its own")]
fn write(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
    let start = Instant::now();
    loop {
        match file.write(bytes) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < FULL_MAX =>
            {
                thread::sleep(FULL_RETRY);
            }
            written => return written,
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() && self.is_check_due() {
            self.file = open(&self.path)?;
            if self.file.is_some() {
                tracing::info!(path = %self.path.display(), "the access log's pipe has a reader");
                self.skips_rest = std::mem::take(&mut self.is_torn);
            }
        }
        let Some(file) = &self.file else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        if self.skips_rest {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            self.skips_rest = end.is_none();
            return Ok(end.map_or(bytes.len(), |end| end + 1));
        }
        let written = write(file, bytes);
        if let Ok(count @ 1..) = written {
            self.is_torn = bytes[count - 1] != b'\n';
        }
        let has_no_reader = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        if written.as_ref().is_err_and(has_no_reader) && is_pipe(&self.path) {
            self.file = None;
            self.warn_of_no_reader();
        }
        written
    }

    /// Called only between lines and after everything was written: the file may be changed now.
    fn flush(&mut self) -> io::Result<()> {
        if self.is_check_due() && self.was_moved() {
            self.file = open(&self.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{read_to_string, rename};
    use std::io::Read;

    use super::*;

    #[test]
    fn reopens_a_log_file_that_was_moved() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = LogFile {
            check_interval: Duration::ZERO,
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

    /// The line was partly written when the first reader left.
    #[test]
    fn starts_the_next_pipe_reader_at_a_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let mkfifo = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(mkfifo.unwrap().success());
        let reader = || {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_NONBLOCK);
            options.open(&path).unwrap()
        };
        let first = reader();
        let mut log = LogFile {
            check_interval: Duration::ZERO,
            ..LogFile::open(&path).unwrap()
        };
        let line = [vec![b'a'; 200_000], b"\n".to_vec()].concat();
        let count = log.write(&line).unwrap();
        assert!(count < line.len(), "the pipe is full");
        drop(first);
        assert!(log.write(&line[count..]).is_err());
        let mut second = reader();
        let (part, rest) = line[count..].split_at(10);
        log.write_all(part).unwrap();
        log.write_all(rest).unwrap();
        log.write_all(b"next\n").unwrap();
        let mut bytes = [0; 100];
        let read = second.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..read], b"next\n");
    }

    #[test]
    fn keeps_a_log_file_that_was_not_moved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile {
            check_interval: Duration::ZERO,
            ..LogFile::open(&path).unwrap()
        };
        log.write_all(b"one\n").unwrap();
        log.flush().unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
