//! A reload changes what concerns operators: logs, tokens, drain times, whom to believe. No line of
//! a log is lost on the way.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use seawall_policy::{ClientField, TrustedProxies};

use crate::support::operated::{Operated, PATH};
use crate::support::shield::address_list;
use crate::support::viewer::{Ask, Viewer};
use crate::support::{Origin, Shield, ask, eventually, get, segment};

fn folder(reloaded: &Operated) -> PathBuf {
    reloaded.program.file().parent().unwrap().to_owned()
}

fn access_log(path: &Path, more: &str) -> String {
    let path = path.display();
    format!("[access_log]\nenabled = true\npath = \"{path}\"\n{more}")
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn access_log_begins_moves_and_ends_without_a_lost_line() {
    let reloaded = Operated::start("").await;
    let files = [1, 2].map(|number| folder(&reloaded).join(format!("access{number}.log")));
    let mut viewer = reloaded.program.viewer().await;
    viewer.get(PATH).await.assert_whole("whole");
    let mut logged = 0;
    for round in 0..20 {
        reloaded.change(&access_log(&files[round % 2], "")).await;
        for _ in 0..5 {
            viewer.get(PATH).await.assert_whole("whole");
            logged += 1;
        }
    }
    reloaded.change("").await;
    viewer.get(PATH).await.assert_whole("whole");
    let all = || files.iter().map(|file| lines(file)).sum::<usize>();
    eventually("all lines to be written", async || all() >= logged).await;
    assert_eq!(all(), logged);
    let text = fs::read_to_string(&files[0]).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["path"], PATH);
    let metrics = reloaded.ask_admin(get("/metrics")).await;
    for (result, count) in [("written", logged), ("dropped", 0)] {
        let sample = format!("\nseawall_access_log_lines_total{{result=\"{result}\"}} {count}\n");
        assert!(metrics.text().contains(&sample), "{sample}");
    }
}

#[tokio::test]
async fn access_log_that_cannot_be_opened_changes_nothing() {
    let reloaded = Operated::start("").await;
    let file = folder(&reloaded).join("access.log");
    reloaded.change(&access_log(&file, "")).await;
    let nowhere = Path::new("/nowhere/at/all/access.log");
    let error = reloaded.change_refused(&access_log(nowhere, "")).await;
    assert!(error.contains("/nowhere/at/all/access.log"), "{error}");
    reloaded.object().await;
    eventually("a line in the file of before", async || lines(&file) == 1).await;
}

/// The sample alone changes: the file stays open.
#[tokio::test]
async fn access_log_takes_another_sample() {
    let reloaded = Operated::start("").await;
    let file = folder(&reloaded).join("access.log");
    reloaded.change(&access_log(&file, "")).await;
    reloaded.object().await;
    reloaded
        .change(&access_log(&file, "sample = 4000000000\n"))
        .await;
    for _ in 0..20 {
        reloaded.object().await;
    }
    reloaded.change(&access_log(&file, "")).await;
    reloaded.object().await;
    eventually("two lines", async || lines(&file) == 2).await;
}

#[tokio::test]
async fn log_level_changes_at_once() {
    let mut reloaded = Operated::start("").await;
    reloaded.change("[log]\nlevel = \"error\"").await;
    reloaded.change("[log]\nlevel = \"seawall=info\"").await;
    let line = reloaded.log.read_until("configuration reloaded").await;
    assert!(line.contains("\"generation\":3"), "{line}");
    let error = reloaded.change_refused("[log]\nlevel = \"loud\"").await;
    assert!(error.contains("not a log level"), "{error}");
}

#[tokio::test]
async fn drain_times_are_those_of_the_last_reload() {
    let mut reloaded = Operated::start("").await;
    reloaded.change("[server]\ndrain_delay = \"17s\"").await;
    let _viewer = reloaded.object().await;
    assert_eq!(reloaded.ask_admin(get("/readyz")).await.status, 200);
    reloaded.program.signal("TERM");
    reloaded.log.read_until("for another 17 s").await;
}

fn with_token(ask: Ask, token: &str) -> Ask {
    ask.header("Authorization", &format!("Bearer {token}"))
}

#[tokio::test]
async fn tokens_and_audit_log_change_for_the_next_request() {
    let reloaded = Operated::start("").await;
    let (token, audit) = (
        folder(&reloaded).join("deploy"),
        folder(&reloaded).join("audit.log"),
    );
    fs::write(&token, "a-token-of-some-length\n").unwrap();
    let text = format!(
        "tokens = [{{ name = \"deploy\", file = \"{}\", role = \"write\" }}]\naudit_log = \"{}\"\n",
        token.display(),
        audit.display()
    );
    reloaded.change(&text).await;
    assert_eq!(reloaded.ask_admin(ask("POST", "/reload")).await.status, 401);
    let reload = || with_token(ask("POST", "/reload"), "a-token-of-some-length");
    assert_eq!(reloaded.ask_admin(reload()).await.status, 200);
    eventually("the refused and the done reload", async || {
        lines(&audit) == 2
    })
    .await;
    // The files of tokens are read again, as those of the start.
    fs::write(&token, "another-token-of-some-length\n").unwrap();
    let renewed = with_token(ask("POST", "/reload"), "another-token-of-some-length");
    eventually("the new token to be known", async || {
        reloaded.ask_admin(renewed.clone()).await.status == 200
    })
    .await;
    reloaded.write("");
    assert_eq!(reloaded.ask_admin(renewed).await.status, 200);
    // The line of a write follows its answer.
    let done = || {
        fs::read_to_string(&audit)
            .unwrap()
            .matches("\"done\"")
            .count()
    };
    eventually("the three reloads", async || done() == 3).await;
    reloaded.change("").await;
    assert_eq!(done(), 3, "its lines are in the program log");
}

#[tokio::test]
async fn admin_server_beyond_loopback_keeps_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "a-token-of-some-length").unwrap();
    let origin = Origin::start().await;
    let mut shield = Shield::in_front_of(&origin)
        .with(|config| {
            let everywhere: std::net::SocketAddr = "0.0.0.0:0".parse().unwrap();
            config.admin.listen = Some(everywhere.into());
            config.admin.tokens = vec![seawall::admin::TokenSettings {
                name: "deploy".to_owned(),
                file,
                role: seawall::admin::declaration::AdminRole::Write,
            }];
        })
        .start()
        .await;
    let refused = shield.try_reload(|config| {
        config.admin = seawall::admin::Settings::default();
    });
    let why = refused.expect_err("everyone could purge");
    assert!(why.contains("token"), "{why}");
}

#[tokio::test]
async fn new_connections_believe_the_proxies_of_the_reload() {
    const DENIED: &str = "192.0.2.66";
    let origin = Origin::start()
        .await
        .on(PATH, segment("whole").cache_control("max-age=600"));
    let mut shield = Shield::in_front_of(&origin)
        .route(|route| route.access.deny = Some(address_list(&["192.0.2.66/32"])))
        .start()
        .await;
    let for_denied = |field: &str| get(PATH).header(field, DENIED);
    let status = async |viewer: &mut Viewer, field| viewer.ask(for_denied(field)).await.status;
    let mut before = shield.viewer().await;
    assert_eq!(status(&mut before, "X-Forwarded-For").await, 200);
    let peer: IpAddr = shield.address().ip();
    let believe = |field| TrustedProxies {
        addresses: Some(address_list(&[&format!("{peer}/32")])),
        field,
    };
    shield.reload(|config| {
        config.rules.trusted_proxies = believe(ClientField::XForwardedFor);
    });
    assert_eq!(status(&mut before, "X-Forwarded-For").await, 200);
    let mut new = shield.viewer().await;
    assert_eq!(status(&mut new, "X-Forwarded-For").await, 403);
    shield.reload(|config| config.rules.trusted_proxies = believe(ClientField::Forwarded));
    let mut newest = shield.viewer().await;
    assert_eq!(status(&mut newest, "X-Forwarded-For").await, 200);
    let forwarded = get(PATH).header("Forwarded", &format!("for={DENIED}"));
    assert_eq!(newest.ask(forwarded).await.status, 403);
    shield.reload(|config| config.rules.trusted_proxies = TrustedProxies::default());
    let mut last = shield.viewer().await;
    assert_eq!(status(&mut last, "X-Forwarded-For").await, 200);
}
