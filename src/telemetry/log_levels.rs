//! Which lines the program's own log has. The log itself is set up by the command line.

use std::fmt;
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{LogCounts, RecentEvents};

/// `info` for Seawall. Libraries log errors only: their warnings are about what single viewers and
/// origins send, and anyone can cause any number of them.
const LEVELS: &str = "error,seawall=info,pingora_core::connectors=off";

/// What operators do is in the log at any level.
const AUDIT: &str = "seawall::audit=info";

/// The level of Seawall, or levels by target.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLevels {
    text: String,
    targets: Targets,
}

/// The text names no level, or a target without one.
#[derive(Debug, thiserror::Error)]
#[error("not a level, nor a target with a level")]
pub struct NotALogLevel;

impl LogLevels {
    /// Reads levels such as `debug`, or `seawall=debug,pingora=info`. A level without a target is
    /// Seawall's; what is not named has its default.
    pub fn parse(text: &str) -> Result<LogLevels, NotALogLevel> {
        let directive_of = |directive: &str| match directive.trim().parse::<LevelFilter>() {
            Ok(level) => Ok(format!("seawall={level}")),
            // A target alone would have all levels, and so would a level with a typing error.
            Err(_) if !directive.contains('=') => Err(NotALogLevel),
            Err(_) => Ok(directive.to_owned()),
        };
        // An empty list of directives would mean errors only.
        let requested = text
            .split(',')
            .filter(|directive| !directive.trim().is_empty());
        let requested: Vec<String> = requested.map(directive_of).collect::<Result<_, _>>()?;
        let levels = format!("{LEVELS},{},{AUDIT}", requested.join(","));
        let targets = levels.parse().map_err(|_| NotALogLevel)?;
        Ok(LogLevels {
            text: text.to_owned(),
            targets,
        })
    }

    /// As they were written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter of log lines.
    pub fn targets(&self) -> Targets {
        self.targets.clone()
    }
}

impl Default for LogLevels {
    fn default() -> LogLevels {
        LogLevels {
            text: "info".to_owned(),
            targets: Targets::new()
                .with_default(LevelFilter::ERROR)
                .with_target("seawall", LevelFilter::INFO)
                .with_target("pingora_core::connectors", LevelFilter::OFF)
                .with_target("seawall::audit", LevelFilter::INFO),
        }
    }
}

/// The program's own log, for the server that runs with it.
#[derive(Clone)]
pub struct ProgramLog {
    /// The counters of its lines.
    pub counts: Arc<LogCounts>,
    /// Its last messages.
    pub events: Arc<RecentEvents>,
    /// Sets its levels.
    pub set_levels: Arc<dyn Fn(&LogLevels) + Send + Sync>,
}

impl fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramLog").finish_non_exhaustive()
    }
}

/// The log of somebody else.
impl Default for ProgramLog {
    fn default() -> ProgramLog {
        ProgramLog {
            counts: Arc::default(),
            events: Arc::default(),
            set_levels: Arc::new(|_| {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(requested: &str) -> Vec<String> {
        let directives = LogLevels::parse(requested).unwrap().targets.to_string();
        directives.split(',').map(str::to_owned).collect()
    }

    fn has(requested: &str, directive: &str) -> bool {
        directives(requested).contains(&directive.to_owned())
    }

    #[test]
    fn logs_only_errors_of_libraries_by_default() {
        assert!(
            has("", "error") && has("", "seawall=info"),
            "{:?}",
            directives("")
        );
        let debug = directives("debug");
        assert!(
            has("debug", "seawall=debug") && has("debug", "error"),
            "{debug:?}"
        );
        assert!(!has("debug", "seawall=info"), "{debug:?}");
        assert!(has("h2=warn", "h2=warn") && has("h2=warn", "seawall=info"));
        assert_eq!(LogLevels::parse("info").unwrap(), LogLevels::default());
    }

    #[test]
    fn writes_of_operators_are_logged_at_any_level() {
        for requested in ["", "error", "seawall=off", "seawall::audit=off"] {
            assert!(has(requested, "seawall::audit=info"), "{requested}");
        }
    }

    #[test]
    fn rejects_invalid_log_filter() {
        assert!(LogLevels::parse("seawall=loud").is_err());
        assert!(LogLevels::parse("loud").is_err() && LogLevels::parse("info,h2").is_err());
        assert!(LogLevels::parse("[connection{peer=x}]=debug").is_err());
    }
}
