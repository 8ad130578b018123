//! Says why a log's file cannot be opened, also where nobody is to open it yet.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{Access, access};

/// Whether this process could append to the file, or create it. Opens and creates nothing.
pub(crate) fn check_log_path(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(file) if file.is_dir() => {
            let what = format!("{} is a directory", path.display());
            Err(io::Error::new(ErrorKind::IsADirectory, what))
        }
        Ok(_) => access(path, Access::WRITE_OK).map_err(|error| {
            let what = format!("this user may not write to {}", path.display());
            with_reason(&what, &error.into())
        }),
        Err(error) if is_missing(&error) => check_folder(path),
        Err(error) => Err(error),
    }
}

/// The error of an attempt to open the file, in words that say which part of the path is wrong.
pub(crate) fn explain_log_error(path: &Path, error: io::Error) -> io::Error {
    check_log_path(path).err().unwrap_or(error)
}

/// Whether a file could be created here.
fn check_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let shown = folder.display();
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {
            access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
                let what = format!("this user may not create files in {shown}");
                with_reason(&what, &error.into())
            })
        }
        Ok(_) => {
            let what = format!("{shown} is not a directory");
            Err(io::Error::new(ErrorKind::NotADirectory, what))
        }
        Err(error) if is_missing(&error) => {
            let what = format!("there is no directory {shown}");
            Err(io::Error::new(error.kind(), what))
        }
        Err(error) => Err(error),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn with_reason(what: &str, error: &io::Error) -> io::Error {
    // The words already say it.
    if error.kind() == ErrorKind::PermissionDenied {
        return io::Error::new(error.kind(), what);
    }
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn says_what_this_user_may_not_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.log");
        fs::write(&file, "").unwrap();
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(&file, 0o400);
        if check_log_path(&file).is_ok() {
            // The superuser may do everything.
            return;
        }
        let error = |path: &Path| check_log_path(path).unwrap_err().to_string();
        assert!(error(&file).starts_with("this user may not write to /"));
        set_mode(folder.path(), 0o500);
        let new = folder.path().join("new.log");
        assert!(error(&new).starts_with("this user may not create files in /"));
        set_mode(folder.path(), 0o700);
    }

    #[test]
    fn creates_nothing_and_keeps_an_error_that_it_cannot_explain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        assert!(check_log_path(&path).is_ok());
        let error = explain_log_error(&path, io::Error::other("the disk is full"));
        assert_eq!(error.to_string(), "the disk is full");
        assert!(!path.exists());
    }
}
