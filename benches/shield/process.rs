//! A child process with its children: CPU time, memory, and a reliable end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep};

/// The interval of checks whether a program has ended.
const LOOK: Duration = Duration::from_millis(5);
/// The time that a program gets to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// A program that was started here. Dropping it ends it and its children.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    ticks_per_second: f64,
}

impl Program {
    /// Starts it; its output goes to a file in `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> anyhow::Result<Program> {
        let log = folder.join(format!("{name}.log"));
        let output = fs::File::create(&log).context("cannot write a log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot write a log")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Program {
            name: name.to_owned(),
            child,
            log,
            ticks_per_second: ticks_per_second(),
        })
    }

    /// An error with the end of its output, if it has ended.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.output_tail()),
        }
    }

    /// Waits for its end, and returns its output.
    pub async fn finish(mut self, patience: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "{} does not end", self.name);
            sleep(LOOK).await;
        };
        let name = &self.name;
        ensure!(
            status.success(),
            "{name} failed ({status}):\n{}",
            self.output_tail()
        );
        fs::read_to_string(&self.log).with_context(|| format!("cannot read what {name} wrote"))
    }

    /// The end of its output.
    pub fn output_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// CPU time so far, user and system, of it and its children.
    pub fn cpu_seconds(&self) -> f64 {
        let ticks: u64 = self.with_children().iter().map(|member| member.ticks).sum();
        ticks as f64 / self.ticks_per_second
    }

    /// Resident memory of it and its children.
    pub fn resident_mebibytes(&self) -> u64 {
        let family = self.with_children();
        let resident = family.iter().filter_map(|member| {
            let status = fs::read_to_string(format!("/proc/{}/status", member.pid)).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        resident.sum::<u64>() >> 10
    }

    /// The process itself and its children.
    fn with_children(&self) -> Vec<Member> {
        let own = self.child.id();
        processes().filter(|one| one.belongs_to(own)).collect()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a destructor cannot await, and nothing else goes on when a program is ended"
    )]
    fn wait_end(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let family = self.with_children();
        // First SIGTERM: nginx's parent then ends and reaps its children.
        signal("TERM", self.child.id());
        if !self.wait_end(PATIENCE) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for orphan in family.iter().filter(|member| member.pid != self.child.id()) {
            if Path::new("/proc").join(orphan.pid.to_string()).exists() {
                signal("KILL", orphan.pid);
            }
        }
    }
}

/// CPU time of this process so far, user and system.
pub fn own_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let own = Member::read(&stat);
    own.map_or(0.0, |own| own.ticks as f64 / ticks_per_second())
}

/// The shell's own `kill`: not every machine has it as a program.
fn signal(name: &str, pid: u32) {
    let kill = format!("kill -{name} {pid}");
    let _ = Command::new("sh")
        .args(["-c", &kill])
        .stderr(Stdio::null())
        .status();
}

/// One process, as the kernel reports it.
struct Member {
    pid: u32,
    parent: u32,
    ticks: u64,
}

impl Member {
    fn belongs_to(&self, pid: u32) -> bool {
        self.pid == pid || self.parent == pid
    }

    /// Reads `/proc/PID/stat`. The second field, the name, may contain anything, even parentheses.
    fn read(stat: &str) -> Option<Member> {
        let pid = stat.split(' ').next()?.parse().ok()?;
        let rest: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        // User and system time, then those of children that have ended.
        let ticks = rest
            .get(11..15)?
            .iter()
            .map(|field| field.parse::<u64>().unwrap_or(0));
        Some(Member {
            pid,
            parent: rest.get(1)?.parse().ok()?,
            ticks: ticks.sum(),
        })
    }
}

fn processes() -> impl Iterator<Item = Member> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        Member::read(&stat)
    })
}

fn ticks_per_second() -> f64 {
    /// The value on every common Linux platform.
    const USUAL: f64 = 100.0;
    let asked = Command::new("getconf").arg("CLK_TCK").output();
    asked
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL)
}
