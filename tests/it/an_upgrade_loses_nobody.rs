//! An upgrade replaces the program while it serves: no connection is refused, no response is cut,
//! and a program that does not start changes nothing.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::content::noise;
use crate::support::operated::{ADMIN, Operated, PATH};
use crate::support::program::{Program, is_running};
use crate::support::viewer::Viewer;
use crate::support::{Gate, Origin, eventually, get, segment};

impl Operated {
    /// The error of an upgrade that fails.
    async fn failing_upgrade(&self) -> String {
        let (status, answer) = self.post("/upgrade").await;
        assert_eq!(status, 409, "{answer}");
        answer["error"].as_str().expect("a text").to_owned()
    }

    /// Nothing has changed, and the error is told everywhere.
    async fn assert_unchanged(&mut self, error: &str) {
        let status = self.status().await;
        assert_eq!(status["process"]["pid"], self.program.pid());
        assert_eq!(status["upgrade"]["state"], "none");
        assert_eq!(status["upgrade"]["last_error"]["error"], error);
        assert_eq!(status["drain"]["state"], "serving");
        self.log.read_until("the upgrade has failed").await;
        let metrics = self.ask_admin(get("/metrics")).await;
        assert!(
            metrics
                .text()
                .contains("\nseawall_upgrades_failed_total 1\n")
        );
        self.object().await;
    }
}

#[tokio::test]
async fn new_process_answers_everyone_and_the_old_one_ends() {
    let mut upgraded = Operated::start("").await;
    let inode = upgraded.program.socket().metadata().unwrap().ino();
    let new = upgraded.upgrade().await;
    assert_eq!(upgraded.program.wait_end().await, Some(0));
    assert_eq!(upgraded.pid().await, new);
    let ready = upgraded.ask_admin(get("/readyz")).await;
    ready.assert_is(200, "ready\n");
    upgraded.object().await;
    let socket = upgraded.program.socket().metadata().unwrap();
    assert_eq!(socket.ino(), inode, "the same socket");
    upgraded.log.read_until("this process serves now").await;
    // It is a server as any other: its log goes on, and it can be stopped.
    stop(new);
    upgraded
        .log
        .read_until("may finish what is under way")
        .await;
    eventually("its end", async || !is_running(new)).await;
}

fn stop(pid: i32) {
    let sent = Command::new("kill").arg(pid.to_string()).status();
    assert!(sent.unwrap().success());
}

#[tokio::test]
async fn slow_download_ends_whole_in_the_old_process() {
    let (gate, body) = (Gate::new(), noise(1, 96 << 10));
    let (first, rest) = (body.slice(..32 << 10), body.slice(32 << 10..));
    let reply = segment("").content_length(96 << 10);
    let slow = reply.send(first.clone()).hold(&gate).send(rest);
    let origin = Origin::start().await.on("/live/slow.ts", slow);
    let origin = origin.on(PATH, segment("whole"));
    // The delay is for those who would come to another server: here it changes nothing.
    let bounds = "[server]\ndrain_delay = \"1h\"\ndrain_max = \"1h\"";
    let mut upgraded = Operated::in_front_of(origin, bounds).await;
    let mut download = upgraded
        .program
        .viewer()
        .await
        .begin(get("/live/slow.ts"))
        .await;
    assert_eq!(download.read(first.len()).await, first);
    let new = upgraded.upgrade().await;
    upgraded
        .log
        .read_until("may finish what is under way")
        .await;
    upgraded.object().await;
    assert_eq!(upgraded.pid().await, new);
    assert!(is_running(upgraded.program.pid()));
    gate.open();
    download.finish().await.assert_whole(&body);
    assert_eq!(upgraded.program.wait_end().await, Some(0));
}

/// Viewers connect all the time, over TCP with the PROXY protocol and over the Unix socket.
#[tokio::test]
async fn two_upgrades_in_a_row_refuse_nobody() {
    let more =
        "[[listener]]\nlisten = \"127.0.0.1:0\"\nproxy_protocol = { from = [\"127.0.0.1\"] }";
    let object = segment("whole").cache_control("max-age=600");
    let origin = Origin::start().await.on(PATH, object);
    let mut program = Program::serve_with(&origin, &format!("{ADMIN}\n{more}"), |command| {
        command.stderr(Stdio::piped());
    })
    .await;
    let mut log = program.log();
    let proxied = log.listener("127.0.0.1").await;
    let admin = log.admin().await;
    let upgraded = Operated {
        origin,
        program,
        log,
        admin,
    };
    let mut watching = JoinSet::new();
    let (ending, _) = tokio::sync::watch::channel(false);
    for _ in 0..4 {
        let (end, socket) = (ending.subscribe(), upgraded.program.socket().to_owned());
        watching.spawn(async move {
            let mut viewers = 0;
            while !*end.borrow() {
                let mut over_tcp = Viewer::connect(proxied).await;
                let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n";
                over_tcp.send_raw(header).await;
                over_tcp.get(PATH).await.assert_whole("whole");
                let mut over_unix = Viewer::connect_unix(&socket).await;
                over_unix.get(PATH).await.assert_whole("whole");
                viewers += 1;
            }
            viewers
        });
    }
    let first = upgraded.upgrade().await;
    eventually("the first process to end", async || {
        !is_running(upgraded.program.pid())
    })
    .await;
    let second = upgraded.upgrade().await;
    eventually("the second process to end", async || !is_running(first)).await;
    assert_eq!(upgraded.pid().await, second);
    ending.send_replace(true);
    let viewers: u32 = watching.join_all().await.into_iter().sum();
    assert!(viewers > 0);
}

#[tokio::test]
async fn sigusr2_upgrades_too() {
    let mut upgraded = Operated::start("").await;
    upgraded.program.signal("USR2");
    upgraded.log.read_until("this process serves now").await;
    assert_eq!(upgraded.program.wait_end().await, Some(0));
    assert_ne!(upgraded.pid().await, upgraded.program.pid());
}

/// Over the admin server's Unix socket, which the new process has then.
#[tokio::test]
async fn command_waits_and_prints_the_new_process() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let settings = format!("[admin]\nlisten = \"{admin}\"\n");
    let mut program = Program::serve(&origin, &settings).await;
    let run = async |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(words.split(' ')).args(["--admin", &admin]);
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        ended.unwrap().unwrap()
    };
    let ended = run("upgrade").await;
    let text = String::from_utf8(ended.stdout).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        text.ends_with(&format!(" serves, version {version}\n")),
        "{text}"
    );
    assert_eq!(program.wait_end().await, Some(0));
    let status: Value = serde_json::from_slice(&run("status --json").await.stdout).unwrap();
    let pid = &status["process"]["pid"];
    assert!(text.starts_with(&format!("process {pid} serves")), "{text}");
    program.replace_by_script("echo 'the disk is full' >&2; exit 1");
    let ended = run("upgrade --json").await;
    assert_eq!(ended.status.code(), Some(1));
    let error = String::from_utf8(ended.stderr).unwrap();
    assert!(
        error.contains("the disk is full") && error.contains("(status 409)"),
        "{error}"
    );
}

#[tokio::test]
async fn program_that_crashes_at_its_start_changes_nothing() {
    for (script, reason) in [
        (
            "echo 'no libc here' >&2; exit 1",
            "(exit status: 1); its last messages:\nno libc here",
        ),
        ("kill -9 $$", "(signal: 9 (SIGKILL))"),
    ] {
        let mut upgraded = Operated::start("").await;
        upgraded.program.replace_by_script(script);
        let error = upgraded.failing_upgrade().await;
        assert!(error.ends_with(reason), "{error}");
        upgraded.assert_unchanged(&error).await;
        upgraded.program.restore();
        upgraded.upgrade().await;
        assert_eq!(upgraded.program.wait_end().await, Some(0));
    }
}

#[tokio::test]
async fn broken_file_changes_nothing_and_is_explained() {
    let mut upgraded = Operated::start("").await;
    let broken = format!("{ADMIN}\n[limits]\nconnections = 3");
    upgraded
        .program
        .write_configuration(&upgraded.origin, &broken);
    let error = upgraded.failing_upgrade().await;
    assert!(
        error.contains("cannot start: ") && error.contains("`connections`"),
        "{error}"
    );
    upgraded.assert_unchanged(&error).await;
}

/// The file has changed in what a reload cannot change.
#[tokio::test]
async fn upgrade_takes_the_file_as_it_is_now() {
    let mut upgraded = Operated::start("[server]\nthreads = 1").await;
    let old_admin = upgraded.admin;
    let other = "[admin]\nlisten = \"127.0.0.2:0\"\n[server]\nthreads = 2";
    upgraded
        .program
        .write_configuration(&upgraded.origin, other);
    let new = upgraded.upgrade().await;
    upgraded.admin = upgraded.log.admin().await;
    assert_eq!(upgraded.pid().await, new);
    assert_eq!(upgraded.program.wait_end().await, Some(0));
    upgraded.object().await;
    let refused = tokio::net::TcpStream::connect(old_admin).await;
    assert!(refused.is_err(), "nobody needs that socket any more");
}

#[tokio::test]
async fn sigterm_during_an_upgrade_ends_both_processes() {
    let mut upgraded = Operated::start("").await;
    let pid = upgraded.program.folder().join("pid");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        pid.display()
    );
    upgraded.program.replace_by_script(&script);
    upgraded.program.signal("USR2");
    eventually("the new process", async || pid.exists()).await;
    let new = std::fs::read_to_string(&pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(is_running(new));
    upgraded.program.signal("TERM");
    upgraded
        .log
        .read_until("may finish what is under way")
        .await;
    assert_eq!(upgraded.program.wait_end().await, Some(0));
    eventually("the end of the new process", async || !is_running(new)).await;
}

#[tokio::test]
async fn reload_and_second_upgrade_are_refused_during_an_upgrade() {
    let upgraded = Operated::start("").await;
    let begun = upgraded.program.folder().join("begun");
    let script = format!("touch {}; exec sleep 1000", begun.display());
    upgraded.program.replace_by_script(&script);
    upgraded.program.signal("USR2");
    eventually("the new process", async || begun.exists()).await;
    for path in ["/reload", "/upgrade"] {
        let (status, answer) = upgraded.post(path).await;
        assert_eq!(status, 409, "{path}");
        let error = answer["error"].as_str().unwrap();
        assert!(
            error.starts_with("an upgrade is in progress"),
            "{path}: {error}"
        );
    }
    assert_eq!(upgraded.status().await["upgrade"]["state"], "running");
    upgraded.object().await;
}

#[tokio::test]
async fn variable_of_an_upgrade_means_nothing_to_other_processes() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let program = Program::serve_with(&origin, "", |command| {
        command.env("SEAWALL_UPGRADE_FROM", "1");
    })
    .await;
    program.viewer().await.get(PATH).await.assert_whole("whole");
}

/// A minute is more than any wait here: what is refused is refused at once.
#[tokio::test]
async fn upgrade_during_a_drain_is_refused() {
    let gate = Gate::new();
    let origin = Origin::start().await;
    let origin = origin.on(PATH, segment("whole").hold_head(&gate));
    let mut upgraded = Operated::in_front_of(origin, "").await;
    let mut viewer = upgraded.program.viewer().await;
    viewer.send(&get(PATH)).await;
    upgraded.origin.wait_hits(PATH, 1).await;
    upgraded.program.signal("TERM");
    upgraded
        .log
        .read_until("may finish what is under way")
        .await;
    let error = upgraded.failing_upgrade().await;
    assert_eq!(error, "the server is about to stop");
    gate.open();
    viewer.receive(&get(PATH)).await.assert_whole("whole");
    let ended = tokio::time::timeout(Duration::from_mins(1), upgraded.program.wait_end());
    assert_eq!(ended.await.unwrap(), Some(0));
}
