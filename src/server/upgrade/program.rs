//! The program that an upgrade starts: the file by which this process was started, which may have
//! been replaced since, with the same arguments.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf, absolute};
use std::process::{Child, Command, Stdio};

use super::predecessor::PREDECESSOR_VARIABLE;

/// Variables that are meant for this process alone.
const OWN_VARIABLES: [&str; 4] = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// How this process was started.
#[derive(Clone, Debug)]
pub struct StartedProgram {
    file: PathBuf,
    arguments: Vec<OsString>,
}

/// A process that was started, and what leads to it.
pub(super) struct StartedProcess {
    pub(super) child: Child,
    /// The other end is its standard input.
    pub(super) channel: UnixStream,
    /// Reads its standard error.
    pub(super) messages: io::PipeReader,
}

impl StartedProgram {
    /// That of this process. Call it at the start: later the file may be another one.
    pub fn of_this_process() -> io::Result<StartedProgram> {
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_default();
        let running = std::env::current_exe()?;
        Ok(StartedProgram {
            file: started_file(&name, std::env::var_os("PATH").as_deref(), running),
            arguments: words.collect(),
        })
    }

    /// A program without arguments.
    #[cfg(test)]
    pub(super) fn with_file(file: PathBuf) -> StartedProgram {
        let arguments = Vec::new();
        StartedProgram { file, arguments }
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Starts it, to follow this process.
    pub(super) fn start(&self) -> io::Result<StartedProcess> {
        let (channel, theirs) = UnixStream::pair()?;
        let (messages, writer) = io::pipe()?;
        let mut command = Command::new(&self.file);
        command.args(&self.arguments);
        for variable in OWN_VARIABLES {
            command.env_remove(variable);
        }
        command.env(PREDECESSOR_VARIABLE, std::process::id().to_string());
        // Standard input, because it is the one descriptor that a child gets by a safe interface
        // and the program does not use.
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stderr(Stdio::from(writer));
        Ok(StartedProcess {
            child: command.spawn()?,
            channel,
            messages,
        })
    }
}

/// The path by which the program was started, if it leads to the running file: a symbolic link may
/// lead to another version later. Else the running file itself.
fn started_file(name: &OsStr, search_path: Option<&OsStr>, running: PathBuf) -> PathBuf {
    let is_running = |path: &Path| path.canonicalize().is_ok_and(|path| path == running);
    let named = Path::new(name);
    let started = if named.components().count() > 1 {
        absolute(named).ok().filter(|path| is_running(path))
    } else {
        let folders = search_path.map(std::env::split_paths).into_iter().flatten();
        let mut files = folders.filter_map(|folder| absolute(folder.join(named)).ok());
        files.find(|path| is_running(path))
    };
    started.unwrap_or(running)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn link_by_which_it_was_started_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (real, link) = (folder.join("seawall-1"), folder.join("seawall"));
        fs::write(&real, "").unwrap();
        symlink(&real, &link).unwrap();
        let started = |name: &OsStr, path| started_file(name, path, real.clone());
        assert_eq!(started(link.as_os_str(), None), link);
        let path = Some(folder.as_os_str());
        assert_eq!(started(OsStr::new("seawall"), path), link);
        // What `argv[0]` says need not be true.
        for wrong in ["other", "./other", "", "/bin/sh"] {
            assert_eq!(started(OsStr::new(wrong), path), real, "{wrong}");
        }
    }
}
