//! The real program whose operator changes its file, and orders by the admin server.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::origin::{Origin, segment};
use super::program::{Log, Program};
use super::viewer::{Ask, Response, Viewer, ask, get};

/// The object at the origin; its body is `whole`.
pub const PATH: &str = "/live/seg1.ts";

/// An admin server at any port.
pub const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"";

/// A program with its file, its log and its admin server.
pub struct Operated {
    pub origin: Origin,
    pub program: Program,
    pub log: Log,
    pub admin: SocketAddr,
}

impl Operated {
    /// In front of an origin that has [`PATH`].
    pub async fn start(more: &str) -> Operated {
        let object = segment("whole").cache_control("max-age=600");
        Operated::in_front_of(Origin::start().await.on(PATH, object), more).await
    }

    pub async fn in_front_of(origin: Origin, more: &str) -> Operated {
        let mut program = Program::serve_with(&origin, &format!("{ADMIN}\n{more}"), |command| {
            command.stderr(Stdio::piped());
        })
        .await;
        let mut log = program.log();
        let admin = log.admin().await;
        Operated {
            origin,
            program,
            log,
            admin,
        }
    }

    /// Writes the file anew; nothing else changes.
    pub fn write(&self, more: &str) {
        let text = format!("{ADMIN}\n{more}");
        self.program.write_configuration(&self.origin, &text);
    }

    pub async fn ask_admin(&self, ask: Ask) -> Response {
        let mut viewer = Viewer::connect(self.admin).await;
        viewer.ask(ask.host("localhost")).await
    }

    /// The status and the answer of a POST.
    pub async fn post(&self, path: &str) -> (u16, Value) {
        let answer = self.ask_admin(ask("POST", path)).await;
        let told = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status, told)
    }

    pub async fn reload(&self) -> (u16, Value) {
        self.post("/reload").await
    }

    /// Writes the file anew and has it reloaded, which must succeed.
    pub async fn change(&self, more: &str) -> Value {
        self.write(more);
        let (status, report) = self.reload().await;
        assert_eq!(status, 200, "{report}");
        report
    }

    /// The same, which must fail. Returns what is said.
    pub async fn change_refused(&self, more: &str) -> String {
        self.write(more);
        let (status, error) = self.reload().await;
        assert_eq!(status, 409, "{error}");
        error["error"].as_str().expect("an error").to_owned()
    }

    /// The end of a command of the program for this server; its words are separated by spaces.
    pub async fn command(&self, words: &str) -> Output {
        let admin = self.admin.to_string();
        self.command_without_server(&format!("{words} --admin {admin}"))
            .await
    }

    /// The end of a command that asks no server.
    pub async fn command_without_server(&self, words: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.args(words.split(' '));
        command.env_remove("SEAWALL_ADMIN_TOKEN_FILE");
        let ended = tokio::task::spawn_blocking(move || command.output()).await;
        ended.expect("no panic").expect("the program was built")
    }

    pub async fn status(&self) -> Value {
        let answer = self.ask_admin(get("/status")).await;
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// What `/status` says of the configuration.
    pub async fn config(&self) -> Value {
        self.status().await["config"].take()
    }

    pub async fn object(&self) -> Response {
        let response = self.program.viewer().await.get(PATH).await;
        response.assert_whole("whole");
        response
    }

    /// Upgrades; the number of the new process.
    pub async fn upgrade(&self) -> i32 {
        let (status, answer) = self.post("/upgrade").await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
        let pid = answer["pid"].as_i64().expect("a number");
        pid.try_into().expect("the number of a process")
    }

    /// The number of the process that answers operators.
    pub async fn pid(&self) -> i32 {
        let pid = self.status().await["process"]["pid"].as_i64();
        pid.expect("a number")
            .try_into()
            .expect("the number of a process")
    }
}
