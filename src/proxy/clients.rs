//! Limits the origin work that a client can cause for responses that no viewer waits for. A fetch
//! whose viewers have all left continues only while few such fetches run, per client and in all. A
//! client that abandons most of its requests is throttled before its next ones reach an origin: a
//! closed connection cancels a request here, not at the origin.
//!
//! A client is an address, so it may stand for many viewers. Each fetch that is waited for to its
//! end pays back a part of an abandoned one: a proxy is throttled only when it abandons a fifth
//! of its fetches.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::timeout;

use seawall_cache::Fill;

/// Maximum detached fetches (no viewer waits) of one client, and in all.
const RUNNING_MAX: usize = 16;
const RUNNING_IN_ALL_MAX: usize = 64;
/// Debt added by an abandoned fetch, and debt removed by a completed one.
const COST: u64 = 4;
const REPAID: u64 = 1;
/// Debt that a client is forgiven per second: 32 fetches.
const FORGIVEN_PER_SECOND: u64 = 32 * COST;
/// From this debt on, no further fetch of a client continues without a viewer.
const DETACHED_DEBT_MAX: u64 = 32 * COST;
/// From this debt on, the client is throttled.
const DEBT_MAX: u64 = 64 * COST;
/// Minimum interval between two requests of a client that is throttled.
const THROTTLED_INTERVAL: Duration = Duration::from_micros(31_250);
/// A request that would wait longer is refused.
const DELAY_MAX: Duration = Duration::from_secs(2);
/// Maximum clients with an account of their own; further clients share one.
const CLIENTS_MAX: usize = 4096;

/// A client: an IPv4 address or an IPv6 /64 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client(Option<IpAddr>);

/// Counters of abandoned fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Fetches in progress for which no viewer waits.
    pub running: u64,
    /// Fetches cancelled because their viewers had left.
    pub cancelled: u64,
    /// Requests delayed because their client had abandoned too many.
    pub throttled: u64,
    /// Requests refused for the same reason.
    pub refused: u64,
}

/// The accounts of all clients with debt or detached fetches.
#[derive(Default)]
pub(super) struct Clients {
    accounts: Mutex<ClientAccounts>,
    cancelled: AtomicU64,
    throttled: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct ClientAccounts {
    by_client: HashMap<Client, ClientAccount, ahash::RandomState>,
    running: usize,
}

struct ClientAccount {
    debt: u64,
    /// When `debt` was computed.
    at: Instant,
    running: usize,
    /// Earliest time of the next request while the client is throttled.
    next: Instant,
}

/// Whether, or when, a request may start.
#[derive(Debug, PartialEq, Eq)]
enum FetchAdmission {
    Now,
    At(Instant),
    Refused,
}

impl Client {
    pub(super) fn of(peer: Option<IpAddr>) -> Client {
        Client(peer.map(|peer| match peer.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address @ IpAddr::V4(_) => address,
        }))
    }
}

impl ClientAccount {
    fn forgive(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        let forgiven = since.as_millis() * u128::from(FORGIVEN_PER_SECOND) / 1000;
        if forgiven > 0 {
            let forgiven = u64::try_from(forgiven).unwrap_or(u64::MAX);
            self.debt = self.debt.saturating_sub(forgiven);
            self.at = now;
        }
    }

    fn is_clear(&mut self, now: Instant) -> bool {
        self.forgive(now);
        self.debt == 0 && self.running == 0
    }
}

impl ClientAccounts {
    fn admission(&mut self, client: Client, now: Instant) -> FetchAdmission {
        let Some(account) = self.by_client.get_mut(&client) else {
            return FetchAdmission::Now;
        };
        account.forgive(now);
        if account.debt < DEBT_MAX {
            return FetchAdmission::Now;
        }
        let turn = account.next.max(now);
        if turn.saturating_duration_since(now) > DELAY_MAX {
            return FetchAdmission::Refused;
        }
        account.next = turn + THROTTLED_INTERVAL;
        FetchAdmission::At(turn)
    }

    /// Records that all viewers of a fetch have left; `first`: for the first time. `true`: the
    /// fetch may continue.
    fn record_abandoned(
        &mut self,
        client: Client,
        first: bool,
        may_continue: bool,
        now: Instant,
    ) -> bool {
        let has_room = self.running < RUNNING_IN_ALL_MAX;
        let account = self.account(client, now);
        let continues = may_continue
            && has_room
            && account.running < RUNNING_MAX
            && account.debt < DETACHED_DEBT_MAX;
        // A limit, because a debt without one could never be paid.
        let cost = if first { COST } else { 0 };
        account.debt = (account.debt + cost).min(2 * DEBT_MAX);
        account.running += usize::from(continues);
        self.running += usize::from(continues);
        continues
    }

    fn account(&mut self, client: Client, now: Instant) -> &mut ClientAccount {
        if self.by_client.len() >= CLIENTS_MAX && !self.by_client.contains_key(&client) {
            self.by_client.retain(|_, account| !account.is_clear(now));
        }
        let account = self
            .by_client
            .entry(self.owner(client))
            .or_insert(ClientAccount {
                debt: 0,
                at: now,
                running: 0,
                next: now,
            });
        account.forgive(now);
        account
    }

    /// The account that a client uses: its own, unless there are too many.
    fn owner(&self, client: Client) -> Client {
        let known = self.by_client.len() < CLIENTS_MAX || self.by_client.contains_key(&client);
        if known { client } else { Client(None) }
    }

    fn record_detached_end(&mut self, client: Client) {
        self.running = self.running.saturating_sub(1);
        if let Some(account) = self.by_client.get_mut(&client) {
            account.running = account.running.saturating_sub(1);
        }
    }

    fn record_completed(&mut self, client: Client, now: Instant) {
        let Some(account) = self.by_client.get_mut(&client) else {
            return;
        };
        account.debt = account.debt.saturating_sub(REPAID);
        if account.is_clear(now) {
            self.by_client.remove(&client);
        }
    }
}

impl Clients {
    /// Waits while the client is throttled; `false`: the request is refused.
    pub(super) async fn admit(&self, client: Client) -> bool {
        let admission = self.accounts.lock().admission(client, Instant::now());
        match admission {
            FetchAdmission::Now => true,
            FetchAdmission::At(turn) => {
                self.throttled.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep_until(turn.into()).await;
                true
            }
            FetchAdmission::Refused => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Begins the accounting of a fetch that a client caused.
    pub(super) fn begin_fetch(self: &Arc<Self>, client: Client) -> ClientFetch {
        ClientFetch {
            clients: Arc::clone(self),
            client,
            is_abandoned: AtomicBool::new(false),
            running: Mutex::default(),
        }
    }

    pub(super) fn read(&self) -> ClientStats {
        ClientStats {
            running: self.accounts.lock().running as u64,
            cancelled: self.cancelled.load(Ordering::Relaxed),
            throttled: self.throttled.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// A fetch that a client caused. Pays when it ends, unless it was abandoned.
pub(super) struct ClientFetch {
    clients: Arc<Clients>,
    client: Client,
    is_abandoned: AtomicBool,
    /// Set while the fetch continues without a viewer.
    running: Mutex<Option<DetachedFetchGuard>>,
}

/// How long an abandoned fill, for which viewers waited together, waits for a new follower. When
/// their wait ends without a response, they leave the fill and join it again, each by itself.
const REJOIN_TIME: Duration = Duration::from_millis(10);

/// Counts as one detached fetch until dropped.
struct DetachedFetchGuard {
    clients: Arc<Clients>,
    client: Client,
}

impl ClientFetch {
    /// Resolves when the viewers of a fill have left and it must not continue.
    pub(super) async fn wait_until_abandoned(&self, fill: &Fill, may_continue: bool) {
        loop {
            fill.wait_for_no_followers().await;
            if fill.has_shared_wait()
                && timeout(REJOIN_TIME, fill.wait_for_follower()).await.is_ok()
            {
                continue;
            }
            if self.running.lock().is_none() {
                let running = self.detach_or_cancel(may_continue);
                if running.is_none() {
                    return;
                }
                *self.running.lock() = running;
            }
            fill.wait_for_follower().await;
            *self.running.lock() = None;
        }
    }

    /// The client has left. A fetch is charged once.
    fn detach_or_cancel(&self, may_continue: bool) -> Option<DetachedFetchGuard> {
        let first = !self.is_abandoned.swap(true, Ordering::Relaxed);
        let mut accounts = self.clients.accounts.lock();
        let client = accounts.owner(self.client);
        let continues = accounts.record_abandoned(client, first, may_continue, Instant::now());
        drop(accounts);
        if continues {
            let clients = Arc::clone(&self.clients);
            return Some(DetachedFetchGuard { clients, client });
        }
        self.clients.cancelled.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The same for a fetch for which only this viewer waited.
    pub(super) fn abandon(&self) {
        self.detach_or_cancel(false);
    }

    /// The response goes to one viewer, so the fetch ends or is abandoned with that viewer.
    pub(super) fn hand_over(&self) -> PrivateFetch {
        self.is_abandoned.store(true, Ordering::Relaxed);
        PrivateFetch::new(self.clients.begin_fetch(self.client))
    }
}

impl Drop for ClientFetch {
    fn drop(&mut self) {
        if !*self.is_abandoned.get_mut() {
            let mut accounts = self.clients.accounts.lock();
            accounts.record_completed(self.client, Instant::now());
        }
    }
}

impl Drop for DetachedFetchGuard {
    fn drop(&mut self) {
        self.clients
            .accounts
            .lock()
            .record_detached_end(self.client);
    }
}

/// A fetch for one viewer: abandoned when dropped before [`PrivateFetch::ended`].
pub(super) struct PrivateFetch(Option<ClientFetch>);

impl PrivateFetch {
    pub(super) fn new(client_fetch: ClientFetch) -> PrivateFetch {
        PrivateFetch(Some(client_fetch))
    }

    /// The body was read to its end.
    pub(super) fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for PrivateFetch {
    fn drop(&mut self) {
        if let Some(client_fetch) = self.0.take() {
            client_fetch.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::of(Some([192, 0, 2, last].into()))
    }

    /// Abandons `count` fetches at once; returns how many may continue.
    fn leave(accounts: &mut ClientAccounts, client: Client, count: usize, now: Instant) -> usize {
        let left = (0..count).filter(|_| accounts.record_abandoned(client, true, true, now));
        left.count()
    }

    #[test]
    fn limits_running_abandoned_fetches_per_client_and_in_total() {
        let (mut accounts, now) = (ClientAccounts::default(), Instant::now());
        assert_eq!(leave(&mut accounts, client(1), 20, now), RUNNING_MAX);
        let others = (2..20).map(|last| leave(&mut accounts, client(last), 20, now));
        let others: usize = others.sum();
        assert_eq!(others + RUNNING_MAX, RUNNING_IN_ALL_MAX);
        accounts.record_detached_end(client(1));
        assert_eq!(leave(&mut accounts, client(30), 2, now), 1);
    }

    #[test]
    fn client_abandoning_fetches_is_delayed_refused_then_recovers() {
        let (mut accounts, now) = (ClientAccounts::default(), Instant::now());
        leave(&mut accounts, client(1), 63, now);
        assert_eq!(accounts.admission(client(1), now), FetchAdmission::Now);
        leave(&mut accounts, client(1), 1, now);
        assert_eq!(accounts.admission(client(1), now), FetchAdmission::At(now));
        assert_eq!(
            accounts.admission(client(1), now),
            FetchAdmission::At(now + THROTTLED_INTERVAL)
        );
        let pending_viewer = (0..1000).map(|_| accounts.admission(client(1), now));
        let pending_viewer =
            pending_viewer.take_while(|admission| *admission != FetchAdmission::Refused);
        assert!(pending_viewer.count() < 70);
        assert_eq!(accounts.admission(client(2), now), FetchAdmission::Now);
        let later = now + Duration::from_millis(100);
        assert_eq!(accounts.admission(client(1), later), FetchAdmission::Now);
    }

    #[test]
    fn four_completed_fetches_offset_one_abandoned() {
        let (mut accounts, now) = (ClientAccounts::default(), Instant::now());
        for _ in 0..1000 {
            leave(&mut accounts, client(1), 1, now);
            accounts.record_detached_end(client(1));
            (0..4).for_each(|_| accounts.record_completed(client(1), now));
        }
        assert!(accounts.by_client.is_empty() && accounts.running == 0);
    }

    #[test]
    fn clients_above_limit_share_one_account_and_expire() {
        let (mut accounts, now) = (ClientAccounts::default(), Instant::now());
        for number in 0..3 * CLIENTS_MAX {
            let [.., high, low] = number.to_be_bytes();
            let client = Client::of(Some([10, 0, high, low].into()));
            let owner = accounts.owner(client);
            accounts.record_abandoned(owner, true, false, now);
        }
        assert!(accounts.by_client.len() <= CLIENTS_MAX + 1);
        assert_eq!(
            accounts.admission(Client(None), now),
            FetchAdmission::At(now)
        );
        let later = now + Duration::from_mins(1);
        accounts.account(client(1), later);
        assert_eq!(accounts.by_client.len(), 1);
    }

    #[test]
    fn client_is_an_ipv6_64_prefix_or_an_ipv4_address() {
        let of = |text: &str| Client::of(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:3::4"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
