//! A simulated live stream with two origins, the shield in front of them, and players whose
//! downloads are checked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use seawall_simulator::{
    self, Broadcast, BroadcastPlan, Clock, DemoRendition, Packaging, Player, PlayerFetch, Resource,
    ResourceKind, Utc,
};
use seawall_upstream::Balance;
use tokio::task::JoinSet;

use super::patience::eventually;
use super::shield::endpoint_at;
use super::viewer::Viewer;
use super::{Shield, ask};

/// How long the stream has been live: longer than any window.
const LIVE_FOR: Duration = Duration::from_mins(5);

/// The stream, its origins and the shield.
pub struct Evening {
    pub first: seawall_simulator::SimulatedOrigin,
    pub second: seawall_simulator::SimulatedOrigin,
    pub shield: Shield,
    form: Packaging,
}

/// A group of players.
pub struct Audience {
    books: Vec<Arc<Mutex<Vec<PlayerFetch>>>>,
    broadcast: Broadcast,
    _players: JoinSet<()>,
}

impl Evening {
    /// The second origin is a standby.
    pub async fn start(form: Packaging) -> Evening {
        Evening::start_streams(form, 0, Balance::default()).await
    }

    /// The second origin is a segment behind the first, and they are used in turn.
    pub async fn start_with_lag(form: Packaging) -> Evening {
        Evening::start_streams(form, 1, Balance::RoundRobin).await
    }

    async fn start_streams(form: Packaging, lag: u64, balance: Balance) -> Evening {
        let clock = Clock::real();
        let plan = BroadcastPlan::from(clock.now().saturating_sub(LIVE_FOR)).part_thirds(1);
        let plan = match form {
            Packaging::Ts | Packaging::Cmaf | Packaging::Timeline => plan.segment_thirds(1),
            _ => plan,
        };
        let first = seawall_simulator::SimulatedOrigin::start(plan, clock).unwrap();
        let second = first.twin(lag).unwrap();
        let mut other = endpoint_at(second.address());
        other.priority = u8::from(balance == Balance::default());
        let shield = Shield::in_front_of_endpoint(endpoint_at(first.address()))
            .origin(|group| {
                group.balance = balance;
                group.endpoints.push(other);
            })
            .start()
            .await;
        Evening {
            first,
            second,
            shield,
            form,
        }
    }

    /// This many players, spread over all renditions.
    pub fn start_players(&self, count: usize) -> Audience {
        let mut players = JoinSet::new();
        let renditions = DemoRendition::ALL
            .into_iter()
            .filter(|one| self.form.has_rendition(*one));
        let books = renditions
            .cycle()
            .take(count)
            .map(|rendition| {
                let book = Arc::<Mutex<Vec<PlayerFetch>>>::default();
                let told = book.clone();
                let player = Player {
                    server: self.shield.address(),
                    packaging: self.form,
                    rendition,
                    clock: self.first.clock().clone(),
                    on_fetch: Arc::new(move |fetch| told.lock().push(fetch.clone())),
                };
                players.spawn(player.play());
                book
            })
            .collect();
        Audience {
            books,
            broadcast: self.first.broadcast().clone(),
            _players: players,
        }
    }

    /// Switches faults of an origin by its control URL.
    pub async fn switch_fault(&self, origin: &seawall_simulator::SimulatedOrigin, how: &str) {
        let order = ask("POST", &format!("/control?{how}"));
        let done = Viewer::connect(origin.address()).await.ask(order).await;
        assert_eq!(done.status, 200, "{}", done.text());
    }

    /// Restarts the packager.
    pub async fn restart(&self) {
        for origin in [&self.first, &self.second] {
            self.switch_fault(origin, "restart").await;
        }
    }

    /// Manifests that were rejected for this reason.
    pub async fn count_rejected(&self, reason: &str) -> u64 {
        let reason = [("reason", reason)];
        self.shield
            .counter("seawall_manifests_unfit_total", &reason)
            .await
    }

    /// Restarts of the stream that the shield has noticed.
    pub async fn count_restarts(&self) -> u64 {
        self.shield
            .counter("seawall_stream_restarts_total", &[])
            .await
    }

    /// Waits until the skew of renditions is this many segments.
    pub async fn wait_skew(&self, segments: u64) {
        let skew = "seawall_stream_skew_segments";
        self.shield.wait_gauge(skew, |skew| skew >= segments).await;
    }
}

impl Audience {
    /// Waits until every player has got this many more segments or parts.
    pub async fn wait_media(&self, media: usize) {
        let counts = || self.books.iter().map(|book| count_media(&book.lock()));
        let before: Vec<usize> = counts().collect();
        eventually("all players to go on", async || {
            let mut each = counts().zip(&before);
            each.all(|(now, before)| now >= before + media)
        })
        .await;
    }

    /// Waits until every player has seen the stream restart.
    pub async fn wait_restart(&self) {
        eventually("all players to begin anew", async || {
            let mut each = self.books.iter();
            each.all(|book| count_steps_back(&book.lock()) > 0)
        })
        .await;
    }

    /// Fails unless every request succeeded.
    pub fn assert_no_error(&self) -> &Audience {
        self.assert_no_error_of(|_| true)
    }

    /// Fails unless every request for a kind succeeded.
    pub fn assert_no_error_of(&self, kind: impl Fn(Resource) -> bool) -> &Audience {
        self.for_each_fetch(|fetch, _| {
            let status = fetch.response.as_ref().map(|(status, _)| status);
            let place = fetch.resource;
            assert!(fetch.is_good() || !kind(place), "{place:?}: {status:?}");
        });
        self
    }

    /// Fails if a playlist was older than one before it; a restart allows one step back.
    pub fn assert_never_backwards(&self) -> &Audience {
        for book in &self.books {
            assert!(count_steps_back(&book.lock()) <= 1, "there and back again");
        }
        self
    }

    /// Fails unless all media have the packager's bytes, of the timeline that the player is in.
    pub fn assert_packagers_bytes(&self) -> &Audience {
        let later = self.broadcast.restarted(self.broadcast.start());
        self.for_each_fetch(|fetch, restarts| {
            let Some((_, body)) = fetch.response.as_ref().filter(|_| fetch.is_good()) else {
                return;
            };
            let broadcast = [&self.broadcast, &later][restarts.min(1)];
            if let Some(made) = expected_bytes(broadcast, fetch.resource) {
                assert!(*body == made, "{:?} is not what was made", fetch.resource);
            }
        });
        self
    }

    /// How long players have waited since then for objects of a kind.
    pub fn waits(&self, since: Utc, kind: impl Fn(Resource) -> bool) -> Vec<Duration> {
        let mut waits = Vec::new();
        self.for_each_fetch(|fetch, _| {
            if fetch.requested_at >= since && kind(fetch.resource) {
                waits.push(fetch.received_at.saturating_sub(fetch.requested_at));
            }
        });
        waits
    }

    /// Visits every fetch of every player, with the number of restarts before it.
    fn for_each_fetch(&self, mut look: impl FnMut(&PlayerFetch, usize)) {
        for book in &self.books {
            let book = book.lock();
            for (place, fetch) in book.iter().enumerate() {
                look(fetch, count_steps_back(&book[..=place]));
            }
        }
    }
}

/// Segments and parts that a player got.
fn count_media(book: &[PlayerFetch]) -> usize {
    let media = |fetch: &&PlayerFetch| {
        matches!(
            fetch.resource.kind(),
            ResourceKind::Segment | ResourceKind::Part
        )
    };
    book.iter()
        .filter(media)
        .filter(|one| one.is_good())
        .count()
}

/// How often a manifest ended earlier than the one before it.
fn count_steps_back(book: &[PlayerFetch]) -> usize {
    let reaches: Vec<(u64, u64)> = book
        .iter()
        .filter_map(|fetch| fetch.manifest.as_ref()?.info.playlist_edge())
        .map(|edge| (edge.last_sequence, edge.next_segment_parts))
        .collect();
    reaches.windows(2).filter(|two| two[1] < two[0]).count()
}

fn expected_bytes(broadcast: &Broadcast, place: Resource) -> Option<Bytes> {
    match place {
        Resource::Init(_, rendition) => Some(broadcast.init(rendition)),
        Resource::Part(_, rendition, segment, part) => {
            Some(broadcast.part(rendition, segment, part))
        }
        Resource::Segment(Packaging::Ts, rendition, segment) => {
            Some(broadcast.ts_segment(rendition, segment))
        }
        Resource::Segment(Packaging::Timeline, rendition, ticks) => {
            let segment = broadcast.segment_at(rendition, ticks)?;
            Some(broadcast.segment(rendition, segment))
        }
        Resource::Segment(_, rendition, segment) => Some(broadcast.segment(rendition, segment)),
        Resource::Multivariant(_)
        | Resource::Mpd(_)
        | Resource::Playlist(..)
        | Resource::TimeServer => None,
    }
}
