//! The machine's cores and tools. The server gets one core, everything else (load, origin, this
//! process) another, so that their CPU times are separate. Also reports what is installed, the free
//! space, and how busy the machine is.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The cores of a run.
pub struct Cores {
    pinned: Option<Pair>,
    /// Notes for the user about them.
    pub told: String,
}

struct Pair {
    taskset: PathBuf,
    server: usize,
}

impl Cores {
    /// Moves this process to its own core, if there are two and `taskset` is installed. Must be
    /// called before threads start: each thread keeps the cores of its creation.
    pub fn pin() -> Cores {
        let unpinned = |why: &str| Cores {
            pinned: None,
            told: format!("not pinned to cores: {why}; figures will be noisier"),
        };
        let allowed = allowed_cores();
        let &[server, load, ..] = allowed.as_slice() else {
            return unpinned("there is only one");
        };
        let Some(taskset) = program("taskset") else {
            return unpinned("taskset is not installed");
        };
        let moved = Command::new(&taskset)
            .args(["-pc", &load.to_string(), &std::process::id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match moved {
            Ok(status) if status.success() => Cores {
                pinned: Some(Pair { taskset, server }),
                told: format!("servers on core {server}, load and origin on core {load}"),
            },
            _ => unpinned("taskset failed"),
        }
    }

    /// A command that runs on the server's core.
    pub fn server_command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.pinned {
            None => Command::new(program),
            Some(Pair { taskset, server }) => {
                let mut command = Command::new(taskset);
                command.args(["-c", &server.to_string()]).arg(program);
                command
            }
        }
    }
}

/// The share of the machine that is busy now, measured over a moment; `None` if the kernel does not
/// say.
pub async fn busy_share() -> Option<f64> {
    const MOMENT: Duration = Duration::from_millis(500);
    let before = Times::read()?;
    tokio::time::sleep(MOMENT).await;
    let after = Times::read()?;
    let all = after.all.checked_sub(before.all).filter(|&all| all > 0)?;
    let idle = after.idle.saturating_sub(before.idle);
    Some(1.0 - idle as f64 / all as f64)
}

/// The work of all cores since boot, in clock ticks.
struct Times {
    all: u64,
    idle: u64,
}

impl Times {
    /// Reads the first line of `/proc/stat`: the word `cpu`, then times by kind; the fourth is
    /// idle, the fifth is waiting for I/O.
    fn read() -> Option<Times> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let times: Vec<u64> = stat
            .lines()
            .next()?
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        Some(Times {
            all: times.iter().sum(),
            idle: times.get(3..5)?.iter().sum(),
        })
    }
}

/// The free space of a directory's file system; `None` without that directory.
pub fn free_kibibytes(folder: &str) -> Option<u64> {
    let told = Command::new("df").args(["-Pk", folder]).output().ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    told.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

/// The cores that this process may use: `0-3,8` and the like.
fn allowed_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap_or_default();
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// The path of an installed program. Debian keeps servers outside ordinary users' `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let hidden = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(hidden)
        .map(|folder| folder.join(name))
        .find(|file: &PathBuf| Path::is_file(file))
}
