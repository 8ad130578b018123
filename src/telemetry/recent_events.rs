//! Keeps the last messages of the program's own log, for those who look at the running server.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// As many as are kept.
const EVENTS_MAX: usize = 200;
/// A longer text is cut.
const TEXT_BYTES_MAX: usize = 500;
/// What operators do is in the audit log, and its results have messages of their own.
const AUDIT_TARGET: &str = "seawall::audit";

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentEvent {
    /// Its number since the start.
    pub number: u64,
    /// When it was logged.
    pub at: SystemTime,
    /// What it is about.
    pub kind: EventKind,
    /// `info`, `warning` or `error`.
    pub severity: &'static str,
    /// The message with its fields.
    pub text: String,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The start of the server and its listeners.
    Start,
    /// A change of the configuration, of certificates or keys.
    Reload,
    /// A purge.
    Purge,
    /// The state of an endpoint: its breaker, its health.
    Breaker,
    /// A drain.
    Drain,
    /// An upgrade.
    Upgrade,
    /// Anything else that is wrong.
    Error,
}

/// The modules whose messages are about one thing.
const KINDS: [(&str, EventKind); 8] = [
    ("seawall::server::reload", EventKind::Reload),
    ("seawall::server::background", EventKind::Reload),
    ("seawall::proxy::token_control", EventKind::Reload),
    ("seawall::proxy::purge", EventKind::Purge),
    ("seawall::server::drain", EventKind::Drain),
    ("seawall::frontend::lifecycle", EventKind::Drain),
    ("seawall::server::upgrade", EventKind::Upgrade),
    ("seawall_upstream::endpoint", EventKind::Breaker),
];

impl EventKind {
    fn of(target: &str, level: Level) -> EventKind {
        let kind = KINDS.iter().find(|(module, _)| target.starts_with(module));
        match kind {
            Some((_, kind)) => *kind,
            None if level <= Level::WARN => EventKind::Error,
            None => EventKind::Start,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Start => "start",
            EventKind::Reload => "reload",
            EventKind::Purge => "purge",
            EventKind::Breaker => "breaker",
            EventKind::Drain => "drain",
            EventKind::Upgrade => "upgrade",
            EventKind::Error => "error",
        }
    }
}

/// The last messages of the log.
#[derive(Default)]
pub struct RecentEvents(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    events: VecDeque<RecentEvent>,
    /// The number of messages since the start.
    count: u64,
}

impl RecentEvents {
    /// The messages that are kept, the oldest first.
    pub fn read(&self) -> Vec<RecentEvent> {
        self.0.lock().events.iter().cloned().collect()
    }

    fn add(&self, target: &str, level: Level, text: String) {
        let mut kept = self.0.lock();
        kept.count += 1;
        if kept.events.len() == EVENTS_MAX {
            kept.events.pop_front();
        }
        let event = RecentEvent {
            number: kept.count,
            at: SystemTime::now(),
            kind: EventKind::of(target, level),
            severity: match level {
                Level::ERROR => "error",
                Level::WARN => "warning",
                _ => "info",
            },
            text,
        };
        kept.events.push_back(event);
    }
}

/// Hands messages over to [`RecentEvents`].
pub struct RecentEventsLayer(pub Arc<RecentEvents>);

impl<S: Subscriber> Layer<S> for RecentEventsLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == AUDIT_TARGET {
            return;
        }
        let mut text = MessageText::default();
        event.record(&mut text);
        self.0
            .add(metadata.target(), *metadata.level(), text.finish());
    }
}

#[derive(Default)]
struct MessageText {
    message: String,
    fields: String,
}

impl MessageText {
    fn finish(self) -> String {
        let mut text = self.message;
        if !self.fields.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, " ({})", self.fields);
        }
        let end = text.floor_char_boundary(TEXT_BYTES_MAX);
        if end < text.len() {
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

impl Visit for MessageText {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
            return;
        }
        let separator = if self.fields.is_empty() { "" } else { ", " };
        let _ = write!(self.fields, "{separator}{} {value:?}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn keeps_the_last_messages_with_their_fields() {
        let events = Arc::<RecentEvents>::default();
        let layer = RecentEventsLayer(Arc::clone(&events));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("nobody asked for it");
            tracing::info!(target: AUDIT_TARGET, "POST /purge");
            tracing::info!(target: "seawall::proxy::purge", objects = 3, mode = "hard", "purged");
            let path = "x".repeat(2 * TEXT_BYTES_MAX);
            tracing::warn!(path, "too long");
            for _ in 0..EVENTS_MAX - 1 {
                tracing::info!("again");
            }
        });
        let kept = events.read();
        assert_eq!(kept.len(), EVENTS_MAX);
        let first = &kept[0];
        assert_eq!((first.number, first.severity), (2, "warning"));
        assert_eq!(first.kind, EventKind::Error);
        assert!(first.text.starts_with("too long (path xxx") && first.text.ends_with('…'));
        assert_eq!(kept[1].kind, EventKind::Start);
    }

    #[test]
    fn text_is_the_message_and_its_fields() {
        let events = Arc::<RecentEvents>::default();
        let layer = RecentEventsLayer(Arc::clone(&events));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "seawall::proxy::purge", objects = 3, mode = "hard", "purged");
        });
        let [event] = &events.read()[..] else {
            panic!("one message")
        };
        assert_eq!(event.text, "purged (objects 3, mode hard)");
        assert_eq!((event.kind, event.severity), (EventKind::Purge, "info"));
    }
}
