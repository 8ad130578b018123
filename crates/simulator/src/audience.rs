//! Simulated players. They request what real players do: the multivariant playlist, a playlist at
//! its interval, each segment or part once, in order. They decode nothing and report each response
//! with its time.
//!
//! Each uses two connections, as browsers use several: a blocking playlist request does not delay
//! media requests.

mod connection;
mod low_latency;
mod segments;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use self::connection::PlayerConnection;
use super::clock::Clock;
use super::media_assets::DemoRendition;
use super::resource::{Packaging, Resource};
use super::utc::Utc;
use seawall_manifest::Manifest;

/// One request of a player.
#[derive(Clone, Debug)]
pub struct PlayerFetch {
    /// The requested object.
    pub resource: Resource,
    /// When it was requested, by the simulator's clock.
    pub requested_at: Utc,
    /// When the last byte of the response arrived.
    pub received_at: Utc,
    /// Status and body; `None` if the response was not complete.
    pub response: Option<(StatusCode, Bytes)>,
    /// The parsed manifest, if it is one.
    pub manifest: Option<Manifest>,
}

impl PlayerFetch {
    /// Whether the response is complete and its status is 200.
    pub fn is_good(&self) -> bool {
        let status = self.response.as_ref().map(|(status, _)| *status);
        status == Some(StatusCode::OK)
    }
}

/// A player of one rendition in one packaging.
#[derive(Clone)]
pub struct Player {
    /// The address of the server.
    pub server: SocketAddr,
    /// The packaging.
    pub packaging: Packaging,
    /// The rendition.
    pub rendition: DemoRendition,
    /// The clock of the stream, which times the player's requests.
    pub clock: Clock,
    /// Called with every request and its result.
    pub on_fetch: Arc<dyn Fn(&PlayerFetch) + Send + Sync>,
}

impl Player {
    /// Plays until it is dropped.
    pub async fn play(self) {
        match self.packaging {
            Packaging::LowLatency | Packaging::LowLatencyRanges => low_latency::watch(&self).await,
            _ => segments::watch(&self).await,
        }
    }

    fn connection(&self) -> PlayerConnection {
        PlayerConnection::to(self.server)
    }

    /// Requests an object and reports the result. `None`: the response was not good.
    async fn fetch(
        &self,
        connection: &mut PlayerConnection,
        resource: Resource,
        query: &str,
    ) -> Option<PlayerFetch> {
        let requested_at = self.clock.now();
        let response = connection
            .get(&format!("{}{query}", resource.path()))
            .await
            .ok();
        let fetch = PlayerFetch {
            resource,
            requested_at,
            received_at: self.clock.now(),
            manifest: response
                .as_ref()
                .and_then(|(_, body)| parse_manifest(resource, body)),
            response,
        };
        (self.on_fetch)(&fetch);
        fetch.is_good().then_some(fetch)
    }
}

fn parse_manifest(resource: Resource, body: &[u8]) -> Option<Manifest> {
    let kind = match resource {
        Resource::Mpd(_) => seawall_manifest::Kind::Dash,
        Resource::Multivariant(_) | Resource::Playlist(..) => seawall_manifest::Kind::Hls,
        _ => return None,
    };
    seawall_manifest::read_manifest(kind, body).ok()
}

/// The resource that a name in a manifest refers to.
fn resolve(manifest: Resource, uri: &str) -> Option<Resource> {
    let path = manifest.path();
    let (directory, _) = path.rsplit_once('/')?;
    Resource::of(&format!("{directory}/{uri}"))
}
