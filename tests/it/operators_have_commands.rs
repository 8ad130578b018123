//! `seawall status`, `purge`, `drain`, `explain` and `health` speak to a running server: over its
//! Unix socket, with a result as text or JSON and an exit code; and say what to do without one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::program::Program;
use crate::support::{Origin, get, segment};

const PATH: &str = "/live/seg1.ts";

/// The end of a command whose words are separated by spaces.
async fn run(admin: &str, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(words.split(' ')).args(["--admin", admin]);
    command.env_remove("SEAWALL_ADMIN_TOKEN_FILE");
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    ended.unwrap().unwrap()
}

fn stdout(ended: &Output) -> String {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    String::from_utf8(ended.stdout.clone()).unwrap()
}

fn json(ended: &Output) -> Value {
    serde_json::from_str(&stdout(ended)).unwrap()
}

#[tokio::test]
async fn each_command_works_over_the_unix_socket() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let folder = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let settings = format!("[admin]\nlisten = \"{admin}\"\n");
    let mut program = Program::serve(&origin, &settings).await;
    program
        .viewer()
        .await
        .ask(get(PATH))
        .await
        .assert_whole("x");

    assert_eq!(stdout(&run(&admin, "health").await), "");
    assert_eq!(json(&run(&admin, "health --json").await)["healthy"], true);
    let status = stdout(&run(&admin, "status").await);
    assert!(
        status.starts_with("server serving\nconfiguration 1 of /")
            && status.contains("\norigin only: "),
        "{status}"
    );
    let status = json(&run(&admin, "status --json").await);
    assert_eq!(status["origins"][0]["name"], "only");
    let url = format!("http://media.test{PATH}");
    let explained = json(&run(&admin, &format!("explain {url} --json")).await);
    assert_eq!(explained["held"]["status"], 200, "{explained}");
    let would = stdout(&run(&admin, &format!("purge {url} --dry-run")).await);
    assert!(
        would.contains("1 object (") && would.contains("would be"),
        "{would}"
    );
    let purged = json(&run(&admin, &format!("purge {url} --json")).await);
    assert_eq!(
        (&purged["objects"], &purged["purged"]),
        (&1.into(), &true.into())
    );
    let drained = stdout(&run(&admin, "drain").await);
    assert_eq!(drained, "the server is leaving\n");
    assert_eq!(program.wait_end().await, Some(0));
}

#[tokio::test]
async fn without_a_server_a_command_says_what_to_do() {
    for words in [
        "status",
        "purge --all",
        "drain",
        "health",
        "explain http://a/",
    ] {
        let ended = run("unix:/nowhere/at/all.sock", words).await;
        assert_eq!(ended.status.code(), Some(1), "{words}");
        let error = String::from_utf8(ended.stderr).unwrap();
        assert!(error.contains("is the server running"), "{words}: {error}");
        assert!(error.contains("--admin"), "{words}: {error}");
    }
    let invalid = run("unix:/nowhere/at/all.sock", "purge").await;
    assert_eq!(invalid.status.code(), Some(2), "it names nothing to purge");
}

fn token_file(folder: &Path, mode: u32) -> String {
    let file = folder.join(format!("{mode:o}"));
    std::fs::write(&file, "a-token-0123456789\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn token_file_that_everyone_may_read_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, is_warned_of) in [(0o644, true), (0o600, false), (0o640, false)] {
        let file = token_file(folder.path(), mode);
        let ended = run(
            "unix:/nowhere/at/all.sock",
            &format!("status --token-file {file}"),
        )
        .await;
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(
            error.contains("every user"),
            is_warned_of,
            "{mode:o}: {error}"
        );
        assert!(!error.contains("a-token"), "{error}");
    }
}

/// A signed URL for `/live` until 2100, signed with 32 times `a`.
async fn signed_url(folder: &Path) -> (String, String) {
    let secret = folder.join("secret").display().to_string();
    std::fs::write(&secret, "a".repeat(32)).unwrap();
    let words =
        format!("make --key-id k --path /live --expires-at 4102444800 --secret-file {secret}");
    let made = token_command(&words).await;
    assert!(made.stderr.is_empty(), "{made:?}");
    (stdout(&made).trim_end().to_owned(), secret)
}

async fn token_command(words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.arg("token").args(words.split(' '));
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    ended.unwrap().unwrap()
}

#[tokio::test]
async fn exit_code_says_whether_a_token_would_be_admitted() {
    let folder = tempfile::tempdir().unwrap();
    let (token, secret) = signed_url(folder.path()).await;
    let explain = |token: &str| format!("explain {token} --secret-file {secret}");
    let good = stdout(&token_command(&explain(&token)).await);
    assert!(good.contains("signature    valid"), "{good}");

    let forged = token.replace(".4102444800.", ".4102444801.");
    let refused = token_command(&explain(&forged)).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stdout).unwrap();
    for expected in ["signature    WRONG\n", "path         /live\n", "4102444801"] {
        assert!(said.contains(expected), "{said}");
    }
    let malformed = token_command("explain 1.a.b").await;
    assert_eq!(malformed.status.code(), Some(1));

    let make = "make --key-id k --path /live --expires-at 60 --secret-file";
    let expired = token_command(&format!("{make} {secret}")).await;
    let warning = String::from_utf8(expired.stderr.clone()).unwrap();
    assert!(
        warning.contains("warning: the token has expired already"),
        "{warning}"
    );
    let expired = stdout(&expired);
    let refused = token_command(&explain(expired.trim_end())).await;
    assert_eq!(refused.status.code(), Some(1));
}
