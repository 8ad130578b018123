//! The real program in its own process, for properties that show only from outside, such as memory.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rlimit::Resource;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;

use super::origin::Origin;
use super::patience::{eventually, within};
use super::viewer::Viewer;

/// `seawall serve` on a Unix socket. Killed when dropped, with what an upgrade has started.
pub struct Program {
    child: Child,
    socket: PathBuf,
    file: PathBuf,
    /// A link to the program, by which it is started.
    link: PathBuf,
    folder: TempDir,
}

impl Program {
    /// Starts the program in front of `origin` with these limits; waits until it listens.
    pub async fn serve(origin: &Origin, bounds: &str) -> Program {
        Program::serve_with(origin, bounds, |_| {}).await
    }

    /// The same, with changes to its environment and its outputs.
    pub async fn serve_with(
        origin: &Origin,
        bounds: &str,
        change: impl FnOnce(&mut Command),
    ) -> Program {
        let folder = tempfile::tempdir().expect("a writable folder");
        let socket = folder.path().join("viewers.sock");
        let file = folder.path().join("seawall.toml");
        fs::write(&file, configuration(origin, &socket, bounds)).expect("a writable folder");
        let link = folder.path().join("seawall");
        symlink(env!("CARGO_BIN_EXE_seawall"), &link).expect("a writable folder");
        let mut command = Command::new(&link);
        command
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        change(&mut command);
        let child = command.spawn().expect("the program was built");
        let mut program = Program {
            child,
            socket,
            file,
            link,
            folder,
        };
        eventually("the program to listen", async || {
            let ended = program.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "the program ended: {ended:?}");
            UnixStream::connect(&program.socket).await.is_ok()
        })
        .await;
        program
    }

    /// A new connection.
    pub async fn viewer(&self) -> Viewer {
        Viewer::connect_unix(&self.socket).await
    }

    /// The configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Writes the configuration file anew, as for [`Program::serve`].
    pub fn write_configuration(&self, origin: &Origin, bounds: &str) {
        let text = configuration(origin, &self.socket, bounds);
        fs::write(&self.file, text).expect("a writable folder");
    }

    /// Replaces the program by another one, for the next upgrade.
    pub fn replace_by_script(&self, script: &str) {
        let text = self.folder.path().join("script");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("a writable folder");
        fs::remove_file(&self.link).expect("the link");
        // By another process: this one may be starting a third, which then has the file open for
        // writing, so that it cannot be run.
        let mut install = Command::new("install");
        install.args(["-m", "755"]).args([&text, &self.link]);
        assert!(install.status().expect("coreutils").success());
    }

    /// Puts the program back.
    pub fn restore(&self) {
        fs::remove_file(&self.link).expect("the link");
        symlink(env!("CARGO_BIN_EXE_seawall"), &self.link).expect("a writable folder");
    }

    /// The folder of the program.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The viewers' socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The program's log, if standard error is a pipe. The pipe fills up unless it is read.
    pub fn log(&mut self) -> Log {
        let pipe = self.child.stderr.take().expect("a piped standard error");
        let pipe = Receiver::from_owned_fd(OwnedFd::from(pipe)).expect("a pipe");
        Log(BufReader::new(pipe).lines())
    }

    /// Sends the program a signal by its name, as an operator would.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("a kill program").success(), "no {name} sent");
    }

    /// Waits until the program has ended; its exit code, if any.
    pub async fn wait_end(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the program to end", async || {
            let status = self.child.try_wait().expect("a child of ours");
            code = status.and_then(|status| status.code());
            status.is_some()
        })
        .await;
        code
    }

    /// Resident memory in bytes now.
    pub fn resident_bytes(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The highest resident memory so far, in bytes.
    pub fn resident_bytes_max(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The descriptors that the program has open.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(folder).expect("a running program").count()
    }

    /// Prevents the program from opening descriptors; returns the former limit.
    pub fn exhaust_descriptors(&self) -> (u64, u64) {
        /// The descriptors that every process has. Open ones stay open.
        const STANDARD: u64 = 3;
        let (mut soft, mut hard) = (0, 0);
        let limit = Some((&mut soft, &mut hard));
        rlimit::prlimit(self.pid(), Resource::NOFILE, None, limit).expect("a child of ours");
        self.limit_descriptors((STANDARD, hard));
        (soft, hard)
    }

    /// Limits the number of descriptors that the program may open.
    pub fn limit_descriptors(&self, limit: (u64, u64)) {
        let limited = rlimit::prlimit(self.pid(), Resource::NOFILE, Some(limit), None);
        limited.expect("a child of ours");
    }

    /// The number of the process that was started first.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process number")
    }

    fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).expect("a running program");
        let line = text.lines().find(|line| line.starts_with(field));
        let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kibibytes.expect("a number of kibibytes") << 10
    }
}

/// The lines of a program's log.
pub struct Log(Lines<BufReader<Receiver>>);

impl Log {
    /// Reads up to a line that contains these words, and returns it.
    pub async fn read_until(&mut self, words: &str) -> String {
        self.read_lines_until(words)
            .await
            .pop()
            .expect("at least that line")
    }

    /// Reads up to a line that contains these words, and returns all lines read.
    pub async fn read_lines_until(&mut self, words: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let what = format!("a line with {words}");
        while let Ok(Some(line)) = within(&what, self.0.next_line()).await {
            let last = line.contains(words);
            lines.push(line);
            if last {
                return lines;
            }
        }
        panic!("the log ended without {words}: {lines:#?}")
    }

    /// Reads until the program logs the address of the admin listener.
    pub async fn admin(&mut self) -> SocketAddr {
        self.address_after("admin server listens on ", "").await
    }

    /// Reads until the program logs that it listens for viewers on this host.
    pub async fn listener(&mut self, host: &str) -> SocketAddr {
        self.address_after("listening on ", &format!("{host}:"))
            .await
    }

    /// The address that begins like this, after these words.
    async fn address_after(&mut self, words: &str, begin: &str) -> SocketAddr {
        let line = self.read_until(&format!("{words}{begin}")).await;
        let (_, address) = line.split_once(words).expect("just seen");
        let address: String = address
            .chars()
            .take_while(|one| one.is_ascii_digit() || matches!(one, '.' | ':'))
            .collect();
        address.parse().expect("an address")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        // An upgrade's process has the same file in its arguments.
        let file = self.file.as_os_str().as_bytes();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if arguments.split(|byte| *byte == 0).any(|word| word == file) {
                let pid = process.file_name();
                Command::new("kill").arg("-KILL").arg(pid).status().ok();
            }
        }
    }
}

/// Whether a process runs.
pub fn is_running(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    // An orphan that has ended may wait for somebody to read its exit code.
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// A minimal configuration for this.
fn configuration(origin: &Origin, socket: &std::path::Path, bounds: &str) -> String {
    let address = origin.address();
    let socket = socket.display();
    format!(
        r#"
        [[listener]]
        listen = "unix:{socket}"

        [[origin]]
        name = "only"
        endpoints = ["http://{address}"]

        {bounds}
        "#
    )
}
