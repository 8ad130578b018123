//! Registers all viewer connections, enforces the connection limits, and starts the graceful
//! shutdown.
//!
//! Used when a connection opens or closes and when the server stops, never by a request.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep};

use super::Limits;
use super::connection_state::ConnectionState;
use super::listener_connections::{ListenerConnections, ListenerPlace};
use super::shedding::{ConnectionShedding, IdleConnection, LEAVING_MAX};
use super::stats::{ConnectionCounters, ConnectionEvent, Stats};

/// Number of independently locked maps of clients.
const SHARDS: usize = 16;

/// Connections that are asked to close at once because a limit is lower now.
const SHED_MAX: usize = 1024;

/// Between two such groups.
const SHED_PAUSE: Duration = Duration::from_millis(100);

/// All viewer connections.
pub(super) struct ConnectionTable {
    pub(super) counters: ConnectionCounters,
    connections_max: AtomicUsize,
    connections_per_client_max: AtomicUsize,
    open: AtomicUsize,
    /// Number of open connections per client.
    clients: [Mutex<HashMap<IpAddr, usize, ahash::RandomState>>; SHARDS],
    /// By the number of the connection.
    open_connections: Mutex<HashMap<u64, RegisteredConnection, ahash::RandomState>>,
    next_id: AtomicU64,
    shedding: Mutex<ConnectionShedding>,
    /// How long connections may last whose viewers were verified by other authorities.
    drain_max: Mutex<Duration>,
    hasher: ahash::RandomState,
    /// Whether the graceful shutdown has begun.
    is_closing: AtomicBool,
    /// Notified when the last connection closes.
    emptied: Notify,
}

/// A connection that is being served.
struct RegisteredConnection {
    state: Arc<ConnectionState>,
    listener: Option<Arc<ListenerConnections>>,
}

impl RegisteredConnection {
    fn is_of(&self, listener: &Arc<ListenerConnections>) -> bool {
        let own = self.listener.as_ref();
        own.is_some_and(|own| Arc::ptr_eq(own, listener))
    }
}

impl ConnectionTable {
    pub(super) fn new(limits: &Limits) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable {
            counters: ConnectionCounters::default(),
            connections_max: AtomicUsize::new(limits.connections_max),
            connections_per_client_max: AtomicUsize::new(limits.connections_per_client_max),
            open: AtomicUsize::new(0),
            clients: Default::default(),
            open_connections: Mutex::default(),
            next_id: AtomicU64::new(0),
            shedding: Mutex::default(),
            drain_max: Mutex::default(),
            hasher: ahash::RandomState::new(),
            is_closing: AtomicBool::new(false),
            emptied: Notify::new(),
        })
    }

    /// Uses these limits for connections from now on. Of those that are open, only
    /// [`ConnectionTable::shed_beyond_limit`] closes some.
    pub(super) fn set_limits(&self, limits: &Limits) {
        let stores = [
            (&self.connections_max, limits.connections_max),
            (
                &self.connections_per_client_max,
                limits.connections_per_client_max,
            ),
        ];
        for (limit, value) in stores {
            limit.store(value, Ordering::Relaxed);
        }
    }

    /// Registers a connection, or returns the limit that rejects it. At `connections_max`, the
    /// longest idle connection is asked to close.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Result<ConnectionGuard, ConnectionEvent> {
        let client = peer.map(client_of);
        if let Some(client) = client
            && !self.add_client_connection(client)
        {
            return Err(ConnectionEvent::RefusedClient);
        }
        let open = self.open.fetch_add(1, Ordering::AcqRel);
        let connections_max = self.connections_max.load(Ordering::Relaxed);
        if open >= connections_max
            && (open >= connections_max + LEAVING_MAX || !self.shed_idle(now))
        {
            self.remove_client_connection(client);
            self.remove_open_connection();
            return Err(ConnectionEvent::RefusedFull);
        }
        self.counters.count(ConnectionEvent::Accepted);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Ok(ConnectionGuard {
            table: self.clone(),
            client,
            id,
            listener: None,
        })
    }

    /// Counts a connection of this client; `false` if the client has reached its limit.
    fn add_client_connection(&self, client: IpAddr) -> bool {
        let mut connections_by_client = self.shard(client).lock();
        let count = connections_by_client.entry(client).or_insert(0);
        let is_below_max = *count < self.connections_per_client_max.load(Ordering::Relaxed);
        *count += usize::from(is_below_max);
        if *count == 0 {
            connections_by_client.remove(&client);
        }
        is_below_max
    }

    fn remove_client_connection(&self, client: Option<IpAddr>) {
        let Some(client) = client else {
            return;
        };
        let mut connections_by_client = self.shard(client).lock();
        if let Some(count) = connections_by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                connections_by_client.remove(&client);
            }
        }
    }

    /// While more connections are open than may be, asks idle ones to close, those idle for longest
    /// first. Those with a request stay.
    pub(super) async fn shed_beyond_limit(self: Arc<Self>) {
        while self.shed_some() {
            sleep(SHED_PAUSE).await;
        }
    }

    /// Asks at most as many as their workers close at once. `false`: there are none to close.
    fn shed_some(&self) -> bool {
        let open = self.open.load(Ordering::Acquire);
        let excess = open.saturating_sub(self.connections_max.load(Ordering::Relaxed));
        if excess == 0 {
            return false;
        }
        let (mut leaving, mut idle) = (0, Vec::new());
        for RegisteredConnection { state, .. } in self.open_connections.lock().values() {
            leaving += usize::from(state.is_asked_to_close());
            idle.extend(state.idle_since().map(|since| (since, Arc::clone(state))));
        }
        idle.sort_unstable_by_key(|(since, _)| *since);
        let excess = excess.saturating_sub(leaving).min(SHED_MAX);
        let is_asked = |(since, state): &(Instant, Arc<ConnectionState>)| {
            state.idle_since() == Some(*since) && state.ask_to_close()
        };
        let asked = idle.iter().filter(|idle| is_asked(idle)).take(excess);
        let asked = asked.count();
        (0..asked).for_each(|_| self.counters.count(ConnectionEvent::ClosedIdle));
        asked > 0
    }

    /// Asks the longest idle connection to close; `false` if none is idle.
    fn shed_idle(&self, now: Instant) -> bool {
        let open_connections = self.open_connections.lock();
        let mut shedding = self.shedding.lock();
        let idle = || {
            open_connections.iter().filter_map(|(&id, connection)| {
                let since = connection.state.idle_since()?;
                Some(IdleConnection { since, id })
            })
        };
        while let Some(IdleConnection { since, id }) = shedding.next(now, idle) {
            if let Some(RegisteredConnection { state, .. }) = open_connections.get(&id)
                && state.idle_since() == Some(since)
                && state.ask_to_close()
            {
                self.counters.count(ConnectionEvent::ClosedIdle);
                return true;
            }
        }
        false
    }

    fn remove_open_connection(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.emptied.notify_one();
        }
    }

    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, usize, ahash::RandomState>> {
        // Less than `SHARDS`, so it fits.
        #[expect(clippy::cast_possible_truncation)]
        let shard = self.hasher.hash_one(client) as usize % SHARDS;
        &self.clients[shard]
    }

    /// Whether the graceful shutdown has begun.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Begins the graceful shutdown: no new requests on open connections.
    pub(super) fn close(&self) {
        // Before the lock: a connection that registers after it sees this.
        if !self.is_closing.swap(true, Ordering::AcqRel) {
            self.begin_closing(|_| true);
        }
    }

    /// The same for the connections of one listener.
    pub(super) fn close_listener(&self, listener: &Arc<ListenerConnections>) {
        listener.close();
        self.begin_closing(|connection| connection.is_of(listener));
    }

    /// Uses this time for connections that are withdrawn from now on.
    pub(super) fn set_drain_max(&self, drain_max: Duration) {
        *self.drain_max.lock() = drain_max;
    }

    /// Withdraws the connections that a listener has now.
    pub(super) fn withdraw_those_of(&self, listener: &Arc<ListenerConnections>) {
        for connection in self.open_connections.lock().values() {
            if connection.is_of(listener) {
                self.withdraw(&connection.state);
            }
        }
    }

    /// Has a connection end whose viewer is verified by other authorities than those of now.
    pub(super) fn withdraw(&self, connection: &ConnectionState) {
        connection.withdraw(Instant::now(), *self.drain_max.lock());
    }

    fn begin_closing(&self, is_closed: impl Fn(&RegisteredConnection) -> bool) {
        let now = Instant::now();
        for connection in self.open_connections.lock().values() {
            if is_closed(connection) {
                connection.state.begin_closing(now);
            }
        }
    }

    /// Waits until no connection is open.
    pub(super) async fn wait_until_empty(&self) {
        while self.open.load(Ordering::Acquire) > 0 {
            self.emptied.notified().await;
        }
    }

    /// Aborts the tasks of all connections; returns how many.
    pub(super) fn abort(&self) -> usize {
        self.abort_those(|_| true)
    }

    /// Aborts the tasks of the connections of one listener; returns how many.
    pub(super) fn abort_listener(&self, listener: &Arc<ListenerConnections>) -> usize {
        self.abort_those(|connection| connection.is_of(listener))
    }

    fn abort_those(&self, is_aborted: impl Fn(&RegisteredConnection) -> bool) -> usize {
        let open_connections = self.open_connections.lock();
        let mut aborted = 0;
        for connection in open_connections.values().filter(|one| is_aborted(one)) {
            connection.state.abort();
            aborted += 1;
        }
        aborted
    }

    pub(super) fn stats(&self) -> Stats {
        let open_connections = self.open_connections.lock();
        let queued = open_connections
            .values()
            .map(|connection| connection.state.queued_bytes())
            .sum();
        drop(open_connections);
        let open = self.open.load(Ordering::Relaxed);
        let max = self.connections_max.load(Ordering::Relaxed);
        self.counters.snapshot((open, max), queued)
    }
}

/// A registered connection; dropping it removes the registration.
pub(super) struct ConnectionGuard {
    table: Arc<ConnectionTable>,
    client: Option<IpAddr>,
    id: u64,
    listener: Option<ListenerPlace>,
}

impl ConnectionGuard {
    /// Counts the connection as one of this listener.
    pub(super) fn join(&mut self, listener: &Arc<ListenerConnections>) {
        self.listener = Some(listener.place());
    }

    /// Counts the connection as one of this client, after a proxy has named it. `false`: the client
    /// has reached its limit.
    pub(super) fn count_client(&mut self, address: IpAddr) -> bool {
        debug_assert!(self.client.is_none(), "a proxy is no client");
        let client = client_of(address);
        let is_below_max = self.table.add_client_connection(client);
        self.client = is_below_max.then_some(client);
        is_below_max
    }

    /// Registers the state of the connection, so that shutdown can reach it. If that has begun
    /// already, the next response is the last one.
    pub(super) fn register(&self, state: &Arc<ConnectionState>) {
        let listener = self.listener.as_ref().map(ListenerPlace::listener);
        let mut open_connections = self.table.open_connections.lock();
        if self.table.is_closing() || listener.is_some_and(|listener| listener.is_closed()) {
            state.begin_closing(Instant::now());
        }
        let connection = RegisteredConnection {
            state: Arc::clone(state),
            listener: listener.cloned(),
        };
        open_connections.insert(self.id, connection);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.table.open_connections.lock().remove(&self.id);
        self.table.remove_client_connection(self.client);
        self.table.remove_open_connection();
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

    fn table(connections_max: usize, connections_per_client_max: usize) -> Arc<ConnectionTable> {
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
    fn rejects_connections_while_full() {
        let table = table(2, 9);
        let first = table
            .admit(Some(peer("192.0.2.1")), Instant::now())
            .unwrap();
        let _second = table.admit(None, Instant::now()).unwrap();
        assert_eq!(
            table.admit(Some(peer("192.0.2.3")), Instant::now()).err(),
            Some(ConnectionEvent::RefusedFull)
        );
        drop(first);
        assert!(table.admit(Some(peer("192.0.2.3")), Instant::now()).is_ok());
        assert_eq!(table.stats().of(ConnectionEvent::Accepted), 3);
    }

    #[test]
    fn limits_the_connections_of_one_client() {
        let table = table(9, 1);
        let _first = table
            .admit(Some(peer("2001:db8::1")), Instant::now())
            .unwrap();
        assert_eq!(
            table.admit(Some(peer("2001:db8::2")), Instant::now()).err(),
            Some(ConnectionEvent::RefusedClient)
        );
        assert!(
            table
                .admit(Some(peer("2001:db8:0:1::2")), Instant::now())
                .is_ok(),
            "another network"
        );
        assert_eq!(
            table.stats().open,
            1,
            "rejected and closed connections are not counted"
        );
    }

    #[test]
    fn treats_mapped_addresses_as_the_same_client() {
        assert_eq!(
            client_of("::ffff:192.0.2.1".parse().unwrap()),
            peer("192.0.2.1")
        );
    }

    #[tokio::test]
    async fn waits_until_the_last_connection_closes() {
        let table = table(9, 9);
        let guard = table.admit(None, Instant::now()).unwrap();
        table.close();
        let waiting = tokio::spawn({
            let table = table.clone();
            async move { table.wait_until_empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(guard);
        waiting.await.unwrap();
    }
}
