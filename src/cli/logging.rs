//! Sets up the program's own log: to stderr, as text or JSON.
//!
//! A worker thread never waits for the reader of stderr: lines go through a bounded queue
//! ([`crate::telemetry::LogQueue`]). The access log is separate: see [`crate::telemetry`].

use std::io::stderr;
use std::panic;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::ValueEnum;
use parking_lot::Mutex;
use tracing::{Event, Level, Subscriber, callsite};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::admin::audit::AUDIT_TARGET;
use crate::telemetry::{
    LogCounts, LogGuard, LogLevels, LogQueue, LogRateLimit, ProgramLog, RecentEvents,
    RecentEventsLayer,
};

/// The variables that change the levels; the first that is set applies.
const VARIABLES: [&str; 2] = ["SEAWALL_LOG", "RUST_LOG"];

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One JSON object per line
    Json,
    /// Text for people
    Text,
}

/// The running log. Dropping it waits until the last lines are written.
pub(super) struct RunningLog {
    pub(super) log: ProgramLog,
    _guard: LogGuard,
}

/// Starts logging, including panics and the `log` records of libraries. `configured` are the levels
/// of the file, for which the environment may have others. `terminal`: people read it.
pub(super) fn start(
    format: Option<LogFormat>,
    configured: &LogLevels,
    terminal: bool,
) -> anyhow::Result<RunningLog> {
    let requested = VARIABLES
        .into_iter()
        .find_map(|name| Some((name, std::env::var(name).ok()?)));
    let levels = match &requested {
        Some((name, value)) => LogLevels::parse(value).with_context(|| {
            format!("{name} is not a log level such as debug, or seawall=debug,pingora=info")
        })?,
        None => configured.clone(),
    };
    let (filter, handle) = reload::Layer::new(levels.targets());
    let text = if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let counts = Arc::new(LogCounts::default());
    let (queue, guard) = LogQueue::start(stderr(), Arc::clone(&counts), report_dropped_lines)
        .context("cannot start the log's thread")?;
    let limit = RepeatFilter {
        limit: Mutex::default(),
        counts: Arc::clone(&counts),
    };
    let layer = fmt::layer()
        .with_ansi(terminal)
        .with_writer(move || queue.line_writer());
    let events = Arc::<RecentEvents>::default();
    let kept = RecentEventsLayer(Arc::clone(&events));
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(limit)
        .with(kept);
    let result = match format.unwrap_or(text) {
        LogFormat::Json => subscriber.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => subscriber.with(layer).try_init(),
    };
    result.map_err(|why| anyhow::anyhow!("cannot start logging: {why}"))?;
    // The default hook writes to stderr itself, and would wait for a reader that does not read.
    panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let variable = requested.map(|(name, _)| name);
    let set_levels = move |levels: &LogLevels| match variable {
        Some(name) => tracing::warn!("`level` of [log] has no effect: {name} is set"),
        None => {
            if let Err(error) = handle.reload(levels.targets()) {
                tracing::error!(%error, "cannot change the levels of the log: {error}");
            }
        }
    };
    Ok(RunningLog {
        log: ProgramLog {
            counts,
            events,
            set_levels: Arc::new(set_levels),
        },
        _guard: guard,
    })
}

/// Logs that log lines were dropped.
fn report_dropped_lines(counts: &LogCounts) {
    let [(_, queue_full), (_, repeated), (_, write_failed)] = counts.read();
    tracing::warn!(
        queue_full,
        repeated,
        write_failed,
        "log lines were left out since the start: see seawall_log_lines_dropped_total"
    );
}

/// Drops messages that repeat too often. Debug and trace messages, which somebody asked for, and
/// the audit log are kept.
struct RepeatFilter {
    limit: Mutex<LogRateLimit<callsite::Identifier>>,
    counts: Arc<LogCounts>,
}

impl<S: Subscriber> Layer<S> for RepeatFilter {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == AUDIT_TARGET {
            return true;
        }
        let admitted = self.limit.lock().admit(metadata.callsite(), Instant::now());
        if !admitted {
            self.counts.count_repeated();
        }
        admitted
    }
}
