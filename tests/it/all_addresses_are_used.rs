//! All addresses of an endpoint's name get a share of the connections, and a dead address delays no
//! request.

use std::net::SocketAddr;
use std::sync::Arc;

use seawall_upstream::Endpoint;

use crate::support::metrics::CONNECTIONS;
use crate::support::shield::Builder;
use crate::support::{Gate, Origin, Shield, get, segment};

/// An endpoint by name; it resolves to the addresses of these origins, always in this order.
fn named(origins: &[&Origin]) -> Builder {
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
    Shield::in_front_of(origins[0])
        .origin(|group| group.endpoints = vec![Endpoint::new(false, "origin.example", 80)])
        .with_resolver(Arc::new(move |_, _| Ok(addresses.clone())))
}

async fn holding(gate: &Gate) -> Origin {
    let origin = Origin::start().await;
    for path in paths() {
        origin.set_script(&path, segment(path.clone()).hold_head(gate));
    }
    origin
}

fn paths() -> impl Iterator<Item = String> {
    (0..6).map(|number| format!("/{number}.ts"))
}

fn asked(origin: &Origin) -> usize {
    paths().map(|path| origin.hits(&path)).sum()
}

/// Six concurrent requests need six connections: two to each of three addresses. Later requests
/// reuse them.
#[tokio::test]
async fn new_connections_are_spread_over_all_addresses() {
    let gate = Gate::new();
    let [one, two, three] = [
        holding(&gate).await,
        holding(&gate).await,
        holding(&gate).await,
    ];
    let shield = named(&[&one, &two, &three]).start().await;
    let mut crowds = Vec::new();
    for (number, path) in (1..).zip(paths()) {
        crowds.push(shield.crowd(1, get(&path)).await);
        gate.wait_arrived(number).await;
    }
    assert_eq!((asked(&one), asked(&two), asked(&three)), (2, 2, 2));
    gate.open();
    for (path, crowd) in paths().zip(crowds) {
        for answer in crowd.read_all().await {
            answer.assert_whole(path.clone());
        }
    }
    for number in 0..6 {
        let path = format!("/later{number}.ts");
        for origin in [&one, &two, &three] {
            origin.set_script(&path, segment("later"));
        }
        shield.get(&path).await.assert_whole("later");
    }
    assert_eq!(shield.counter(CONNECTIONS, &[("state", "new")]).await, 6);
}

/// A dead address is tried last, whichever address is first in turn.
#[tokio::test]
async fn requests_succeed_when_one_address_is_dead() {
    let gate = Gate::new();
    let (alive, dead) = (holding(&gate).await, holding(&gate).await);
    dead.stop().await;
    let shield = named(&[&dead, &alive]).start().await;
    let mut crowds = Vec::new();
    for (number, path) in (1..).zip(paths()) {
        crowds.push(shield.crowd(1, get(&path)).await);
        gate.wait_arrived(number).await;
    }
    gate.open();
    for (path, crowd) in paths().zip(crowds) {
        for answer in crowd.read_all().await {
            answer.assert_whole(path.clone());
        }
    }
    assert_eq!((asked(&alive), asked(&dead)), (6, 0));
}
