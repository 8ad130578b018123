//! Registers all viewer connections, enforces the connection limits, and starts the graceful
//! shutdown.
//!
//! Used when a connection opens or closes and when the server stops, never by a request.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Limits;
use super::connection_state::ConnectionState;
use super::shedding::{ConnectionShedding, IdleConnection, LEAVING_MAX};
use super::stats::{ConnectionCounters, ConnectionEvent, Stats};

/// Number of independently locked maps of clients.
const SHARDS: usize = 16;

/// All viewer connections.
pub(super) struct ConnectionTable {
    pub(super) counters: ConnectionCounters,
    connections_max: usize,
    connections_per_client_max: usize,
    open: AtomicUsize,
    clients: [Mutex<HashMap<IpAddr, usize, ahash::RandomState>>; SHARDS],
    members: Mutex<HashMap<u64, Arc<ConnectionState>, ahash::RandomState>>,
    next_member: AtomicU64,
    shedding: Mutex<ConnectionShedding>,
    hasher: ahash::RandomState,
    /// A cheap copy of `stage` for connections.
    closing: AtomicBool,
    stage: watch::Sender<Option<Instant>>,
    vacated: Notify,
}

impl ConnectionTable {
    pub(super) fn new(limits: &Limits) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable {
            counters: ConnectionCounters::default(),
            connections_max: limits.connections_max,
            connections_per_client_max: limits.connections_per_client_max,
            open: AtomicUsize::new(0),
            clients: Default::default(),
            members: Mutex::default(),
            next_member: AtomicU64::new(0),
            shedding: Mutex::default(),
            hasher: ahash::RandomState::new(),
            closing: AtomicBool::new(false),
            stage: watch::Sender::new(None),
            vacated: Notify::new(),
        })
    }

    /// Registers a connection, or returns the limit that refuses it. At `connections_max`, the
    /// longest idle connection is asked to close.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Result<ConnectionGuard, ConnectionEvent> {
        let client = peer.map(client_of);
        if let Some(client) = client
            && !self.enter(client)
        {
            return Err(ConnectionEvent::RefusedClient);
        }
        let open = self.open.fetch_add(1, Ordering::AcqRel);
        if open >= self.connections_max
            && (open >= self.connections_max + LEAVING_MAX || !self.shed_idle(now))
        {
            self.exit(client);
            self.leave();
            return Err(ConnectionEvent::RefusedFull);
        }
        self.counters.count(ConnectionEvent::Accepted);
        let member = self.next_member.fetch_add(1, Ordering::Relaxed);
        Ok(ConnectionGuard {
            roll: self.clone(),
            client,
            member,
        })
    }

    fn enter(&self, client: IpAddr) -> bool {
        let mut counts = self.shard(client).lock();
        let count = counts.entry(client).or_insert(0);
        let room = *count < self.connections_per_client_max;
        *count += usize::from(room);
        if *count == 0 {
            counts.remove(&client);
        }
        room
    }

    fn exit(&self, client: Option<IpAddr>) {
        let Some(client) = client else {
            return;
        };
        let mut counts = self.shard(client).lock();
        if let Some(count) = counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&client);
            }
        }
    }

    /// Asks the longest idle connection to close; `false` if none is idle.
    fn shed_idle(&self, now: Instant) -> bool {
        let members = self.members.lock();
        let mut shedding = self.shedding.lock();
        let idle = || {
            members.iter().filter_map(|(&member, gauge)| {
                let since = gauge.idle_since()?;
                Some(IdleConnection { since, member })
            })
        };
        while let Some(IdleConnection { since, member }) = shedding.next(now, idle) {
            if let Some(gauge) = members.get(&member)
                && gauge.idle_since() == Some(since)
                && gauge.ask_to_close()
            {
                self.counters.count(ConnectionEvent::Shed);
                return true;
            }
        }
        false
    }

    fn leave(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.vacated.notify_one();
        }
    }

    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, usize, ahash::RandomState>> {
        // Less than `SHARDS`, so it fits.
        #[expect(clippy::cast_possible_truncation)]
        let place = self.hasher.hash_one(client) as usize % SHARDS;
        &self.clients[place]
    }

    /// Whether the graceful shutdown has begun.
    pub(super) fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// When the graceful shutdown began; changes once.
    pub(super) fn stage(&self) -> watch::Receiver<Option<Instant>> {
        self.stage.subscribe()
    }

    /// When the graceful shutdown began.
    pub(super) fn closing_since(&self) -> Option<Instant> {
        *self.stage.borrow()
    }

    /// Begins the graceful shutdown: no new connections, and no new requests on open ones.
    pub(super) fn close(&self) {
        if self.closing() {
            return;
        }
        self.stage.send_replace(Some(Instant::now()));
        self.closing.store(true, Ordering::Release);
        for gauge in self.members.lock().values() {
            gauge.wake();
        }
    }

    /// Waits until no connection is open.
    pub(super) async fn wait_until_empty(&self) {
        while self.open.load(Ordering::Acquire) > 0 {
            self.vacated.notified().await;
        }
    }

    /// Aborts the tasks of all connections.
    pub(super) fn abort(&self) {
        for gauge in self.members.lock().values() {
            gauge.abort();
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let members = self.members.lock();
        let queued = members.values().map(|gauge| gauge.queued_bytes()).sum();
        drop(members);
        self.counters
            .snapshot(self.open.load(Ordering::Relaxed), queued)
    }
}

/// A registered connection; dropping it removes the registration.
pub(super) struct ConnectionGuard {
    roll: Arc<ConnectionTable>,
    client: Option<IpAddr>,
    member: u64,
}

impl ConnectionGuard {
    /// Registers the state of the connection, so that shutdown can wake or abort its task.
    pub(super) fn register(&self, gauge: &Arc<ConnectionState>) {
        self.roll.members.lock().insert(self.member, gauge.clone());
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.roll.members.lock().remove(&self.member);
        self.roll.exit(self.client);
        self.roll.leave();
    }
}

/// The client of an address for the limit per client. An IPv6 client is a /64 network: a household
/// has at least one, so a limit per address would have no effect.
fn client_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll(connections_max: usize, connections_per_client_max: usize) -> Arc<ConnectionTable> {
        ConnectionTable::new(&Limits {
            connections_max,
            connections_per_client_max,
            ..Limits::default()
        })
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_full_roll_refuses_until_someone_leaves() {
        let roll = roll(2, 9);
        let first = roll.admit(Some(peer("192.0.2.1")), Instant::now()).unwrap();
        let _second = roll.admit(None, Instant::now()).unwrap();
        assert_eq!(
            roll.admit(Some(peer("192.0.2.3")), Instant::now()).err(),
            Some(ConnectionEvent::RefusedFull)
        );
        drop(first);
        assert!(roll.admit(Some(peer("192.0.2.3")), Instant::now()).is_ok());
        assert_eq!(roll.stats().of(ConnectionEvent::Accepted), 3);
    }

    #[test]
    fn one_client_cannot_take_every_seat() {
        let roll = roll(9, 1);
        let _first = roll
            .admit(Some(peer("2001:db8::1")), Instant::now())
            .unwrap();
        assert_eq!(
            roll.admit(Some(peer("2001:db8::2")), Instant::now()).err(),
            Some(ConnectionEvent::RefusedClient)
        );
        assert!(
            roll.admit(Some(peer("2001:db8:0:1::2")), Instant::now())
                .is_ok(),
            "another network"
        );
        assert_eq!(
            roll.stats().open,
            1,
            "refused and gone connections hold no seat"
        );
    }

    #[test]
    fn a_mapped_address_is_the_same_client() {
        assert_eq!(
            client_of("::ffff:192.0.2.1".parse().unwrap()),
            peer("192.0.2.1")
        );
    }

    #[tokio::test]
    async fn vacant_waits_for_the_last() {
        let roll = roll(9, 9);
        let seat = roll.admit(None, Instant::now()).unwrap();
        roll.close();
        let waiting = tokio::spawn({
            let roll = roll.clone();
            async move { roll.wait_until_empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(seat);
        waiting.await.unwrap();
    }
}
