//! When one of several endpoints fails, another answers, and viewers see no failure.

use seawall_upstream::Balance;

use crate::support::metrics::ORIGIN_REQUESTS;
use crate::support::origin::Reply;
use crate::support::{Origin, Shield, get, hang_up, manifest, playlist, segment, status};

const PATH: &str = "/live/index.m3u8";
const PIECE: &str = "/live/seg1.ts";

async fn answering(reply: Reply) -> Origin {
    Origin::start().await.on(PIECE, reply)
}

/// Responses that count as failures: the other endpoint is requested at once.
#[tokio::test]
async fn other_endpoint_answers_after_502_503_504_or_disconnect() {
    for bad in [status(502), status(503), status(504), hang_up()] {
        let first = answering(bad).await;
        let second = answering(segment("whole")).await;
        let shield = Shield::in_front_of(&first)
            .and_endpoint(&second)
            .start()
            .await;
        shield.get(PIECE).await.assert_whole("whole");
        assert_eq!((first.hits(PIECE), second.hits(PIECE)), (1, 1));
        let asked = shield.counter(ORIGIN_REQUESTS, &[("result", "abandoned")]);
        assert_eq!(asked.await, 0, "no attempt counts as abandoned");
    }
}

/// A refusal is a valid response and is passed on.
#[tokio::test]
async fn passes_on_403_404_410_without_trying_another_endpoint() {
    for code in [403, 404, 410] {
        let first = answering(status(code)).await;
        let second = answering(segment("whole")).await;
        let shield = Shield::in_front_of(&first)
            .and_endpoint(&second)
            .start()
            .await;
        assert_eq!(shield.get(PIECE).await.status, code);
        assert_eq!(second.hits(PIECE), 0);
    }
}

/// A live manifest does not disappear: a 404 of one endpoint alone is not accepted.
#[tokio::test]
async fn other_endpoint_answers_when_stored_manifest_is_refused() {
    for code in [403, 404, 410] {
        let overdue = manifest(playlist(1)).cache_control("max-age=1").age(10);
        let first = Origin::start().await.on(PATH, overdue.then(status(code)));
        let second = Origin::start().await.on(PATH, manifest(playlist(2)));
        let shield = Shield::in_front_of(&first)
            .and_endpoint(&second)
            .start()
            .await;
        shield.get(PATH).await.assert_whole(playlist(1));
        let fresh = |answer: &crate::support::Response| answer.text() == playlist(2);
        shield.repeat_until(get(PATH), fresh).await;
        assert_eq!((first.hits(PATH), second.hits(PATH)), (2, 1));
    }
}

/// When all endpoints fail, viewers get the last response.
#[tokio::test]
async fn passes_on_failure_when_all_endpoints_fail() {
    let first = answering(status(503)).await;
    let second = answering(status(502)).await;
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .origin(|group| group.retry.attempts_max = 3)
        .start()
        .await;
    let code = shield.get(PIECE).await.status;
    assert!(code == 502 || code == 503, "{code}");
    assert_eq!((first.hits(PIECE), second.hits(PIECE)), (2, 2));
}

/// Returns how many of 40 requests succeeded, and how often both endpoints were requested, where
/// the first endpoint fails and the budget allows one retry in ten.
async fn beyond_the_budget(second_answers: Reply) -> (usize, usize) {
    const REQUESTS: usize = 40;
    let (mut first, mut second) = (Origin::start().await, Origin::start().await);
    for piece in 0..REQUESTS {
        let path = format!("/{piece}.ts");
        first = first.on(&path, status(503));
        second = second.on(&path, second_answers.clone());
    }
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .origin(|group| {
            group.retry.budget.share = 0.1;
            group.retry.budget.per_s_min = 0;
            // Breaker and ejection are switched off.
            group.guards.breaker.failed_urls_min = 1000;
            group.guards.ejection.failures = 1000;
        })
        .start()
        .await;
    let (mut answered, mut asked) = (0, 0);
    for piece in 0..REQUESTS {
        let path = format!("/{piece}.ts");
        answered += usize::from(shield.get(&path).await.status == 200);
        asked += first.hits(&path) + second.hits(&path);
    }
    (answered, asked)
}

/// While another endpoint answers well, no viewer gets an error because the budget is spent.
#[tokio::test]
async fn failover_exceeds_retry_budget_while_an_endpoint_answers() {
    assert_eq!(beyond_the_budget(segment("whole")).await, (40, 80));
}

/// When all endpoints fail, retries are a share of the requests: an origin in trouble does not get
/// twice the load.
#[tokio::test]
async fn retries_stay_within_budget_when_all_endpoints_fail() {
    let (answered, asked) = beyond_the_budget(status(503)).await;
    assert_eq!(answered, 0);
    assert!((41..=45).contains(&asked), "{asked}");
}

/// Requests are spread as `balance` says.
#[tokio::test]
async fn round_robin_follows_endpoint_weights() {
    const REQUESTS: usize = 12;
    let (mut first, mut second) = (Origin::start().await, Origin::start().await);
    let paths: Vec<_> = (0..REQUESTS).map(|piece| format!("/{piece}.ts")).collect();
    for path in &paths {
        first = first.on(path, segment("whole"));
        second = second.on(path, segment("whole"));
    }
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .origin(|group| {
            group.balance = Balance::RoundRobin;
            group.endpoints[1].weight = 3;
        })
        .start()
        .await;
    for path in &paths {
        shield.get(path).await.assert_whole("whole");
    }
    let asked = |origin: &Origin| paths.iter().map(|path| origin.hits(path)).sum::<usize>();
    assert_eq!((asked(&first), asked(&second)), (3, 9));
}

/// A lower priority is used only when the first cannot answer.
#[tokio::test]
async fn lower_priority_endpoint_gets_no_request() {
    let first = answering(segment("first")).await;
    let second = answering(segment("second")).await;
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .origin(|group| {
            group.balance = Balance::LeastInFlight;
            group.endpoints[0].priority = 1;
        })
        .start()
        .await;
    shield.get(PIECE).await.assert_whole("second");
    assert_eq!(first.hits(PIECE), 0);
}

/// A stored 404 is no object that existed a moment ago: one endpoint's 404 is enough to confirm it.
#[tokio::test]
async fn stored_404_is_confirmed_by_one_endpoint() {
    let missing = status(404).cache_control("max-age=1").age(10);
    let first = answering(missing.clone()).await;
    let second = answering(missing).await;
    let shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(shield.get(PIECE).await.status, 404);
    }
    assert_eq!((first.hits(PIECE), second.hits(PIECE)), (2, 0));
}
