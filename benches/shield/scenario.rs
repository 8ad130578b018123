//! The scenarios and their loads.

use crate::load::{Load, Paths, Protocol};
use crate::server::Server;

/// Bytes of a segment.
pub const SEGMENT_BYTES: usize = 1 << 20;
/// Bytes of a playlist, about.
pub const PLAYLIST_BYTES: usize = 2700;

/// A playlist that has ended, so that only the origin's `max-age` limits its freshness.
pub const PLAYLIST: &str = "/vod/a.m3u8?max-age=3600";
/// 1 MiB, fresh for a day.
pub const SEGMENT: &str = "/seg/a.ts";

/// One scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A small hit.
    Playlist,
    /// A large hit.
    Segment,
    /// Every request is for another object.
    Miss,
    /// A small hit over TLS.
    TlsPlaylist,
    /// A large hit over TLS.
    TlsSegment,
    /// A small hit over HTTP/2.
    H2Playlist,
    /// Concurrent requests for one object that is not stored.
    Stampede,
    /// A live playlist that expires repeatedly under steady polling.
    Herd,
    /// Crowds that wait for one answer of the origin.
    Blocked,
    /// An audience watches a live stream.
    Live,
    /// An audience watches a low-latency stream.
    LowLatency,
    /// A large audience watches many live streams.
    Audience,
}

impl Scenario {
    /// All scenarios, in the order of a whole run: misses fill the memory, so they come after hits.
    pub const ALL: [Scenario; 12] = [
        Scenario::Playlist,
        Scenario::Segment,
        Scenario::TlsPlaylist,
        Scenario::TlsSegment,
        Scenario::H2Playlist,
        Scenario::Miss,
        Scenario::Stampede,
        Scenario::Herd,
        Scenario::Blocked,
        Scenario::Live,
        Scenario::LowLatency,
        Scenario::Audience,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Playlist => "playlist",
            Scenario::Segment => "segment",
            Scenario::Miss => "miss",
            Scenario::TlsPlaylist => "tls-playlist",
            Scenario::TlsSegment => "tls-segment",
            Scenario::H2Playlist => "h2-playlist",
            Scenario::Stampede => "stampede",
            Scenario::Herd => "herd",
            Scenario::Blocked => "blocked",
            Scenario::Live => "live",
            Scenario::LowLatency => "low-latency",
            Scenario::Audience => "audience",
        }
    }

    /// A short description.
    pub fn title(self) -> &'static str {
        match self {
            Scenario::Playlist => "2.7 KB playlist hit, HTTP/1.1, 64 connections",
            Scenario::Segment => "1 MiB segment hit, HTTP/1.1, 16 connections",
            Scenario::Miss => "2.7 KB playlist miss, each its own URL, 64 connections",
            Scenario::TlsPlaylist => "2.7 KB playlist hit, TLS, HTTP/1.1, 64 connections",
            Scenario::TlsSegment => "1 MiB segment hit, TLS, HTTP/1.1, 16 connections",
            Scenario::H2Playlist => "2.7 KB playlist hit, TLS, HTTP/2, 16 connections × 32 streams",
            Scenario::Stampede => "many viewers request one object at once that is not stored",
            Scenario::Herd => "a 2 s live playlist is polled 50 times a second for 8 s",
            Scenario::Blocked => {
                "crowds wait for a blocked reload, a chunk, and a fetch in progress"
            }
            Scenario::Live => "players watch a live stream of 4 s segments; Varnish too",
            Scenario::LowLatency => "players watch LL-HLS of 1/3 s parts; Varnish too",
            Scenario::Audience => "50,000 viewers watch 500 live streams of 3 renditions",
        }
    }

    /// Whether a server that knows no URLs and no TLS can take part.
    pub fn has_bound(self) -> bool {
        matches!(self, Scenario::Playlist | Scenario::Segment)
    }

    /// Whether further rounds leave it out, because it takes long and has many samples.
    pub fn runs_once(self) -> bool {
        matches!(
            self,
            Scenario::Herd
                | Scenario::Blocked
                | Scenario::Live
                | Scenario::LowLatency
                | Scenario::Audience
        )
    }

    /// The load that saturates a server in this scenario; `None` for crowds. `round` separates the
    /// paths of two rounds.
    pub fn load(self, server: &Server, round: usize) -> Option<Load> {
        let same = |path: &str| Paths::Same(path.to_owned());
        let (protocol, paths, connections) = match self {
            Scenario::Playlist => (Protocol::Http1, same(PLAYLIST), 64),
            Scenario::Segment => (Protocol::Http1, same(SEGMENT), 16),
            Scenario::Miss => {
                let prefix = format!("/vod/miss-{round}-");
                (
                    Protocol::Http1,
                    Paths::Each {
                        prefix,
                        suffix: ".m3u8?max-age=3600",
                    },
                    64,
                )
            }
            Scenario::TlsPlaylist => (Protocol::Http1Tls, same(PLAYLIST), 64),
            Scenario::TlsSegment => (Protocol::Http1Tls, same(SEGMENT), 16),
            Scenario::H2Playlist => (Protocol::Http2Tls { streams: 32 }, same(PLAYLIST), 16),
            Scenario::Stampede
            | Scenario::Herd
            | Scenario::Blocked
            | Scenario::Live
            | Scenario::LowLatency
            | Scenario::Audience => return None,
        };
        let address = match protocol {
            Protocol::Http1 => server.plain,
            Protocol::Http1Tls | Protocol::Http2Tls { .. } => server.tls,
        };
        Some(Load {
            address,
            protocol,
            paths,
            connections,
        })
    }

    /// Gigabytes per second, where that says more than requests per second.
    pub fn gigabytes(self, rate: f64) -> Option<f64> {
        match self {
            Scenario::Segment | Scenario::TlsSegment => Some(rate * SEGMENT_BYTES as f64 / 1e9),
            _ => None,
        }
    }
}
