//! A path that leaves its route's prefix and a malformed host are rejected with 400; any other path
//! is forwarded byte for byte.

use crate::support::{Origin, Shield, get, segment};

/// Paths that leave a route's prefix, however the dots are encoded: 400, and no origin request.
#[tokio::test]
async fn rejects_path_that_leaves_route_prefix() {
    let ways_out = [
        "/live/../admin/x",
        "/live/%2e%2e/admin/x",
        "/live/.%2E/admin/x",
        "/live/a/../../admin/x",
    ];
    let origin = Origin::start().await;
    for target in ways_out.into_iter().chain(["/admin/x"]) {
        origin.set_script(target, segment("secret"));
    }
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.path_prefix = "/live".to_owned())
        .start()
        .await;
    for target in ways_out {
        assert_eq!(shield.get(target).await.status, 400, "{target}");
        assert_eq!(origin.hits(target), 0, "{target}");
    }
    assert_eq!(origin.hits("/admin/x"), 0);
}

/// Paths inside the prefix are forwarded byte for byte.
#[tokio::test]
async fn path_inside_route_is_forwarded_byte_for_byte() {
    let targets = ["/live/a/../b.ts", "/live/a/%2e%2e/b.ts", "/live/./b.ts"];
    let origin = Origin::start().await;
    for target in targets {
        origin.set_script(target, segment(target));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    for target in targets {
        shield.get(target).await.assert_whole(target);
        assert_eq!(origin.hits(target), 1, "{target}");
    }
}

/// After an address in brackets only a port may follow.
#[tokio::test]
async fn rejects_host_with_junk_after_ipv6_address() {
    let origin = Origin::start().await.on("/live/seg1.ts", segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    let ask = |host| get("/live/seg1.ts").host(host);
    for host in ["[::1]:junk", "[::1]@x", "[::1]x", "[::1]:99999", "[::1"] {
        assert_eq!(shield.ask(ask(host)).await.status, 400, "{host}");
    }
    assert_eq!(origin.hits("/live/seg1.ts"), 0);
    for host in ["[::1]", "[::1]:80", "127.0.0.1:80"] {
        shield.ask(ask(host)).await.assert_whole("x");
    }
}
