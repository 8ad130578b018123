//! A query parameter because of which no two viewers share an object is named: in the metrics, by
//! `explain`, and in the log.

use seawall_policy::route::QueryPolicy;
use serde_json::Value;

use crate::support::{Origin, Shield, get, segment};

const PATH: &str = "/live/seg1.ts";
const VARYING: &str = "seawall_query_parameters_varying";

/// The field of `explain` for the path.
async fn varying(shield: &Shield) -> Value {
    let url = format!("http%3A%2F%2Fmedia.test{PATH}");
    let answer = shield.admin(get(&format!("/explain?url={url}"))).await;
    let explanation: Value = serde_json::from_str(answer.text()).unwrap();
    explanation["varying_parameters"].clone()
}

async fn request_with_sessions(shield: &Shield, count: usize) {
    let mut viewer = shield.viewer().await;
    for number in 0..count {
        let target = format!("{PATH}?part=1&session=s{number}");
        viewer.ask(get(&target)).await.assert_whole("media");
    }
}

#[tokio::test]
async fn names_session_60_of_60() {
    let origin = Origin::start().await.on(PATH, segment("media"));
    let shield = Shield::in_front_of(&origin).start().await;
    request_with_sessions(&shield, 59).await;
    assert_eq!(shield.gauge(VARYING).await, 0);
    assert_eq!(varying(&shield).await, Value::Null);
    // These are hits now: no fetch, nothing to be noted.
    request_with_sessions(&shield, 59).await;
    assert_eq!(shield.gauge(VARYING).await, 0);
    request_with_sessions(&shield, 60).await;
    assert_eq!(origin.hits(PATH), 60);
    assert_eq!(shield.gauge(VARYING).await, 1);
    assert_eq!(varying(&shield).await, serde_json::json!(["session"]));
}

#[tokio::test]
async fn query_that_the_route_drops_is_not_named() {
    let origin = Origin::start().await.on(PATH, segment("media"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.query = QueryPolicy::Except(vec!["session".to_owned()]).into())
        .start()
        .await;
    request_with_sessions(&shield, 100).await;
    assert_eq!(origin.hits(PATH), 1);
    assert_eq!(shield.gauge(VARYING).await, 0);
    assert_eq!(varying(&shield).await, Value::Null);
}
