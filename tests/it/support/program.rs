//! The real program in a process of its own: for what is only seen from outside, such as memory.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::UnixStream;

use super::origin::Origin;
use super::patience::eventually;
use super::viewer::Viewer;

/// `seawall serve` on a Unix socket. Killed when dropped.
pub struct Program {
    child: Child,
    socket: PathBuf,
    _folder: TempDir,
}

impl Program {
    /// Starts the program in front of `origin` with these bounds; waits until it listens.
    pub async fn serve(origin: &Origin, bounds: &str) -> Program {
        let folder = tempfile::tempdir().expect("a writable folder");
        let socket = folder.path().join("viewers.sock");
        let file = folder.path().join("seawall.toml");
        fs::write(&file, configuration(origin, &socket, bounds)).expect("a writable folder");
        let child = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program was built");
        let mut program = Program {
            child,
            socket,
            _folder: folder,
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

    /// Bytes in memory now.
    pub fn resident_bytes(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most bytes that were ever in memory.
    pub fn resident_bytes_max(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).expect("a running program");
        let line = text.lines().find(|line| line.starts_with(field));
        let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kibibytes.expect("a number of kibibytes") << 10
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a person would type for this.
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
