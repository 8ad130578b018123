//! How does the program write its own log? To stderr, for people or for machines.
//!
//! The access log is another thing: see [`crate::telemetry`].

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

/// `info` for ourselves; the libraries below us speak up only when something is wrong.
const LEVELS: &str =
    "info,pingora=warn,pingora_core::connectors=off,hyper=warn,h2=warn,rustls=warn";

/// The variables that change that, the first that is set.
const VARIABLES: [&str; 2] = ["SEAWALL_LOG", "RUST_LOG"];

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

/// Starts logging, the libraries' `log` records included.
pub(super) fn start(format: Option<LogFormat>) -> anyhow::Result<()> {
    let asked = VARIABLES
        .into_iter()
        .find_map(|name| Some((name, std::env::var(name).ok()?)));
    let filter = match asked {
        Some((name, value)) => levels(&value).with_context(|| {
            format!("{name} is not a log level such as debug, or seawall=debug,pingora=info")
        })?,
        None => levels("")?,
    };
    let text = if stderr().is_terminal() {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let builder = SubscriberBuilder::default()
        .with_writer(stderr)
        .with_env_filter(filter);
    let started = match format.unwrap_or(text) {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    started.map_err(|why| anyhow::anyhow!("cannot start logging: {why}"))
}

/// The usual levels with those asked for on top.
fn levels(asked: &str) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::builder().parse(format!("{LEVELS},{asked}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(asked: &str) -> String {
        levels(asked).unwrap().to_string()
    }

    #[test]
    fn libraries_stay_quiet_unless_asked() {
        assert!(shown("").contains("pingora=warn"), "{}", shown(""));
        let debug = shown("debug");
        assert!(
            debug.contains("pingora=warn") && debug.contains("debug"),
            "{debug}"
        );
        assert!(!debug.contains("info"), "{debug}");
        assert!(shown("pingora=trace").contains("pingora=trace"));
        assert!(!shown("pingora=trace").contains("pingora=warn"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(levels("seawall=loud").is_err());
    }
}
