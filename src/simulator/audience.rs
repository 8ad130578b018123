//! Who watches? Players of the demo's stream, which ask as real ones do: the entry, a playlist at its pace, each
//! segment or part once, in order. They decode nothing; what they got, and when, they tell.
//!
//! Each has two connections, as browsers have several: what is waited for does not hold up the other.

mod line;
mod low_latency;
mod segments;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use self::line::PlayerConnection;
use super::clock::Clock;
use super::media_assets::DemoRendition;
use super::place::{Packaging, Resource};
use super::utc::Utc;
use crate::manifest::{self, ParsedText};

/// One thing that a player asked for.
#[derive(Clone, Debug)]
pub struct PlayerFetch {
    /// What it is.
    pub place: Resource,
    /// When it was asked for, by the demo's clock.
    pub asked: Utc,
    /// When the last byte of the answer was there.
    pub answered: Utc,
    /// What came; nothing where there was no whole answer.
    pub answer: Option<(StatusCode, Bytes)>,
    /// What it says, where it is a manifest and can be read.
    pub manifest: Option<ParsedText>,
}

impl PlayerFetch {
    /// A whole answer of status 200.
    pub fn is_good(&self) -> bool {
        let status = self.answer.as_ref().map(|(status, _)| *status);
        status == Some(StatusCode::OK)
    }
}

/// A player of one rendition in one form.
#[derive(Clone)]
pub struct Player {
    /// Where the stream is had.
    pub door: SocketAddr,
    /// In which form.
    pub form: Packaging,
    /// Which rendition.
    pub rendition: DemoRendition,
    /// The clock of the stream, which it paces itself by.
    pub clock: Clock,
    /// Hears of everything that it asked for.
    pub told: Arc<dyn Fn(&PlayerFetch) + Send + Sync>,
}

impl Player {
    /// Watches for ever: until it is dropped.
    pub async fn watch(self) {
        match self.form {
            Packaging::LowLatency | Packaging::LowLatencyRanges => low_latency::watch(&self).await,
            _ => segments::watch(&self).await,
        }
    }

    fn line(&self) -> PlayerConnection {
        PlayerConnection::to(self.door)
    }

    /// Asks for something, and tells. `None`: it was not had.
    async fn see(
        &self,
        line: &mut PlayerConnection,
        place: Resource,
        query: &str,
    ) -> Option<PlayerFetch> {
        let asked = self.clock.now();
        let answer = line.get(&format!("{}{query}", place.path())).await.ok();
        let sight = PlayerFetch {
            place,
            asked,
            answered: self.clock.now(),
            manifest: answer.as_ref().and_then(|(_, body)| read(place, body)),
            answer,
        };
        (self.told)(&sight);
        sight.is_good().then_some(sight)
    }
}

fn read(place: Resource, body: &[u8]) -> Option<ParsedText> {
    let kind = match place {
        Resource::Mpd(_) => manifest::Kind::Dash,
        Resource::Multivariant(_) | Resource::Playlist(..) => manifest::Kind::Hls,
        _ => return None,
    };
    manifest::read_manifest(kind, body).ok()
}

/// What a name in a manifest leads to.
fn named(manifest: Resource, uri: &str) -> Option<Resource> {
    let path = manifest.path();
    let (directory, _) = path.rsplit_once('/')?;
    Resource::of(&format!("{directory}/{uri}"))
}
