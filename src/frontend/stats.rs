//! Counts the events of viewer connections.

use std::sync::atomic::{AtomicU64, Ordering};

use super::frames::FrameKind;
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};

/// An event of a connection. Also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The connection was accepted.
    Accepted,
    /// Another worker, which had fewer connections, got it from the one that accepted it.
    HandedOver,
    /// Closed at once: `connections_max` is reached, and no connection is idle.
    RefusedFull,
    /// Closed at once: its client has reached `connections_per_client_max`.
    RefusedClient,
    /// Closed: the listener accepts proxies only, and this is none, or it sent no header of the
    /// PROXY protocol.
    RefusedProxy,
    /// `accept` failed: the system had no file descriptor or memory.
    AcceptFailed,
    /// The longest idle connection was asked to close, to make room for a new one.
    ClosedIdle,
    /// The TLS handshake failed: the viewer has no certificate, and the listener requires one.
    CertificateMissing,
    /// The TLS handshake failed: the viewer's certificate is of no authority of the listener, or
    /// has expired.
    CertificateInvalid,
    /// The TLS handshake failed for another reason.
    HandshakeFailed,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The request head took too long.
    HeadTimeout,
    /// No request for `idle_timeout`.
    IdleTimeout,
    /// The request body took too long.
    BodyTimeout,
    /// The viewer received its response too slowly.
    SlowViewer,
    /// The viewer was slow, and the memory of the bytes that it had not received was needed.
    CutForMemory,
    /// A response did not end within `drain_max` after the server began to drain, its listener was
    /// removed, or who verifies its viewer has changed.
    CutAtDrain,
    /// A request was refused before the cache lookup: 400, 413, 414, 421, 431. Over HTTP/2 also a
    /// malformed request, whose stream is reset or whose connection is closed.
    HeadRefused,
    /// The viewer closed the stream or connection before there was a response.
    Abandoned,
}

impl ConnectionEvent {
    /// All events, in the order of their counters.
    pub const ALL: [ConnectionEvent; 19] = [
        ConnectionEvent::Accepted,
        ConnectionEvent::HandedOver,
        ConnectionEvent::RefusedFull,
        ConnectionEvent::RefusedClient,
        ConnectionEvent::RefusedProxy,
        ConnectionEvent::AcceptFailed,
        ConnectionEvent::ClosedIdle,
        ConnectionEvent::CertificateMissing,
        ConnectionEvent::CertificateInvalid,
        ConnectionEvent::HandshakeFailed,
        ConnectionEvent::HandshakeTimeout,
        ConnectionEvent::HeadTimeout,
        ConnectionEvent::IdleTimeout,
        ConnectionEvent::BodyTimeout,
        ConnectionEvent::SlowViewer,
        ConnectionEvent::CutForMemory,
        ConnectionEvent::CutAtDrain,
        ConnectionEvent::HeadRefused,
        ConnectionEvent::Abandoned,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ConnectionEvent::Accepted => "accepted",
            ConnectionEvent::HandedOver => "handed_over",
            ConnectionEvent::RefusedFull => "refused_full",
            ConnectionEvent::RefusedClient => "refused_client",
            ConnectionEvent::RefusedProxy => "refused_proxy",
            ConnectionEvent::AcceptFailed => "accept_failed",
            ConnectionEvent::ClosedIdle => "closed_idle",
            ConnectionEvent::CertificateMissing => "certificate_missing",
            ConnectionEvent::CertificateInvalid => "certificate_invalid",
            ConnectionEvent::HandshakeFailed => "handshake_failed",
            ConnectionEvent::HandshakeTimeout => "handshake_timeout",
            ConnectionEvent::HeadTimeout => "head_timeout",
            ConnectionEvent::IdleTimeout => "idle_timeout",
            ConnectionEvent::BodyTimeout => "body_timeout",
            ConnectionEvent::SlowViewer => "slow_viewer",
            ConnectionEvent::CutForMemory => "cut_for_memory",
            ConnectionEvent::CutAtDrain => "cut_at_drain",
            ConnectionEvent::HeadRefused => "head_refused",
            ConnectionEvent::Abandoned => "abandoned",
        }
    }
}

/// The counters of all workers.
#[derive(Default)]
pub(super) struct ConnectionCounters {
    counts: [AtomicU64; ConnectionEvent::ALL.len()],
    floods: [AtomicU64; FrameKind::ALL.len()],
    repeated_bytes: AtomicU64,
}

impl ConnectionCounters {
    pub(super) fn count(&self, event: ConnectionEvent) {
        self.counts[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an HTTP/2 connection that was closed because of too many frames, mostly of this type.
    pub(super) fn count_flood(&self, kind: FrameKind) {
        self.floods[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Records that a worker remembers more or fewer bytes of responses.
    pub(super) fn record_repeated_bytes(&self, before: usize, after: usize) {
        let change = (after as u64).wrapping_sub(before as u64);
        self.repeated_bytes.fetch_add(change, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, (open, max): (usize, usize), queued_bytes: u64) -> Stats {
        Stats {
            open,
            max,
            queued_bytes,
            repeated_bytes: self.repeated_bytes.load(Ordering::Relaxed),
            counts: std::array::from_fn(|index| self.counts[index].load(Ordering::Relaxed)),
            floods: std::array::from_fn(|index| self.floods[index].load(Ordering::Relaxed)),
        }
    }
}

/// The values of the counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Connections open now.
    pub open: usize,
    /// Connections that may be open.
    pub max: usize,
    /// Body bytes that HTTP/2 streams have queued.
    queued_bytes: u64,
    /// Bytes of responses that workers remember.
    repeated_bytes: u64,
    counts: [u64; ConnectionEvent::ALL.len()],
    floods: [u64; FrameKind::ALL.len()],
}

impl Stats {
    /// The number of these events.
    pub fn of(&self, event: ConnectionEvent) -> u64 {
        self.counts[event as usize]
    }
}

const EVENT: MetricLabel = MetricLabel {
    name: "event",
    values: LabelValues::Fixed(|| ConnectionEvent::ALL.map(ConnectionEvent::as_str).to_vec()),
};
const FRAME: MetricLabel = MetricLabel {
    name: "frame",
    values: LabelValues::Fixed(|| FrameKind::ALL.map(FrameKind::as_str).to_vec()),
};

/// The metrics of viewer connections.
pub static CONNECTION_METRICS: [CollectedMetric<Stats>; 5] = [
    Metric {
        name: "seawall_viewer_connections_open",
        kind: MetricKind::Gauge,
        unit: "connections",
        labels: &[],
        help: "Viewer connections open now.",
        remedy: "At connections_max, idle connections are closed to make room for new ones: raise \
                 it, or add a server.",
    }
    .collected(|stats, samples| samples.add(&[], stats.open)),
    Metric {
        name: "seawall_viewer_http2_queued_bytes",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Bytes of responses that HTTP/2 streams have queued because their viewers do not \
               receive them: up to 96 KiB per stream, in memory that the cache shares if it \
               stores the object.",
        remedy: "If it stays high, lower streams_max or send_rate_window.",
    }
    .collected(|stats, samples| samples.add(&[], stats.queued_bytes)),
    Metric {
        name: "seawall_repeated_response_bytes",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &[],
        help: "Bytes of responses that workers remember, to send them again without a lookup: at \
               most 8 MiB for each worker and listener, outside of [cache] memory. A response is \
               sent again for a second at most; it may stay in memory until the worker's next \
               request that is not answered in this way.",
        remedy: "None is needed.",
    }
    .collected(|stats, samples| samples.add(&[], stats.repeated_bytes)),
    Metric {
        name: "seawall_viewer_events_total",
        kind: MetricKind::Counter,
        unit: "events",
        labels: &[EVENT],
        help: "Events of viewer connections. Increments with each event; docs/configuration.md \
               explains the limits in [limits].",
        remedy: "refused_full: raise connections_max. refused_client: raise \
                 connections_per_client_max, or block the client. refused_proxy: a proxy that \
                 `proxy_protocol` does not list, or that sends no header of the PROXY protocol. \
                 certificate_missing and certificate_invalid: `client_ca` of the listener; with \
                 [log] level = \"seawall=debug\" the log says what is wrong with each certificate. \
                 accept_failed: raise the limit of file descriptors. cut_for_memory: raise [cache] memory or [fill] memory. \
                 cut_at_drain: raise [server] drain_max. Many timeouts: the network of the \
                 viewers is slow, or a client holds connections open.",
    }
    .collected(|stats, samples| {
        for event in ConnectionEvent::ALL {
            samples.add(&[event.as_str()], stats.of(event));
        }
    }),
    Metric {
        name: "seawall_viewer_http2_floods_total",
        kind: MetricKind::Counter,
        unit: "connections",
        labels: &[FRAME],
        help: "HTTP/2 connections closed because they sent too many control frames for what they \
               requested, by the type that cost most. Increments with each closed connection.",
        remedy: "If it rises, a client is broken or attacks: find its address in the log.",
    }
    .collected(|stats, samples| {
        for (kind, count) in FrameKind::ALL.into_iter().zip(stats.floods) {
            samples.add(&[kind.as_str()], count);
        }
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_event_separately() {
        let counters = ConnectionCounters::default();
        for (index, event) in ConnectionEvent::ALL.into_iter().enumerate() {
            assert_eq!(index, event as usize);
            counters.count(event);
        }
        let stats = counters.snapshot((3, 9), 5);
        assert!(
            ConnectionEvent::ALL
                .into_iter()
                .all(|event| stats.of(event) == 1)
        );
    }
}
