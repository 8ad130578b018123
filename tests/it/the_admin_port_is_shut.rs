//! Who may use the admin server: on TCP the bearer of a token with the right role, on a Unix socket
//! whom its file mode admits; never a web page, and never another machine without a token.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use seawall::admin::declaration::AdminRole;
use seawall::admin::{AdminAddress, TokenSettings};
use seawall::config::Config;

use crate::support::viewer::{Ask, Viewer};
use crate::support::{Origin, Shield, ask, eventually, get, segment};

const PATH: &str = "/live/seg1.ts";
const PURGE: &str = "/purge?url=http%3A%2F%2Fmedia.test%2Flive%2Fseg1.ts";

/// What reads of everything an operator may see.
const READS: [&str; 4] = [
    "/metrics",
    "/status",
    "/openapi.json",
    "/explain?url=http%3A%2F%2Fmedia.test%2Flive%2Fseg1.ts",
];

fn token(folder: &Path, name: &str, value: &str, role: AdminRole) -> TokenSettings {
    let file = folder.join(value);
    std::fs::write(&file, format!("{value}\n")).unwrap();
    TokenSettings {
        name: name.to_owned(),
        file,
        role,
    }
}

/// A shield with a token for each role, that has stored one segment.
async fn shield_with_tokens(origin: &Origin, folder: &Path) -> Shield {
    let tokens = vec![
        token(
            folder,
            "prometheus",
            "read-token-0123456789",
            AdminRole::Read,
        ),
        token(folder, "deploy", "write-token-0123456789", AdminRole::Write),
        token(
            folder,
            "deploy",
            "second-token-0123456789",
            AdminRole::Write,
        ),
    ];
    let shield = Shield::in_front_of(origin)
        .with(|config| config.admin.tokens = tokens)
        .start()
        .await;
    shield.get(PATH).await.assert_whole("x");
    shield
}

async fn origin() -> Origin {
    Origin::start().await.on(PATH, segment("x"))
}

fn bearing(ask: Ask, token: &str) -> Ask {
    ask.header("Authorization", &format!("Bearer {token}"))
}

#[tokio::test]
async fn missing_or_wrong_token_gets_401_with_the_scheme() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = shield_with_tokens(&origin, folder.path()).await;
    let wrong = bearing(get("/status"), "read-token-012345678");
    let basic = get("/status").header("Authorization", "Basic cmVhZC10b2tlbi0wMTIzNDU2Nzg5");
    let twice = bearing(get("/status"), "read-token-0123456789");
    let twice = bearing(twice, "read-token-0123456789");
    for asked in READS
        .map(get)
        .into_iter()
        .chain([ask("POST", PURGE), wrong, basic, twice])
    {
        let answer = shield.admin(asked).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        let scheme = answer.header("www-authenticate").unwrap();
        assert!(scheme.starts_with("Bearer "), "{scheme}");
        assert!(!answer.text().contains("origins"), "{answer:?}");
    }
    assert!(shield.get(PATH).await.is_hit(), "it was not purged");
}

#[tokio::test]
async fn write_with_read_token_gets_403() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = shield_with_tokens(&origin, folder.path()).await;
    for path in READS {
        let answer = shield
            .admin(bearing(get(path), "read-token-0123456789"))
            .await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let write = bearing(ask("POST", PURGE), "read-token-0123456789");
    let answer = shield.admin(write).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(shield.get(PATH).await.is_hit(), "it was not purged");
}

#[tokio::test]
async fn either_value_of_a_write_token_writes_and_reads() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = shield_with_tokens(&origin, folder.path()).await;
    for value in ["write-token-0123456789", "second-token-0123456789"] {
        shield.get(PATH).await;
        let answer = shield.admin(bearing(ask("POST", PURGE), value)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().contains(r#""objects":1"#), "{answer:?}");
        let answer = shield.admin(bearing(get("/status"), value)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn changed_token_file_is_used_without_a_restart() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = shield_with_tokens(&origin, folder.path()).await;
    let file = folder.path().join("write-token-0123456789");
    std::fs::write(file, "third-token-0123456789\n").unwrap();
    let status = async |value| shield.admin(bearing(get("/status"), value)).await.status;
    eventually("the new token to be accepted", async || {
        status("third-token-0123456789").await == 200
    })
    .await;
    assert_eq!(status("write-token-0123456789").await, 401, "the old one");
    assert_eq!(status("second-token-0123456789").await, 200, "the other");
}

/// kubelet and load balancers carry no secrets.
#[tokio::test]
async fn probes_need_no_token_and_say_nothing_else() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = shield_with_tokens(&origin, folder.path()).await;
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = shield.admin(get(path)).await;
        assert_eq!((answer.status, answer.text()), (200, text));
    }
}

/// A browser sends one of these with what a page of another site asks for, also with a GET. A good
/// token changes nothing: the browser may have it.
#[tokio::test]
async fn pages_of_other_sites_can_neither_read_nor_write() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = shield_with_tokens(&origin, folder.path()).await;
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        for asked in [get("/status"), get("/healthz"), ask("POST", PURGE)] {
            let asked = bearing(asked, "write-token-0123456789").header(name, value);
            let answer = shield.admin(asked).await;
            assert_eq!(answer.status, 403, "{name}: {value}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let preflight = ask("OPTIONS", "/purge").header("Origin", "https://evil.example");
    let preflight = preflight.header("Access-Control-Request-Method", "POST");
    let answer = shield.admin(preflight).await;
    assert_eq!(answer.status, 403);
    let rebound = bearing(get("/status"), "write-token-0123456789");
    assert_eq!(shield.admin_as("evil.example", rebound).await.status, 421);
    assert!(shield.get(PATH).await.is_hit(), "it was not purged");
}

/// Every endpoint that the server declares, so that none is forgotten.
#[tokio::test]
async fn no_write_is_carried_out_for_a_page_of_another_site() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = shield_with_tokens(&origin, folder.path()).await;
    let token = "write-token-0123456789";
    let declared = shield.admin(bearing(get("/openapi.json"), token)).await;
    let declared: serde_json::Value = serde_json::from_slice(&declared.body).unwrap();
    let paths = declared["paths"].as_object().expect("paths");
    let writes = paths
        .iter()
        .filter(|(_, methods)| methods.get("post").is_some());
    let writes: Vec<&String> = writes.map(|(path, _)| path).collect();
    for known in ["/drain", "/purge", "/reload", "/upgrade", "/warm"] {
        assert!(
            writes.iter().any(|path| *path == known),
            "{known}: {writes:?}"
        );
    }
    let state = async || {
        let status = shield.admin(bearing(get("/status"), token)).await;
        let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
        ["config", "drain", "upgrade"].map(|name| status[name].clone())
    };
    let before = state().await;
    for (name, value) in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Origin", "https://evil.example"),
    ] {
        for path in &writes {
            // The answer to a request without parameters would be 400.
            for query in [
                "",
                "?all=true",
                "?url=http%3A%2F%2Fmedia.test%2Flive%2Fseg1.ts",
            ] {
                let asked = bearing(ask("POST", &format!("{path}{query}")), token);
                let answer = shield.admin(asked.header(name, value)).await;
                assert_eq!(answer.status, 403, "{name}: {path}{query}");
            }
        }
    }
    assert_eq!(state().await, before);
    assert!(shield.get(PATH).await.is_hit(), "it was not purged");
}

#[tokio::test]
async fn who_can_open_the_unix_socket_may_write_without_a_token() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let socket = folder.path().join("admin.sock");
    let listen = AdminAddress::Unix(socket.clone());
    let tokens = vec![token(
        folder.path(),
        "a",
        "write-token-0123456789",
        AdminRole::Write,
    )];
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.admin.listen = Some(listen);
            config.admin.tokens = tokens;
        })
        .start()
        .await;
    shield.get(PATH).await.assert_whole("x");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "{mode:o}");
    let asked = ask("POST", PURGE).host("localhost");
    let answer = Viewer::connect_unix(&socket).await.ask(asked).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!shield.get(PATH).await.is_hit(), "it was purged");
    let foreign = get("/status").host("evil.example");
    let answer = Viewer::connect_unix(&socket).await.ask(foreign).await;
    assert_eq!(answer.status, 421, "{answer:?}");
}

/// Neither the file, nor a flag or the environment, opens it to other machines.
#[tokio::test]
async fn start_is_refused_beyond_loopback_without_tokens() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9090"] {
        let text = format!(
            "[admin]\nlisten = \"{address}\"\n[[origin]]\nendpoints = [\"http://127.0.0.1:9\"]\n"
        );
        let problems = Config::read(&text, Path::new("seawall.toml")).unwrap_err();
        let problems = problems.to_string();
        assert!(
            problems.contains("can be reached from other machines"),
            "{problems}"
        );
        assert!(problems.contains("tokens"), "{problems}");
        let mut config = Config::single("http://127.0.0.1:9", Vec::new()).unwrap();
        config.admin.listen = Some(address.parse::<std::net::SocketAddr>().unwrap().into());
        let started = seawall::server::start(config, std::sync::Arc::new(|_, _| Ok(Vec::new())));
        let error = started.err().expect("no start").to_string();
        assert!(
            error.contains("can be reached from other machines"),
            "{error}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "a-token-0123456789\n").unwrap();
    let text = "[admin]\nlisten = \"0.0.0.0:0\"\n\
                tokens = [{ name = \"a\", file = \"token\", role = \"write\" }]\n\
                [[origin]]\nendpoints = [\"http://127.0.0.1:9\"]\n";
    let config = Config::read(text, &folder.path().join("seawall.toml")).unwrap();
    let started = seawall::server::start(config, std::sync::Arc::new(|_, _| Ok(Vec::new())));
    assert!(started.is_ok());
}

#[tokio::test]
async fn every_write_and_every_refused_write_is_in_the_audit_log() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("audit.log");
    let tokens = vec![token(
        folder.path(),
        "deploy",
        "write-token-0123456789",
        AdminRole::Write,
    )];
    let audit_log = Some(file.clone());
    let shield = Shield::in_front_of(&origin)
        .with(|config| {
            config.admin.tokens = tokens;
            config.admin.audit_log = audit_log;
        })
        .start()
        .await;
    let bearer = "write-token-0123456789";
    shield.admin(get("/status")).await;
    shield.admin(bearing(get("/status"), bearer)).await;
    shield.admin(ask("POST", PURGE)).await;
    shield.admin(bearing(ask("POST", PURGE), bearer)).await;
    shield
        .admin(bearing(
            ask("POST", "/purge?stream=http%3A%2F%2Fa%2Fb.m3u8"),
            bearer,
        ))
        .await;
    let page = bearing(ask("POST", "/drain"), bearer).header("Origin", "https://evil.example");
    shield.admin(page).await;
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    eventually("four lines", async || lines().len() == 4).await;
    let fields = lines();
    let fields: Vec<_> = fields
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap();
            assert!(text("address").starts_with("127.0.0.1:"), "{line}");
            assert!(!line.to_string().contains(bearer), "{line}");
            (
                text("actor"),
                text("action"),
                text("result"),
                line["status"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        fields,
        [
            ("unknown", "POST /purge", "refused", 401),
            ("token deploy", "POST /purge", "done", 200),
            ("token deploy", "POST /purge", "failed", 404),
            ("unknown", "POST /drain", "refused", 403),
        ]
    );
    assert_eq!(lines()[1]["parameters"], PURGE.split_once('?').unwrap().1);
}
