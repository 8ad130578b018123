//! `seawall status`, `reload`, `drain` and `purge`: what an operator asks of a running server.

use std::fmt::Write;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::Value;

use super::admin_client::{AdminArguments, percent_encode};
use crate::telemetry::counted;

/// For everything: connect, request and response. Longer than the server takes for any of them.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// How to reach the server, and how to print its answer.
#[derive(Debug, Args)]
struct AnswerArguments {
    #[command(flatten)]
    server: AdminArguments,

    /// Print the server's JSON
    #[arg(long)]
    json: bool,
}

impl AnswerArguments {
    /// Sends the request, and prints the answer as JSON or as `render` says it.
    fn run(
        &self,
        method: &str,
        target: &str,
        render: impl FnOnce(&Value) -> String,
    ) -> anyhow::Result<()> {
        let client = self.server.client()?;
        let answer = client.request_json(method, target, ANSWER_MAX)?;
        super::print(&if self.json {
            format!("{answer}\n")
        } else {
            render(&answer)
        });
        Ok(())
    }
}

/// Have a running server read its configuration file again.
#[derive(Debug, Args)]
pub(super) struct ReloadServer {
    #[command(flatten)]
    answer: AnswerArguments,
}

impl ReloadServer {
    /// Fails unless the server has applied the file.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        self.answer.run("POST", "/reload", render_reload)
    }
}

/// The changes are the lines of `seawall check --diff`.
fn render_reload(report: &Value) -> String {
    let generation = &report["generation"];
    let counted = match report["changes"].as_array().map_or(0, Vec::len) {
        0 => "nothing has changed".to_owned(),
        count => counted(count as u64, "change"),
    };
    let mut lines = format!("configuration {generation} is in use: {counted}");
    let pending = report["needs_restart"].as_u64().unwrap_or_default();
    if pending > 0 {
        let _ = write!(lines, ", {pending} {}", need_a_restart(pending));
    }
    lines.push('\n');
    lines + &text_lines(&report["changes"], "  ") + &text_lines(&report["warnings"], WARNING)
}

fn need_a_restart(count: u64) -> &'static str {
    if count == 1 {
        "NEEDS A RESTART"
    } else {
        "NEED A RESTART"
    }
}

/// Before what is doubtful in the configuration in use.
const WARNING: &str = "warning: ";

/// The texts in this list, one a line.
fn text_lines(list: &Value, prefix: &str) -> String {
    let mut lines = String::new();
    for one in list.as_array().into_iter().flatten() {
        let text = one["text"].as_str().unwrap_or("unknown");
        let _ = writeln!(lines, "{prefix}{text}");
    }
    lines
}

/// Show whether a running server drains, its configuration, and the state of its origins.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    answer: AnswerArguments,
}

impl Status {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        self.answer.run("GET", "/status", render_status)
    }
}

/// What of the file only a restart applies, one a line.
fn render_pending(changes: &Value) -> String {
    let count = changes.as_array().map_or(0, Vec::len) as u64;
    if count == 0 {
        return String::new();
    }
    let counted = counted(count, "change");
    let need = need_a_restart(count);
    format!("{counted} of the file {need}:\n") + &text_lines(changes, "  ")
}

fn render_status(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let mut lines = format!("server {}\n", text(&status["drain"]["state"]));
    let config = &status["config"];
    if let Some(file) = config["file"].as_str() {
        let _ = writeln!(lines, "configuration {} of {file}", config["generation"]);
    }
    lines.push_str(&render_pending(&config["pending_restart"]));
    lines.push_str(&text_lines(&config["warnings"], WARNING));
    if let Some(error) = config["last_error"]["error"].as_str() {
        let _ = writeln!(
            lines,
            "the last reload FAILED and changed nothing:\n{error}"
        );
    }
    for origin in status["origins"].as_array().into_iter().flatten() {
        let _ = writeln!(
            lines,
            "origin {}: {} in flight, {} queued",
            text(&origin["name"]),
            origin["in_flight"],
            origin["queued"]
        );
        for endpoint in origin["endpoints"].as_array().into_iter().flatten() {
            let _ = writeln!(
                lines,
                "  {}: {}, {} in flight",
                text(&endpoint["url"]),
                condition(endpoint),
                counted(endpoint["in_flight"].as_u64().unwrap_or(0), "request")
            );
        }
    }
    for class in status["client_classes"].as_array().into_iter().flatten() {
        // `background` has no clients: nothing is refused to it.
        if let (Some(denied), Some(limited)) =
            (class["denied"].as_u64(), class["rate_limited"].as_u64())
        {
            let _ = writeln!(
                lines,
                "client class {}: {}, {denied} got 403, {limited} got 429",
                text(&class["name"]),
                counted(class["requests"].as_u64().unwrap_or(0), "request")
            );
        }
    }
    lines
}

/// Why an endpoint is not used first, if there is a reason.
fn condition(endpoint: &Value) -> String {
    let mut reasons = Vec::new();
    if endpoint["reachable"] == false {
        reasons.push("UNREACHABLE".to_owned());
    }
    if endpoint["healthy"] == false {
        reasons.push("UNHEALTHY".to_owned());
    }
    if endpoint["ejected"] == true {
        reasons.push("EJECTED".to_owned());
    }
    let breaker = endpoint["breaker"].as_str();
    reasons.extend(
        breaker
            .filter(|state| *state != "closed")
            .map(|state| format!("breaker {state}")),
    );
    match reasons.as_slice() {
        [] => "good".to_owned(),
        reasons => reasons.join(", "),
    }
}

/// Drain a running server: it stops after the responses in progress, as with SIGTERM
#[derive(Debug, Args)]
pub(super) struct DrainServer {
    /// Return when the listeners are closed
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    answer: AnswerArguments,
}

impl DrainServer {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let target = if self.wait {
            "/drain?wait=true"
        } else {
            "/drain"
        };
        self.answer.run("POST", target, |answer| {
            let state = answer["state"].as_str().unwrap_or("unknown");
            format!("the server is {state}\n")
        })
    }
}

/// Remove stored objects from a running server.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true)))]
pub(super) struct PurgeObjects {
    /// This URL with its variants; for a playlist, all its versions
    #[arg(value_name = "URL", group = "target")]
    url: Option<String>,

    /// The path of this URL with every query
    #[arg(long, value_name = "URL", group = "target")]
    path: Option<String>,

    /// The stream of the manifest with this URL
    #[arg(long, value_name = "URL", group = "target")]
    stream: Option<String>,

    /// Every URL that begins with this one
    #[arg(long, value_name = "URL", group = "target")]
    prefix: Option<String>,

    /// Everything that viewers of this host got
    #[arg(long, value_name = "NAME", group = "target")]
    host: Option<String>,

    /// Everything that the origin marked with this tag; repeat it for more tags
    #[arg(long = "tag", value_name = "TAG", group = "target")]
    tags: Vec<String>,

    /// Only what this origin marked with the tag
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["url", "path", "stream", "prefix", "host", "all"],
    )]
    origin: Option<String>,

    /// Everything
    #[arg(long, group = "target")]
    all: bool,

    /// Make it stale instead of removing it: viewers get it until the origin has answered
    #[arg(long)]
    soft: bool,

    /// Only say what would be purged
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    answer: AnswerArguments,
}

impl PurgeObjects {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        self.answer.run("POST", &self.target(), render_purge)
    }

    /// The path and the query of the request.
    fn target(&self) -> String {
        let named = [
            ("url", &self.url),
            ("path", &self.path),
            ("stream", &self.stream),
            ("prefix", &self.prefix),
            ("host", &self.host),
        ];
        let named = named.iter().find_map(|(name, value)| {
            let value = value.as_ref()?;
            Some(format!("{name}={}", percent_encode(value)))
        });
        let tags = self.tags.iter().map(|tag| ("tag", tag));
        let origin = self.origin.iter().map(|origin| ("origin", origin));
        let tagged: Vec<_> = tags
            .chain(origin)
            .map(|(name, value)| format!("{name}={}", percent_encode(value)))
            .collect();
        let scope = match named {
            Some(named) => named,
            None if tagged.is_empty() => "all=true".to_owned(),
            None => tagged.join("&"),
        };
        let soft = if self.soft { "&soft=true" } else { "" };
        let dry_run = if self.dry_run { "&dry_run=true" } else { "" };
        format!("/purge?{scope}{soft}{dry_run}")
    }
}

fn render_purge(answer: &Value) -> String {
    let done = match (answer["dry_run"] == true, answer["soft"] == true) {
        (true, false) => "would be removed",
        (false, false) => "removed",
        (true, true) => "would be made stale",
        (false, true) => "made stale, or removed where that is not allowed",
    };
    let counted = |name: &str, noun| counted(answer[name].as_u64().unwrap_or(0), noun);
    let (objects, bytes) = (counted("objects", "object"), counted("bytes", "byte"));
    let mut text = format!("{objects} ({bytes}) {done}\n");
    if answer["complete"] == false {
        text.push_str("not all manifests of the stream were read: some objects may remain\n");
    }
    if answer["shared_with_other_hosts"] == true {
        text.push_str("viewers of other hosts got the same objects\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct PurgeLine {
        #[command(flatten)]
        purge: PurgeObjects,
    }

    fn target(line: &str) -> Option<String> {
        let line = PurgeLine::try_parse_from(format!("purge {line}").split_whitespace());
        Some(line.ok()?.purge.target())
    }

    #[test]
    fn purge_names_exactly_one_scope() {
        let target = |line: &str| target(line).unwrap_or_default();
        assert_eq!(target("http://a/b?c=d"), "/purge?url=http://a/b%3Fc%3Dd");
        assert_eq!(target("--stream http://a/m"), "/purge?stream=http://a/m");
        assert_eq!(
            target("--prefix http://a/ --dry-run"),
            "/purge?prefix=http://a/&dry_run=true"
        );
        assert_eq!(target("--host a.example"), "/purge?host=a.example");
        assert_eq!(target("--all"), "/purge?all=true");
        assert_eq!(target("--all --soft"), "/purge?all=true&soft=true");
        assert_eq!(
            target("--tag a/b --tag c --origin main"),
            "/purge?tag=a/b&tag=c&origin=main"
        );
        for wrong in [
            "",
            "--dry-run",
            "http://a/ --all",
            "--path http://a/ --host a",
            "--tag a --all",
            "--all --origin main",
        ] {
            assert_eq!(target(wrong), "", "{wrong}");
        }
    }

    #[test]
    fn status_says_what_is_wrong_with_an_endpoint() {
        let endpoint = |breaker: &str, reachable: bool| {
            json!({
                "url": "https://o.example", "breaker": breaker, "reachable": reachable,
                "healthy": null, "ejected": false, "in_flight": 2,
            })
        };
        let status = json!({
            "drain": { "state": "serving" },
            "origins": [{
                "name": "main", "in_flight": 3, "queued": 1,
                "endpoints": [endpoint("closed", true), endpoint("open", false)],
            }],
        });
        assert_eq!(
            render_status(&status),
            "server serving\norigin main: 3 in flight, 1 queued\n  https://o.example: good, 2 \
             requests in flight\n  https://o.example: UNREACHABLE, breaker open, 2 requests in \
             flight\n"
        );
    }

    #[test]
    fn status_says_how_many_requests_of_a_client_class_were_refused() {
        let classes = json!([
            { "name": "other", "requests": 7, "denied": 2, "rate_limited": 1 },
            { "name": "background", "requests": null, "denied": null, "rate_limited": null },
        ]);
        let status = json!({ "drain": { "state": "serving" }, "client_classes": classes });
        assert_eq!(
            render_status(&status),
            "server serving\nclient class other: 7 requests, 2 got 403, 1 got 429\n"
        );
    }

    #[test]
    fn status_says_which_configuration_is_in_use_and_why_not_the_last_one() {
        let config = |last_error: Value| {
            let config = json!({ "file": "a.toml", "generation": 2, "last_error": last_error });
            render_status(&json!({ "drain": { "state": "serving" }, "config": config }))
        };
        let good = "server serving\nconfiguration 2 of a.toml\n";
        assert_eq!(config(Value::Null), good);
        let failed = config(json!({ "error": "error: no `to`" }));
        let why = "the last reload FAILED and changed nothing:\nerror: no `to`\n";
        assert_eq!(failed, format!("{good}{why}"));
    }

    #[test]
    fn reload_says_what_is_in_use_and_what_needs_a_restart() {
        let report = json!({
            "generation": 2,
            "changes": [{ "text": "[limits]: ranges_max 1 → 2" }, { "text": "other" }],
            "needs_restart": 1,
            "warnings": [{ "text": "doubtful (a.toml:1:2)" }],
        });
        assert_eq!(
            render_reload(&report),
            "configuration 2 is in use: 2 changes, 1 NEEDS A RESTART\n  [limits]: ranges_max 1 → \
             2\n  other\nwarning: doubtful (a.toml:1:2)\n"
        );
        let same = json!({ "generation": 3, "changes": [], "needs_restart": 0, "warnings": [] });
        assert_eq!(
            render_reload(&same),
            "configuration 3 is in use: nothing has changed\n"
        );
    }

    #[test]
    fn purge_says_how_much_and_whether_it_is_all() {
        let answer = json!({ "objects": 3, "bytes": 4096, "dry_run": true, "complete": false });
        let text = render_purge(&answer);
        assert!(
            text.starts_with("3 objects (4096 bytes) would be removed\n"),
            "{text}"
        );
        assert!(text.contains("may remain"), "{text}");
        let one = render_purge(&json!({ "objects": 1, "bytes": 1 }));
        assert_eq!(one, "1 object (1 byte) removed\n");
    }
}
