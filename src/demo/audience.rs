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

use self::line::Line;
use super::clock::Clock;
use super::place::{Form, Place};
use super::reel::Rendition;
use super::utc::Utc;
use crate::media::{self, Manifest};

/// One thing that a player asked for.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What it is.
    pub place: Place,
    /// When it was asked for, by the demo's clock.
    pub asked: Utc,
    /// When the last byte of the answer was there.
    pub answered: Utc,
    /// What came; nothing where there was no whole answer.
    pub answer: Option<(StatusCode, Bytes)>,
    /// What it says, where it is a manifest and can be read.
    pub manifest: Option<Manifest>,
}

impl Sight {
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
    pub form: Form,
    /// Which rendition.
    pub rendition: Rendition,
    /// The clock of the stream, which it paces itself by.
    pub clock: Clock,
    /// Hears of everything that it asked for.
    pub told: Arc<dyn Fn(&Sight) + Send + Sync>,
}

impl Player {
    /// Watches for ever: until it is dropped.
    pub async fn watch(self) {
        match self.form {
            Form::LowLatency | Form::LowLatencyRanges => low_latency::watch(&self).await,
            _ => segments::watch(&self).await,
        }
    }

    fn line(&self) -> Line {
        Line::to(self.door)
    }

    /// Asks for something, and tells. `None`: it was not had.
    async fn see(&self, line: &mut Line, place: Place, query: &str) -> Option<Sight> {
        let asked = self.clock.now();
        let answer = line.get(&format!("{}{query}", place.path())).await.ok();
        let sight = Sight {
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

fn read(place: Place, body: &[u8]) -> Option<Manifest> {
    let kind = match place {
        Place::Mpd(_) => media::Kind::Dash,
        Place::Multivariant(_) | Place::Playlist(..) => media::Kind::Hls,
        _ => return None,
    };
    media::read_manifest(kind, body).ok()
}

/// What a name in a manifest leads to.
fn named(manifest: Place, uri: &str) -> Option<Place> {
    let path = manifest.path();
    let (directory, _) = path.rsplit_once('/')?;
    Place::of(&format!("{directory}/{uri}"))
}
