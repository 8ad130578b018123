//! A slow or stalled reader of the program's log delays no viewer, and no viewer can fill the log.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use nix::libc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::patience::within;
use crate::support::program::Program;
use crate::support::viewer::Viewer;
use crate::support::{Origin, eventually, get, segment};

const PATH: &str = "/live/seg1.ts";
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"";

/// The start of an HTTP/2 connection by prior knowledge: the preface and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// A PING with the ACK flag.
const PING_ACK: &[u8] = b"\x00\x00\x08\x06\x01\x00\x00\x00\x00nobodyAs";

async fn value(admin: std::net::SocketAddr, metric: &str) -> u64 {
    let page = Viewer::connect(admin)
        .await
        .ask(get("/metrics").host("localhost"))
        .await;
    let found = page.text().lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == metric).then(|| value.parse().unwrap())
    });
    found.unwrap_or_else(|| panic!("no {metric}"))
}

#[tokio::test]
async fn viewers_are_served_while_standard_error_is_not_read() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let mut program = Program::serve_with(&origin, ADMIN, |command| {
        command.stderr(Stdio::piped());
        command.env("SEAWALL_LOG", "info,hyper=trace,h2=trace,tokio_util=trace");
    })
    .await;
    let mut log = program.log();
    let admin = log.admin().await;
    // From here on the log is not read. A pipe holds 64 KiB, and each frame causes some log lines.
    let queue_full = "seawall_log_lines_dropped_total{reason=\"queue_full\"}";
    eventually("lines to be dropped", async || {
        let mut noisy = program.viewer().await;
        noisy.send_raw(HELLO).await;
        noisy.send_raw(&PING_ACK.repeat(100)).await;
        let served = program.viewer().await.get(PATH).await;
        served.assert_whole("whole");
        value(admin, queue_full).await > 0
    })
    .await;
    for _ in 0..10 {
        program.viewer().await.get(PATH).await.assert_whole("whole");
    }
    let health = Viewer::connect(admin)
        .await
        .ask(get("/healthz").host("localhost"))
        .await;
    assert_eq!(health.status, 200, "{health:?}");
}

#[tokio::test]
async fn unsolicited_ping_acks_write_no_log_lines() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let mut program = Program::serve_with(&origin, ADMIN, |command| {
        command.stderr(Stdio::piped());
    })
    .await;
    let mut log = program.log();
    let admin = log.admin().await;
    let mut noisy = within("a socket", UnixStream::connect(program.socket()))
        .await
        .unwrap();
    noisy.write_all(HELLO).await.unwrap();
    noisy.write_all(&PING_ACK.repeat(200)).await.unwrap();
    // An ordinary PING behind them is answered once they have been read.
    noisy
        .write_all(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00are-here")
        .await
        .unwrap();
    let mut heard = Vec::new();
    within("an answer", async {
        while !heard.ends_with(b"are-here") {
            let byte = noisy.read_u8().await.expect("an open connection");
            heard.push(byte);
        }
    })
    .await;
    program.signal("USR1");
    let between = log.read_lines_until("SIGUSR1").await;
    assert!(
        between.iter().all(|line| !line.contains("PING")),
        "{between:#?}"
    );
    assert_eq!(
        value(
            admin,
            "seawall_log_lines_dropped_total{reason=\"repeated\"}"
        )
        .await,
        0
    );
}

/// An access log may be a named pipe whose reader comes late, or leaves.
#[tokio::test]
async fn viewers_are_served_while_access_log_pipe_is_not_read() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("access.pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("a mkfifo program").success());
    let bounds = format!("{ADMIN}\n[access_log]\nenabled = true\npath = {pipe:?}");
    let mut program = Program::serve_with(&origin, &bounds, |command| {
        command.stderr(Stdio::piped());
    })
    .await;
    let mut log = program.log();
    log.read_until("no process reads the access log's pipe")
        .await;
    let admin = log.admin().await;
    let dropped = "seawall_access_log_lines_total{result=\"dropped\"}";
    for _ in 0..2 {
        let before = value(admin, dropped).await;
        eventually("lines to be lost", async || {
            let mut viewer = program.viewer().await;
            for _ in 0..100 {
                viewer.get(PATH).await.assert_whole("whole");
            }
            value(admin, dropped).await > before
        })
        .await;
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe);
        let (mut reader, mut text) = (opened.unwrap(), Vec::new());
        eventually("the line of a later request", async || {
            program.viewer().await.get("/live/later.ts").await;
            // Reading returns 0 while no writer has the pipe open.
            let mut bytes = vec![0; 64 << 10];
            let read = reader.read(&mut bytes).unwrap_or(0);
            text.extend_from_slice(&bytes[..read]);
            String::from_utf8_lossy(&text).contains("/live/later.ts")
        })
        .await;
        drop(reader);
        log.read_until("the access log's pipe has a reader").await;
    }
}
