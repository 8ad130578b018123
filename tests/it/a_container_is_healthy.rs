//! The image's health check works when the program runs with flags alone, as the Dockerfile
//! describes.

use std::process::{Command, Stdio};

use crate::support::program::Program;
use crate::support::{Origin, segment};

#[tokio::test]
async fn health_check_passes_with_admin_address_from_environment() {
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
fn dockerfile_sets_admin_address_and_health_check() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile");
    let dockerfile = std::fs::read_to_string(path).unwrap();
    assert!(dockerfile.contains("ENV SEAWALL_ADMIN=127.0.0.1:9090"));
    assert!(dockerfile.contains("\"health\"]"));
}
