//! systemd, or whatever set `NOTIFY_SOCKET`, is told when the server is ready, that it lives, and
//! when it leaves.

use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::UnixDatagram;

use crate::support::patience::within;
use crate::support::program::Program;
use crate::support::{Origin, segment};

const PATH: &str = "/live/seg1.ts";

/// The end of the service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().expect("a writable folder");
        let path = folder.path().join("notify.sock");
        Manager {
            socket: UnixDatagram::bind(&path).expect("a socket"),
            path,
            _folder: folder,
        }
    }

    /// The program, which this manager has started.
    async fn start(&self, origin: &Origin, watchdog_usec: &str) -> Program {
        Program::serve_with(origin, "", |command| {
            command
                .env("NOTIFY_SOCKET", &self.path)
                .env("WATCHDOG_USEC", watchdog_usec)
                .stderr(Stdio::null());
        })
        .await
    }

    async fn next(&self) -> String {
        let mut bytes = [0; 512];
        let received = within("a message of the program", self.socket.recv(&mut bytes)).await;
        let count = received.expect("an open socket");
        String::from_utf8(bytes[..count].to_vec()).expect("a text")
    }

    async fn read_until(&self, assignment: &str) -> String {
        loop {
            let message = self.next().await;
            if message.lines().any(|line| line == assignment) {
                return message;
            }
        }
    }
}

#[tokio::test]
async fn ready_comes_first_and_once_the_workers_serve() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let manager = Manager::new();
    let program = manager.start(&origin, "0").await;
    let first = manager.next().await;
    assert!(first.starts_with("READY=1\nSTATUS="), "{first}");
    program.viewer().await.get(PATH).await.assert_whole("whole");
}

#[tokio::test]
async fn watchdog_is_fed_while_all_workers_answer() {
    let origin = Origin::start().await;
    let manager = Manager::new();
    let _program = manager.start(&origin, "20000").await;
    for _ in 0..3 {
        manager.read_until("WATCHDOG=1").await;
    }
}

#[tokio::test]
async fn stopping_is_reported_once() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let manager = Manager::new();
    let mut program = manager.start(&origin, "0").await;
    manager.read_until("READY=1").await;
    for _ in 0..2 {
        program.signal("TERM");
    }
    manager.read_until("STOPPING=1").await;
    assert_eq!(program.wait_end().await, Some(0));
    let mut bytes = [0; 512];
    while let Ok(count) = manager.socket.try_recv(&mut bytes) {
        let message = String::from_utf8_lossy(&bytes[..count]);
        assert!(!message.contains("STOPPING"), "{message}");
    }
}

/// With `NotifyAccess=main` the service manager takes messages of its main process alone: the old
/// process names the new one, and then says nothing more.
#[tokio::test]
async fn upgrade_names_the_new_main_process() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let manager = Manager::new();
    let mut program = manager.start(&origin, "20000").await;
    manager.read_until("READY=1").await;
    program.signal("USR2");
    let main = loop {
        let message = manager.next().await;
        if let Some(pid) = message.strip_prefix("MAINPID=") {
            break pid.parse::<i32>().expect("a number");
        }
        assert!(message.starts_with("WATCHDOG=1"), "{message}");
    };
    assert_ne!(main, program.pid());
    manager.read_until("READY=1").await;
    assert_eq!(program.wait_end().await, Some(0));
    // From the new process, for which `WATCHDOG_PID` would be wrong.
    for _ in 0..3 {
        let message = manager.next().await;
        assert!(message.starts_with("WATCHDOG=1"), "{message}");
    }
}
