//! A route with `redirect` sends its viewers elsewhere, and asks no origin.

use http::StatusCode;
use seawall_policy::Route;
use seawall_policy::route::Redirect;

use crate::support::{Origin, Shield, ask, get, head};

fn to_new(route: &mut Route) {
    "/old".clone_into(&mut route.path_prefix);
    route.redirect = Some(Redirect {
        to: "https://new.test/live".to_owned(),
        status: StatusCode::PERMANENT_REDIRECT,
    });
}

#[tokio::test]
async fn path_and_query_follow_the_viewer() {
    let origin = Origin::start().await;
    let shield = Shield::in_front_of(&origin).route(to_new).start().await;
    let h2 = shield.h2_viewer().await;
    let target = "/old/a/b.m3u8?x=1&CMCD=sid%3D2";
    for ask in [get(target), head(target), get(target)] {
        for response in [shield.ask(ask.clone()).await, h2.ask(ask.clone()).await] {
            assert_eq!(response.status, 308);
            let location = response.header("location");
            assert_eq!(
                location,
                Some("https://new.test/live/a/b.m3u8?x=1&CMCD=sid%3D2")
            );
            assert_eq!(response.header("cache-control"), Some("no-store"));
            // A page's player follows it only with this.
            assert_eq!(response.header("access-control-allow-origin"), Some("*"));
            assert_eq!(response.text(), "");
        }
    }
    assert_eq!(shield.ask(ask("POST", target)).await.status, 405);
    assert_eq!(shield.ask(ask("OPTIONS", target)).await.status, 204);
    assert_eq!(shield.get("/older/a").await.status, 421);
    assert_eq!(origin.connections(), 0);
}
