//! A route with `redirect` sends its viewers elsewhere, and asks no origin.

use http::StatusCode;
use seawall_policy::Route;
use seawall_policy::access_rules::AddressList;
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
            // A cache may keep it, as the status says.
            assert_eq!(response.header("cache-control"), None);
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

/// Whether a cache may keep a redirect with this status of an open or a guarded route.
async fn cache_control(status: u16, is_guarded: bool) -> Option<String> {
    let origin = Origin::start().await;
    let shield = Shield::in_front_of(&origin).route(move |route| {
        to_new(route);
        let redirect = route.redirect.as_mut().unwrap();
        redirect.status = StatusCode::from_u16(status).unwrap();
        if is_guarded {
            route.access.deny = Some(AddressList::default());
        }
    });
    let response = shield.start().await.get("/old/a").await;
    assert_eq!(response.status, status);
    response.header("cache-control").map(str::to_owned)
}

#[tokio::test]
async fn only_permanent_redirects_of_open_routes_may_be_cached() {
    for status in [301, 302, 303, 307, 308] {
        let is_permanent = [301, 308].contains(&status);
        let expected = (!is_permanent).then(|| "no-store".to_owned());
        assert_eq!(cache_control(status, false).await, expected, "{status}");
        let guarded = cache_control(status, true).await;
        assert_eq!(guarded.as_deref(), Some("no-store"), "{status}");
    }
}
