//! `seawall explain`: prints what a running server would do with a URL, and why.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::health::time_remaining;
use crate::config;

/// For everything: connect, request and response.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// An explanation has a few hundred bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Ask a running server what it would do with a URL, and why.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The URL as a viewer would request it: `http://host/path?query`
    #[arg(value_name = "URL")]
    url: String,

    /// Address of the server's admin port
    #[arg(long, value_name = "ADDRESS", default_value = super::ADMIN)]
    #[arg(value_parser = config::parse_socket_address)]
    admin: SocketAddr,

    /// Print the server's JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Prints the explanation. Fails if no route serves the URL.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let response = fetch_explanation(self.admin, &self.url, Instant::now() + ANSWER_MAX);
        let (status, body) = response.with_context(|| {
            let admin = self.admin;
            format!("no answer from {admin} (is it the server's admin address?)")
        })?;
        let explanation: Value = serde_json::from_slice(&body)
            .with_context(|| format!("{} does not explain (status {status})", self.admin))?;
        if status != 200 {
            let reason = explanation["error"]
                .as_str()
                .unwrap_or("it cannot be explained");
            anyhow::bail!("{}: {reason}", self.url);
        }
        let text = if self.json {
            format!("{explanation}\n")
        } else {
            render_text(&self.url, &explanation)
        };
        // The reader of stdout may be gone.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

/// The status and the body of the response.
fn fetch_explanation(
    admin: SocketAddr,
    url: &str,
    deadline: Instant,
) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&admin, time_remaining(deadline)?)?;
    stream.set_write_timeout(Some(time_remaining(deadline)?))?;
    stream.set_read_timeout(Some(time_remaining(deadline)?))?;
    let url = percent_encode(url);
    let lines = format!("GET /explain?url={url} HTTP/1.1\r\nHost: {admin}\r\nConnection: close");
    stream.write_all(lines.as_bytes())?;
    stream.write_all(b"\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut response)?;
    let not_http = || io::Error::other("this is not an HTTP server");
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = response.split_off(end.ok_or_else(not_http)? + 4);
    let head = String::from_utf8_lossy(&response);
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(not_http)?, body))
}

/// Percent-encodes every byte with a meaning in a query.
fn percent_encode(url: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'/')
        .remove(b':');
    utf8_percent_encode(url, ENCODED).to_string()
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
    fn url_is_percent_encoded_for_the_explain_query() {
        assert_eq!(
            percent_encode("http://a/b?c=1&d=%2f"),
            "http://a/b%3Fc%3D1%26d%3D%252f"
        );
    }

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
