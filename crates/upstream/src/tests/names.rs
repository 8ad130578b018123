//! Known addresses stay in use when DNS fails.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{LONG, SHORT, get, no_lookup, settings, until, whole};
use crate::connection::EndpointNames;
use crate::{Endpoint, Failure, Origin, Resolver};

type Answer = io::Result<Vec<SocketAddr>>;
type Script = Box<dyn Fn(&str) -> Answer + Send>;

/// A resolver with a changeable result that counts its calls.
struct Dns {
    answer: Mutex<Script>,
    asked: AtomicUsize,
}

impl Dns {
    fn new(answer: impl Fn(&str) -> Answer + Send + 'static) -> Arc<Dns> {
        Arc::new(Dns {
            answer: Mutex::new(Box::new(answer)),
            asked: AtomicUsize::new(0),
        })
    }

    fn now(&self, answer: impl Fn(&str) -> Answer + Send + 'static) {
        *self.answer.lock() = Box::new(answer);
    }

    fn lookup(self: &Arc<Self>) -> Resolver {
        let dns = Arc::clone(self);
        Arc::new(move |host, _| {
            let answer = dns.answer.lock()(host);
            dns.asked.fetch_add(1, Ordering::SeqCst);
            answer
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 80))
}

fn fails(_: &str) -> Answer {
    Err(io::Error::other("no such name"))
}

fn names(hosts: &[&str], lookup: Resolver, every: Duration) -> Arc<EndpointNames> {
    let endpoints: Vec<_> = hosts
        .iter()
        .map(|&host| Endpoint::new(false, host.to_owned(), 80))
        .collect();
    EndpointNames::new(&endpoints, lookup, every)
}

async fn known(names: &Arc<EndpointNames>, at: usize, timeout: Duration) -> Vec<SocketAddr> {
    names.addresses(at, Instant::now() + timeout).await
}

#[tokio::test]
async fn ip_address_needs_no_dns_lookup() {
    let names = names(&["192.0.2.7", "::1"], no_lookup(), LONG);
    names.refresh();
    let loopback = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 80));
    assert_eq!(known(&names, 0, LONG).await, [address(7)]);
    assert_eq!(known(&names, 1, LONG).await, [loopback]);
}

#[tokio::test]
async fn resolves_all_addresses_of_each_endpoint() {
    let dns = Dns::new(|host| match host {
        "one" => Ok(vec![address(1), address(2)]),
        _ => Ok(vec![address(3)]),
    });
    let names = names(&["one", "two"], dns.lookup(), LONG);
    assert_eq!(known(&names, 0, LONG).await, [1, 2].map(address));
    assert_eq!(known(&names, 1, LONG).await, [address(3)]);
    assert_eq!(dns.asked(), 2);
}

#[tokio::test]
async fn last_good_addresses_are_kept_while_dns_fails() {
    let dns = Dns::new(|_| Ok(vec![address(1)]));
    let names = names(&["one"], dns.lookup(), Duration::from_millis(5));
    assert_eq!(known(&names, 0, LONG).await, [address(1)]);
    names.refresh();
    dns.now(fails);
    let before = dns.asked();
    until("DNS failed", || dns.asked() > before + 1).await;
    dns.now(|_| Ok(Vec::new()));
    let before = dns.asked();
    until("DNS answered nothing", || dns.asked() > before + 1).await;
    assert_eq!(known(&names, 0, LONG).await, [address(1)]);
    dns.now(|_| Ok(vec![address(2)]));
    let before = dns.asked();
    until("DNS answered anew", || dns.asked() > before + 1).await;
    assert_eq!(known(&names, 0, LONG).await, [address(2)]);
}

#[tokio::test]
async fn dns_lookups_end_with_the_group() {
    let dns = Dns::new(|_| Ok(vec![address(1)]));
    let names = names(&["one"], dns.lookup(), Duration::from_millis(5));
    names.refresh();
    until("it goes on", || dns.asked() > 1).await;
    drop(names);
    until("the resolver is released", || Arc::strong_count(&dns) == 1).await;
}

#[tokio::test]
async fn hanging_dns_lookup_is_waited_for_only_once() {
    let (release, hold) = std::sync::mpsc::sync_channel::<()>(1);
    let hold = Mutex::new(hold);
    let lookup: Resolver = Arc::new(move |host, _| match host {
        "hangs" => {
            let _ = hold.lock().recv_timeout(LONG);
            Ok(vec![address(9)])
        }
        _ => Ok(vec![address(1)]),
    });
    let names = names(&["hangs", "two"], lookup, LONG);
    let said = |at| names.known(at).map(|known| known.to_vec());
    assert_eq!(said(0), None, "nothing speaks against it yet");
    assert_eq!(known(&names, 0, SHORT).await, []);
    assert_eq!(said(0), Some(Vec::new()), "now it is doubted");
    assert_eq!(known(&names, 1, LONG).await, [address(1)]);
    release.send(()).unwrap();
    assert_eq!(known(&names, 0, LONG).await, [address(9)]);
    assert_eq!(said(0), Some(vec![address(9)]));
}

#[tokio::test]
async fn failed_dns_lookup_is_reported_and_repeated_per_request() {
    let dns = Dns::new(fails);
    let mut settings = settings(address(1));
    settings.endpoints[0].host = "one".to_owned();
    let origin = Origin::new(settings, dns.lookup()).unwrap();
    for round in 1..3 {
        let (failure, _) = whole(&origin, get("/x")).await.unwrap_err();
        assert_eq!(failure, Failure::Resolve);
        assert_eq!(dns.asked(), round);
    }
}
