//! The image's health check works when the program runs with flags alone, as the Dockerfile
//! describes.

use std::process::{Command, Stdio};

use crate::support::program::Program;
use crate::support::{Origin, segment};

#[tokio::test]
async fn the_program_is_healthy_where_nobody_configured_an_admin_address() {
    let origin = Origin::start().await.on("/seg1.ts", segment("whole"));
    // The arguments that the image sets, except the port.
    let mut program = Program::serve_with(&origin, "", |command| {
        command.env("SEAWALL_ADMIN", "127.0.0.1:0");
        command.stderr(Stdio::piped());
    })
    .await;
    let admin = program.log().admin().await;
    let asked = tokio::task::spawn_blocking(move || {
        let mut check = Command::new(env!("CARGO_BIN_EXE_seawall"));
        let check = check.arg("health").env("SEAWALL_ADMIN", admin.to_string());
        check.status()
    });
    assert!(asked.await.unwrap().unwrap().success());
}

#[test]
fn the_image_says_where_operators_come_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile");
    let dockerfile = std::fs::read_to_string(path).unwrap();
    assert!(dockerfile.contains("ENV SEAWALL_ADMIN=127.0.0.1:9090"));
    assert!(dockerfile.contains("\"health\"]"));
}
