//! A reload applies the file as it is now and says what it applied; a file that cannot be used
//! changes nothing, and the error says what is wrong and where.

use std::fs;

use serde_json::Value;

use crate::support::operated::{Operated, PATH};
use crate::support::{Origin, Shield, ask, eventually, get};

const X_CACHE: &str = "[[route]]\nx_cache = true";

#[tokio::test]
async fn sighup_applies_the_file_and_keeps_the_cache() {
    let mut reloaded = Operated::start("").await;
    assert_eq!(reloaded.object().await.header("x-cache"), None);
    let before = reloaded.config().await;
    assert_eq!(
        (&before["generation"], &before["last_error"]),
        (&1.into(), &Value::Null)
    );
    reloaded.write(X_CACHE);
    reloaded.program.signal("HUP");
    reloaded.log.read_until("configuration reloaded").await;
    assert_eq!(reloaded.object().await.header("x-cache"), Some("HIT"));
    assert_eq!(reloaded.origin.hits(PATH), 1);
    let after = reloaded.config().await;
    assert_eq!(after["generation"], 2);
    assert_ne!(after["hash"], before["hash"]);
    let difference = &after["last_difference"][0];
    assert_eq!(difference["key"], "x_cache", "{after}");
    assert_eq!(difference["effect"], "live");
    let metrics = reloaded.ask_admin(get("/metrics")).await;
    for sample in [
        "\nseawall_config_generation 2\n",
        "\nseawall_config_reloads_total{result=\"applied\"} 1\n",
    ] {
        assert!(metrics.text().contains(sample), "{sample}");
    }
}

#[tokio::test]
async fn bad_file_changes_nothing_and_the_error_names_the_line() {
    let reloaded = Operated::start(X_CACHE).await;
    reloaded.write("[cache]\nmemry = \"1GiB\"\nvariants_max = true");
    let (status, error) = reloaded.reload().await;
    assert_eq!(status, 409, "{error}");
    let problems = error["problems"].as_array().expect("problems");
    assert_eq!(problems.len(), 2, "{error}");
    assert!(
        problems
            .iter()
            .all(|one| one["line"].is_u64() && one["column"].is_u64())
    );
    assert!(
        error["error"].as_str().unwrap().contains("memry"),
        "{error}"
    );
    assert_eq!(reloaded.object().await.header("x-cache"), Some("MISS"));
    assert_eq!(reloaded.config().await["last_error"], error);
    assert_eq!(reloaded.config().await["generation"], 1);
    reloaded.write("");
    let (status, report) = reloaded.reload().await;
    assert_eq!(
        (status, &report["generation"]),
        (200, &2.into()),
        "{report}"
    );
    assert_eq!(reloaded.object().await.header("x-cache"), None);
    assert_eq!(reloaded.config().await["last_error"], Value::Null);
}

#[tokio::test]
async fn file_that_is_gone_keeps_what_was_read() {
    let reloaded = Operated::start(X_CACHE).await;
    fs::remove_file(reloaded.program.file()).unwrap();
    let (status, error) = reloaded.reload().await;
    assert_eq!(status, 409);
    assert!(
        error["error"].as_str().unwrap().contains("cannot read"),
        "{error}"
    );
    assert_eq!(reloaded.object().await.header("x-cache"), Some("MISS"));
}

#[tokio::test]
async fn what_needs_a_restart_is_said_until_the_restart() {
    let reloaded = Operated::start("").await;
    reloaded.write(&format!(
        "[server]\nthreads = 3\nname = \"other\"\n{X_CACHE}"
    ));
    for _ in 0..2 {
        let (status, report) = reloaded.reload().await;
        assert_eq!(
            (status, &report["needs_restart"]),
            (200, &2.into()),
            "{report}"
        );
        let changes = report["changes"].as_array().unwrap();
        let threads = changes.iter().find(|change| change["key"] == "threads");
        let threads = threads.expect("the change of a key that needs a restart");
        assert_eq!(threads["effect"], "restart");
        assert!(
            threads["why"]
                .as_str()
                .is_some_and(|why| why.contains("thread"))
        );
        let pending = &reloaded.config().await["pending_restart"];
        assert_eq!(pending.as_array().map(Vec::len), Some(2), "{pending}");
        assert_eq!(pending[0]["effect"], "restart");
    }
    let response = reloaded.object().await;
    assert_eq!(response.header("x-cache"), Some("MISS"));
    assert!(
        response
            .header("cache-status")
            .unwrap()
            .starts_with("seawall;")
    );
    // A file that is not used changes nothing of it.
    reloaded.write("[server]\nthreds = 3");
    assert_eq!(reloaded.reload().await.0, 409);
    let pending = &reloaded.config().await["pending_restart"];
    assert_eq!(pending.as_array().map(Vec::len), Some(2), "{pending}");
    let said = reloaded.command("status").await;
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("2 changes of the file NEED A RESTART:\n"),
        "{said}"
    );
    assert!(said.contains("\n  [server]: threads "), "{said}");
    // What runs is in the file again.
    reloaded.write("");
    assert_eq!(reloaded.reload().await.0, 200);
    let pending = &reloaded.config().await["pending_restart"];
    assert_eq!(*pending, Value::Array(Vec::new()));
    let said = reloaded.command("status").await;
    assert!(!String::from_utf8(said.stdout).unwrap().contains("RESTART"));
}

#[tokio::test]
async fn unchanged_file_is_no_difference() {
    let reloaded = Operated::start(X_CACHE).await;
    let (status, report) = reloaded.reload().await;
    assert_eq!(status, 200);
    assert_eq!(report["changes"], Value::Array(Vec::new()));
}

/// Many signals at once are not lost: what the file says in the end is what counts.
#[tokio::test]
async fn last_of_many_reloads_reads_the_file_as_it_is() {
    let reloaded = Operated::start("").await;
    for round in 0..10 {
        reloaded.write(if round % 2 == 0 { X_CACHE } else { "" });
        reloaded.program.signal("HUP");
    }
    reloaded.write(X_CACHE);
    reloaded.program.signal("HUP");
    eventually("the last file to be in use", async || {
        reloaded.object().await.header("x-cache").is_some()
    })
    .await;
    let (status, report) = reloaded.reload().await;
    assert_eq!(
        (status, &report["changes"]),
        (200, &Value::Array(Vec::new()))
    );
}

#[tokio::test]
async fn unreadable_secret_changes_nothing_and_no_secret_is_shown() {
    let reloaded = Operated::start(X_CACHE).await;
    let folder = reloaded.program.file().parent().unwrap();
    let rule = "[[route]]\nrequire_header = { name = \"x-code\", secret_files = [\"code\"] }";
    reloaded.write(rule);
    let (status, error) = reloaded.reload().await;
    assert_eq!(status, 409, "{error}");
    assert!(error["error"].as_str().unwrap().contains("code"), "{error}");
    assert_eq!(reloaded.object().await.header("x-cache"), Some("MISS"));
    fs::write(folder.join("code"), "a-secret-of-some-length\n").unwrap();
    let (status, report) = reloaded.reload().await;
    assert_eq!(status, 200, "{report}");
    let all = format!("{error} {report} {}", reloaded.config().await);
    assert!(!all.contains("a-secret"), "{all}");
    let mut viewer = reloaded.program.viewer().await;
    assert_eq!(viewer.get(PATH).await.status, 403);
    let with_code = get(PATH).header("x-code", "a-secret-of-some-length");
    viewer.ask(with_code).await.assert_whole("whole");
}

#[tokio::test]
async fn reload_while_draining_is_refused() {
    let mut reloaded = Operated::start("[server]\ndrain_delay = \"30s\"").await;
    let mut viewer = reloaded.program.viewer().await;
    viewer.get(PATH).await.assert_whole("whole");
    reloaded.program.signal("TERM");
    reloaded.log.read_until("not ready any more").await;
    reloaded.write(X_CACHE);
    let (status, error) = reloaded.reload().await;
    assert_eq!(status, 409, "{error}");
    let response = viewer.get(PATH).await;
    assert_eq!(response.header("x-cache"), None);
}

#[tokio::test]
async fn server_without_a_file_says_so() {
    let origin = Origin::start().await;
    let shield = Shield::in_front_of(&origin).start().await;
    let answer = shield.admin(ask("POST", "/reload")).await;
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("without a file"), "{answer:?}");
}
