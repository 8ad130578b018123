//! `seawall explain`: prints what a running server would do with a URL, and why.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminArguments, percent_encode};

/// For everything: connect, request and response.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Ask a running server what it would do with a URL, and why.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The URL as a viewer would request it: `http://host/path?query`
    #[arg(value_name = "URL")]
    url: String,

    #[command(flatten)]
    server: AdminArguments,

    /// Print the server's JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Prints the explanation. Fails if no route serves the URL.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let client = self.server.client()?;
        let target = format!("/explain?url={}", percent_encode(&self.url));
        let explanation = client.request_json("GET", &target, ANSWER_MAX);
        let explanation = explanation.with_context(|| format!("{}: no explanation", self.url))?;
        super::print(&if self.json {
            format!("{explanation}\n")
        } else {
            render_text(&self.url, &explanation)
        });
        Ok(())
    }
}

/// The explanation as text.
fn render_text(url: &str, explanation: &Value) -> String {
    let mut text = format!("{url}\n");
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:<9} {value}");
    };
    let of = |key: &str| explanation[key].as_str().unwrap_or_default();
    line("route", of("route").to_owned());
    line("kind", of("kind").to_owned());
    let host = explanation["host"].as_str();
    let host = host.map_or(String::new(), |host| format!(" (Host: {host})"));
    line("sent as", format!("{}{host}", of("target")));
    line("key", of("key").to_owned());
    let endpoint = explanation["endpoint"]
        .as_str()
        .unwrap_or("no endpoint, at present");
    line("origin", format!("{}: {endpoint}", of("origin")));
    for value in stored_lines(explanation) {
        line("held", value);
    }
    if let Some(value) = manifest_line(&explanation["manifest"]) {
        line("manifest", value);
    }
    if let Some(value) = tracker_line(&explanation["followed"]) {
        line("followed", value);
    }
    if let Some(known) = explanation["known"].as_str() {
        line("known", known.to_owned());
    }
    match explanation["due_in_seconds"].as_f64() {
        Some(0.0) => line("due", "it should exist by now".to_owned()),
        Some(seconds) => line("due", format!("in {seconds} s")),
        None => {}
    }
    for name in explanation["varying_parameters"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let name = name.as_str().unwrap_or_default();
        line(
            "query",
            format!("`{name}` differs in nearly every fetch: no two viewers share this"),
        );
    }
    text
}

fn stored_lines(explanation: &Value) -> Vec<String> {
    let held = &explanation["held"];
    if held.is_null() && explanation["varies"] == true {
        return vec!["in variants by request headers; none for a request without these".to_owned()];
    }
    if held.is_null() {
        return vec!["nothing".to_owned()];
    }
    let state = held["state"].as_str().unwrap_or_default();
    let because = held["because"].as_str().unwrap_or_default();
    let mut lines = vec![
        format!(
            "status {}, {} bytes, {} s old: {state}",
            held["status"], held["bytes"], held["age_seconds"]
        ),
        format!("fresh for {} s: {because}", held["fresh_for_seconds"]),
        format!(
            "then {} s while it is refreshed, {} s if the origin fails",
            held["stale_while_revalidate_seconds"], held["stale_if_error_seconds"]
        ),
    ];
    if let Some(age) = held["refreshed_until_age_seconds"].as_f64() {
        lines.push(format!(
            "up to an age of {age} s while it is refreshed ahead of viewers"
        ));
    }
    lines
}

fn manifest_line(facts: &Value) -> Option<String> {
    let is_live = facts["is_live"].as_bool()?;
    let mut explanation = vec![if is_live { "live" } else { "ended" }.to_owned()];
    if facts["is_multivariant"] == true {
        explanation.push("lists playlists".to_owned());
    }
    for (key, label) in [
        ("period_seconds", "changes every"),
        ("segment_seconds", "segments of"),
        ("part_seconds", "parts of"),
    ] {
        explanation.extend(
            facts[key]
                .as_f64()
                .map(|seconds| format!("{label} {seconds} s")),
        );
    }
    let edge = &facts["edge"];
    if let Some(last) = edge["last"].as_u64() {
        explanation.push(format!("segments {} to {last}", edge["first"]));
        let parts = edge["parts"].as_u64().filter(|&parts| parts > 0);
        explanation.extend(parts.map(|parts| format!("and {parts} parts")));
    }
    if let Some(to) = edge["to_seconds"].as_f64() {
        explanation.push(format!("from {} s to {to} s", edge["from_seconds"]));
    }
    for (key, label) in [("published", "published"), ("ends", "ends at")] {
        explanation.extend(facts[key].as_str().map(|at| format!("{label} {at}")));
    }
    Some(explanation.join(", "))
}

fn tracker_line(followed: &Value) -> Option<String> {
    let stream = followed["stream"].as_str()?;
    let mut explanation = vec![format!("in the stream {stream}")];
    if followed["is_stalled"] == true {
        explanation.push("it has STALLED".to_owned());
    }
    explanation.push(match followed["idle_seconds"].as_f64() {
        Some(seconds) => format!("a viewer asked {seconds} s ago"),
        None => "no viewer requested it since it was first seen".to_owned(),
    });
    explanation.push(match followed["next_poll_in_seconds"].as_f64() {
        Some(seconds) => format!("polled again in {seconds} s"),
        None if followed["is_refreshed"] == true => "about to stop being refreshed".to_owned(),
        None => "refreshed when a viewer requests it".to_owned(),
    });
    Some(explanation.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn explain_text_shows_object_manifest_and_tracker() {
        let explanation = json!({
            "route": "live", "kind": "hls", "key": "00ff", "target": "/a.m3u8",
            "origin": "main", "endpoint": "https://o.example",
            "held": {
                "status": 200, "bytes": 321, "state": "fresh", "age_seconds": 0.5,
                "fresh_for_seconds": 2.0, "because": "half a target duration",
                "stale_while_revalidate_seconds": 2.0, "stale_if_error_seconds": 12.0,
                "refreshed_until_age_seconds": 6.0
            },
            "manifest": {
                "is_live": true, "period_seconds": 4.0,
                "edge": { "first": 7, "last": 9, "parts": 2 }
            },
            "followed": {
                "stream": "/main.m3u8", "is_refreshed": true, "is_stalled": false,
                "idle_seconds": 0.1, "next_poll_in_seconds": 1.25
            },
            "due_in_seconds": 3.0
        });
        let text = render_text("http://a/a.m3u8", &explanation);
        for expected in [
            "main: https://o.example",
            "status 200, 321 bytes, 0.5 s old: fresh",
            "fresh for 2.0 s: half a target duration",
            "live, changes every 4 s, segments 7 to 9, and 2 parts",
            "in the stream /main.m3u8, a viewer asked 0.1 s ago, polled again in 1.25 s",
            "due       in 3 s",
        ] {
            assert!(text.contains(expected), "{expected} in:\n{text}");
        }
    }

    #[test]
    fn explain_text_shows_missing_object_and_endpoint() {
        let explanation = json!({ "route": "r", "origin": "o", "target": "/x" });
        let explanation = render_text("http://a/x", &explanation);
        assert!(explanation.contains("held      nothing"), "{explanation}");
        assert!(
            explanation.contains("o: no endpoint, at present"),
            "{explanation}"
        );
    }
}
