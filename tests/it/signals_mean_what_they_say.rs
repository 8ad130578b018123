//! TERM, INT and QUIT end the program after the requests in progress; no other signal does.

use std::process::Stdio;

use nix::libc;

use crate::support::program::Program;
use crate::support::viewer::Viewer;
use crate::support::{Gate, Origin, get, segment};

const PATH: &str = "/live/seg1.ts";
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"";

async fn program(origin: &Origin, bounds: &str) -> Program {
    Program::serve_with(origin, bounds, |command| {
        command.stderr(Stdio::piped());
    })
    .await
}

#[tokio::test]
async fn unhandled_signals_do_not_end_the_program() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let mut program = program(&origin, ADMIN).await;
    let mut log = program.log();
    for name in [
        "USR1", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XCPU", "XFSZ",
    ] {
        program.signal(name);
        log.read_until(&format!("SIG{name} does nothing")).await;
        program.viewer().await.get(PATH).await.assert_whole("whole");
    }
    let real_time = |nth: i32| (libc::SIGRTMIN() + nth).to_string();
    for nth in [1, 2, 15, libc::SIGRTMAX() - libc::SIGRTMIN()] {
        program.signal(&real_time(nth));
        log.read_until(&format!("SIGRTMIN+{nth} does nothing"))
            .await;
    }
    program.signal(&real_time(0));
    log.read_until("SIGRTMIN does nothing").await;
    // These are ignored by default.
    for name in ["CHLD", "CONT", "URG", "WINCH", "PIPE"] {
        program.signal(name);
    }
    program.viewer().await.get(PATH).await.assert_whole("whole");
}

#[tokio::test]
async fn term_int_and_quit_finish_requests_in_progress() {
    for name in ["TERM", "INT", "QUIT"] {
        let gate = Gate::new();
        let slow = segment("whole").hold_head(&gate);
        let origin = Origin::start().await.on(PATH, slow);
        let mut program = program(&origin, ADMIN).await;
        let mut log = program.log();
        let mut viewer = program.viewer().await;
        viewer.send(&get(PATH)).await;
        origin.wait_hits(PATH, 1).await;
        program.signal(name);
        log.read_until("may finish what is under way").await;
        gate.open();
        viewer.receive(&get(PATH)).await.assert_whole("whole");
        assert_eq!(program.wait_end().await, Some(0), "{name}");
    }
}

#[tokio::test]
async fn leaving_server_is_not_ready_but_still_accepts_viewers() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let bounds = format!("{ADMIN}\n[server]\ndrain_delay = \"30s\"");
    let mut program = program(&origin, &bounds).await;
    let mut log = program.log();
    let admin = log.admin().await;
    let ready = async || {
        Viewer::connect(admin)
            .await
            .ask(get("/readyz").host("localhost"))
            .await
            .status
    };
    assert_eq!(ready().await, 200);
    let mut connected = program.viewer().await;
    connected.get(PATH).await.assert_whole("whole");
    program.signal("TERM");
    log.read_until("not ready any more").await;
    assert_eq!(ready().await, 503);
    program.viewer().await.get(PATH).await.assert_whole("whole");
    connected.get(PATH).await.assert_whole("whole");
    // A second signal ends the delay, for an operator at a terminal.
    program.signal("INT");
    log.read_until("may finish what is under way").await;
    assert_eq!(program.wait_end().await, Some(0));
}
