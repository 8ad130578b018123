//! When another endpoint can answer, viewers do not wait for a slow one: a late manifest is
//! requested twice, within a budget, and an endpoint that is always slow is used last.

use std::time::{Duration, Instant};

use seawall_upstream::{Balance, Settings};

use crate::support::metrics::{EJECTED, HEDGES, HEDGES_WON};
use crate::support::shield::{Builder, endpoint};
use crate::support::{Gate, Origin, Shield, eventually, get, manifest, playlist, segment, status};

const PATH: &str = "/live/index.m3u8";
const SEGMENT: &str = "/live/seg1.ts";
const BLOCKING: &str = "/live/index.m3u8?_HLS_msn=2";
/// Requested with many queries, each an object of its own.
const QUICK: &str = "/quick.ts";
/// The number of responses after which an endpoint's latency is known.
const ENOUGH: usize = 20;

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

/// An origin that answers at once at first.
async fn quick() -> Origin {
    Origin::start().await.on(QUICK, segment("quick"))
}

/// A shield in front of two endpoints, with long deadlines.
fn in_front_of_both(first: &Origin, second: &Origin) -> Builder {
    Shield::in_front_of(first)
        .origin(|group| {
            group.endpoints.push(endpoint(second));
            group.deadlines.manifest = HOUR;
            group.deadlines.first_byte = HOUR;
            group.deadlines.total = HOUR;
            group.guards.latency.window = HOUR;
        })
        .proxy_settings(|waits| waits.wait_max = HOUR)
}

/// Makes the shield measure the latency of the first endpoint.
async fn get_used_to_it(shield: &Shield) {
    for number in 0..ENOUGH {
        let answer = shield.get(&format!("{QUICK}?{number}")).await;
        answer.assert_whole("quick");
    }
}

/// The second endpoint answers a manifest that the first never answers; the first request is
/// cancelled without blame.
#[tokio::test]
async fn hedged_request_wins_when_manifest_is_late() {
    let never = Gate::new();
    let first = quick()
        .await
        .on(PATH, manifest(playlist(1)).hold_head(&never));
    let second = quick().await.on(PATH, manifest(playlist(1)));
    let shield = in_front_of_both(&first, &second).start().await;
    get_used_to_it(&shield).await;

    shield.get(PATH).await.assert_whole(playlist(1));
    first.wait_abandoned(1).await;
    assert_eq!((first.hits(PATH), second.hits(PATH)), (1, 1));
    assert_eq!(shield.counter(HEDGES, &[]).await, 1);
    assert_eq!(shield.counter(HEDGES_WON, &[]).await, 1);
    let given_up = [("result", "abandoned")];
    let requests = "seawall_origin_requests_total";
    assert_eq!(shield.counter(requests, &given_up).await, 1);
    assert_eq!(shield.gauge(EJECTED).await, 0);
}

/// Being late once is no failure. After several hedges that the first endpoint lost, it is used
/// last.
#[tokio::test]
async fn endpoint_is_ejected_after_repeated_lost_hedges() {
    const LOSSES: u32 = 3;
    let never = Gate::new();
    let path = |number| format!("/live/{number}.m3u8");
    let (mut first, mut second) = (quick().await, quick().await);
    for number in 0..=LOSSES {
        first = first.on(
            &path(number),
            manifest(playlist(number.into())).hold_head(&never),
        );
        second = second.on(&path(number), manifest(playlist(number.into())));
    }
    let shield = in_front_of_both(&first, &second)
        .origin(|group| {
            group.guards.ejection.failures = LOSSES;
            group.guards.ejection.silence = HOUR;
            group.guards.ejection.base = HOUR;
            group.guards.ejection.max = HOUR;
            group.guards.ejection.slow_judgements = u32::MAX;
        })
        .start()
        .await;
    get_used_to_it(&shield).await;
    for number in 0..LOSSES {
        assert_eq!(shield.gauge(EJECTED).await, 0, "after {number}");
        let answer = shield.get(&path(number)).await;
        answer.assert_whole(playlist(number.into()));
        assert_eq!(first.hits(&path(number)), 1);
    }
    assert_eq!(shield.gauge(EJECTED).await, 1);
    let answer = shield.get(&path(LOSSES)).await;
    answer.assert_whole(playlist(LOSSES.into()));
    assert_eq!(first.hits(&path(LOSSES)), 0);
    let hedges = shield.counter(HEDGES, &[]).await;
    assert_eq!(hedges, u64::from(LOSSES));
}

/// A hung endpoint is ejected for a moment, and then probed about once a second with HEAD requests
/// in the background; no viewer's request is sent to it.
#[tokio::test]
async fn hung_endpoint_is_probed_in_background_once_a_second() {
    const MOMENT: Duration = Duration::from_millis(1);
    let never = Gate::new();
    let hung = Origin::start()
        .await
        .on(QUICK, segment("hung").hold_head(&never));
    let second = quick().await;
    let shield = in_front_of_both(&hung, &second)
        .origin(|group| {
            group.deadlines.first_byte = Duration::from_millis(400);
            group.guards.ejection.failures = 1;
            group.guards.ejection.base = MOMENT;
            group.guards.ejection.max = MOMENT;
        })
        .start()
        .await;
    shield
        .get(&format!("{QUICK}?0"))
        .await
        .assert_whole("quick");
    let asked = |method| {
        let asked = hung.requests(QUICK).into_iter();
        asked.filter(|request| request.method == method).count()
    };
    assert_eq!((asked("GET"), asked("HEAD")), (1, 0));

    let (began, mut number) = (Instant::now(), 0);
    eventually("three probes", async || {
        number += 1;
        let answer = shield.get(&format!("{QUICK}?{number}")).await;
        answer.assert_whole("quick");
        asked("HEAD") == 3
    })
    .await;
    assert!(began.elapsed() >= 2 * SECOND, "one a second, not more");
    assert_eq!(asked("GET"), 1, "of {number} viewers none was sent to it");
}

/// An error of the second endpoint does not win over the first endpoint's response, however late
/// that is.
#[tokio::test]
async fn hedge_answered_with_503_does_not_win() {
    let gate = Gate::new();
    let late = manifest(playlist(1)).hold_head(&gate);
    let first = quick().await.on(PATH, late);
    let second = quick().await.on(PATH, status(503));
    let shield = in_front_of_both(&first, &second).start().await;
    get_used_to_it(&shield).await;

    let waiting = shield.crowd(1, get(PATH)).await;
    second.wait_hits(PATH, 1).await;
    gate.open();
    for answer in waiting.read_all().await {
        answer.assert_whole(playlist(1));
    }
    assert_eq!((first.hits(PATH), second.hits(PATH)), (1, 1));
    assert_eq!(shield.counter(HEDGES, &[]).await, 1);
    assert_eq!(shield.counter(HEDGES_WON, &[]).await, 0);
}

/// A blocking request for a playlist waits for the version: the second endpoint does not get it
/// while it answers later requests for a segment and a manifest.
#[tokio::test]
async fn blocking_reload_is_not_hedged() {
    let gate = Gate::new();
    let first = quick()
        .await
        .on(SEGMENT, segment("first").hold_head(&gate))
        .on(BLOCKING, manifest(playlist(2)).hold_head(&gate))
        .on(PATH, manifest(playlist(1)).hold_head(&gate));
    let second = quick()
        .await
        .on(SEGMENT, segment("second"))
        .on(PATH, manifest(playlist(1)));
    let shield = in_front_of_both(&first, &second).start().await;
    get_used_to_it(&shield).await;

    let blocked = shield.crowd(1, get(BLOCKING)).await;
    gate.wait_arrived(1).await;
    shield.get(SEGMENT).await.assert_whole("second");
    shield.get(PATH).await.assert_whole(playlist(1));
    assert_eq!(second.hits(BLOCKING), 0);
    gate.open();
    blocked.read_all().await[0].assert_whole(playlist(2));
}

/// Without budget no hedge is sent: the other endpoint is requested only after the first one's
/// deadline.
#[tokio::test]
async fn no_hedge_is_sent_without_retry_budget() {
    let no_budget = |group: &mut Settings| {
        group.retry.budget.share = 0.0;
        group.retry.budget.per_s_min = 0;
    };
    let (shield, first, second) = before_a_silent_one(no_budget).await;
    shield.get(PATH).await.assert_whole(playlist(1));
    assert_eq!((first.hits(PATH), second.hits(PATH)), (1, 1));
    assert_eq!(shield.counter(HEDGES, &[]).await, 0);
}

/// With hedging switched off, nothing is requested twice, whatever the budget.
#[tokio::test]
async fn hedges_can_be_switched_off() {
    let no_hedges = |group: &mut Settings| {
        group.retry.attempts_max = 0;
        group.retry.hedge = false;
    };
    let (shield, first, second) = before_a_silent_one(no_hedges).await;
    assert_eq!(shield.get(PATH).await.status, 504);
    assert_eq!((first.hits(PATH), second.hits(PATH)), (1, 0));
    assert_eq!(shield.counter(HEDGES, &[]).await, 0);
}

/// The first endpoint never answers the manifest; the second would.
async fn before_a_silent_one(change: impl FnOnce(&mut Settings)) -> (Shield, Origin, Origin) {
    let never = Gate::new();
    let first = quick()
        .await
        .on(PATH, manifest(playlist(1)).hold_head(&never));
    let second = quick().await.on(PATH, manifest(playlist(1)));
    let shield = in_front_of_both(&first, &second)
        .origin(|group| {
            group.deadlines.manifest = Duration::from_millis(400);
            change(group);
        })
        .start()
        .await;
    get_used_to_it(&shield).await;
    (shield, first, second)
}

/// The second endpoint answers many requests while the first answers none, so it is much slower on
/// any machine. From then on the first is used only when the second is gone.
#[tokio::test]
async fn endpoint_much_slower_than_its_peer_is_ejected() {
    const PAIRS: usize = 2 * ENOUGH;
    let gate = Gate::new();
    let slow = Origin::start()
        .await
        .on(QUICK, segment("slow").hold_head(&gate));
    let peer = quick().await;
    let shield = in_front_of_both(&slow, &peer)
        .origin(|group| {
            group.balance = Balance::RoundRobin;
            group.guards.latency.samples_min = u32::try_from(PAIRS).unwrap();
            group.guards.ejection.slow_factor = 2.0;
            group.guards.ejection.slow_min = Duration::ZERO;
            group.guards.ejection.slow_judgements = 1;
            group.guards.ejection.judged_every = Duration::ZERO;
            group.guards.ejection.base = HOUR;
            group.guards.ejection.max = HOUR;
        })
        .start()
        .await;
    let mut crowds = Vec::new();
    for number in 0..PAIRS {
        crowds.push(shield.crowd(1, get(&format!("{QUICK}?{number}a"))).await);
        gate.wait_arrived(number + 1).await;
        let answer = shield.get(&format!("{QUICK}?{number}b")).await;
        answer.assert_whole("quick");
    }
    gate.open();
    for crowd in crowds {
        crowd.read_all().await[0].assert_whole("slow");
    }

    for number in 0..10 {
        let answer = shield.get(&format!("{QUICK}?{number}c")).await;
        answer.assert_whole("quick");
    }
    assert_eq!(slow.hits(QUICK), PAIRS);
    assert_eq!(shield.gauge(EJECTED).await, 1);
    peer.stop().await;
    shield
        .get(&format!("{QUICK}?last"))
        .await
        .assert_whole("slow");
}
