//! Behind an origin of a known `kind`, viewers share responses whatever their players and the
//! origin add to the URLs, and no viewer gets the session of another.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use seawall::config::Config;

use crate::support::origin::{Request, Script};
use crate::support::viewer::Viewer;
use crate::support::{Origin, Response, Shield, computed, ended_playlist, get, manifest, segment};
use crate::support::{reply, status};

const MASTER: &str = "/live/index.m3u8";
const PLAYLIST: &str = "/live/video.m3u8";
const SEGMENT: &str = "/live/seg1.ts";

/// A shield whose routes and origins are those of this file, where `ORIGIN` is the origin's URL.
async fn shield(origin: &Origin, file: &str) -> Shield {
    let url = format!("http://{}", origin.address());
    let file = format!("[[origin]]\nendpoints = [\"{url}\"]\n{file}");
    let config = Config::read(&file, Path::new("seawall.toml")).unwrap();
    let builder = Shield::in_front_of(origin).with(|shield| {
        shield.rules.routes = config.rules.routes;
        shield.origins = config.origins;
    });
    builder.start().await
}

/// An origin with these scripts for a multivariant playlist, a playlist and a segment.
async fn origin(master: Script, playlist: Script, media: Script) -> Origin {
    let origin = Origin::start().await.on(MASTER, master);
    origin.on(PLAYLIST, playlist).on(SEGMENT, media)
}

/// A multivariant playlist that lists this playlist, fresh for half a minute.
fn master(playlist: &str) -> Script {
    let head = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000\n";
    let listed = manifest(format!("{head}{playlist}\n"));
    listed.cache_control("public, max-age=30").into()
}

/// A playlist whose segments have this query, fresh for half a minute.
fn playlist(query: &str) -> Script {
    let text = ended_playlist(1).replace(".ts", &format!(".ts{query}"));
    manifest(text).cache_control("public, max-age=30").into()
}

fn media() -> Script {
    segment("media").cache_control("public, max-age=60").into()
}

/// The parameter of a request's query.
fn parameter<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    let (_, query) = request.target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

/// The first URI of a playlist.
fn first_uri(playlist: &Response) -> String {
    let mut lines = playlist.text().lines();
    let uri = lines.find(|line| !line.starts_with('#'));
    let uri = uri.unwrap_or_else(|| panic!("no URI in {playlist:?}"));
    if uri.starts_with('/') {
        uri.to_owned()
    } else {
        format!("/live/{uri}")
    }
}

/// Plays as a player does: each URI as the playlist before has it.
async fn play(viewer: &mut Viewer, master: &str) {
    let playlist = viewer.ask(get(master)).await;
    assert_eq!(playlist.status, 200, "{playlist:?}");
    let listed = first_uri(&playlist);
    let playlist = viewer.ask(get(&listed)).await;
    assert_eq!(playlist.status, 200, "{listed}: {playlist:?}");
    let listed = first_uri(&playlist);
    viewer.ask(get(&listed)).await.assert_whole("media");
}

/// A hundred viewers play, each with a query of its own. Then the origin had one request for each
/// of the three objects, and none of these parameters in it.
async fn assert_hundred_viewers_one_fetch(origin: &Origin, shield: &Shield, query: &str) {
    for number in 0..100 {
        let mut viewer = shield.viewer().await;
        play(&mut viewer, &format!("{MASTER}?{query}{number}")).await;
    }
    for path in [MASTER, PLAYLIST, SEGMENT] {
        assert_eq!(origin.hits(path), 1, "{path}");
        let target = origin.latest(path).target;
        assert!(!target.contains(query), "{target}");
    }
}

/// `MediaMTX`: 302 with a cookie to who has no CDN secret.
fn only_with_secret(with_secret: &'static str, visits: &'static AtomicUsize) -> Script {
    computed(move |request| {
        if request.header("authorization") == Some("Bearer s3cret") {
            let listed = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000\n";
            let listed = manifest(format!("{listed}{with_secret}\n"));
            return listed.cache_control("public, max-age=30");
        }
        let visit = visits.fetch_add(1, Ordering::Relaxed);
        let cookie = format!("hlsSession={visit}; SameSite=None; Secure");
        let to = format!("{MASTER}?cookieCheck=1");
        status(302)
            .header("Location", to)
            .header("Set-Cookie", cookie)
    })
}

#[tokio::test]
async fn mediamtx_with_its_secret_hundred_viewers_one_fetch() {
    static VISITS: AtomicUsize = AtomicUsize::new(0);
    let master = only_with_secret("video.m3u8", &VISITS);
    let origin = origin(master, playlist(""), media()).await;
    let file = "kind = \"mediamtx\"\nheaders = { Authorization = \"Bearer s3cret\" }";
    let shield = shield(&origin, file).await;
    assert_hundred_viewers_one_fetch(&origin, &shield, "session=").await;
}

/// Without the secret each viewer would have a session, which is a cookie here.
#[tokio::test]
async fn cookie_of_one_viewer_never_reaches_another() {
    static VISITS: AtomicUsize = AtomicUsize::new(0);
    let master = only_with_secret("video.m3u8", &VISITS);
    let origin = origin(master, playlist(""), media()).await;
    let shield = shield(&origin, "kind = \"mediamtx\"").await;
    for visit in 0..10 {
        let response = shield.get(&format!("{MASTER}?session={visit}")).await;
        assert_eq!(response.status, 302, "{response:?}");
        let expected = format!("hlsSession={visit};");
        let cookie = response.header("set-cookie").unwrap_or_default();
        assert!(cookie.starts_with(&expected), "{visit}: {cookie}");
    }
}

#[tokio::test]
async fn ovenmediaengine_in_origin_mode_hundred_viewers_one_fetch() {
    let origin = origin(master("video.m3u8"), playlist(""), media()).await;
    let shield = shield(&origin, "kind = \"ovenmediaengine\"").await;
    assert_hundred_viewers_one_fetch(&origin, &shield, "token=").await;
}

/// Outside of its origin mode, `OvenMediaEngine` writes a session into each playlist, and rejects
/// requests without it: each viewer plays with its own, and none with that of another.
#[tokio::test]
async fn session_in_a_playlist_stays_with_its_viewer() {
    static VISITS: AtomicUsize = AtomicUsize::new(1);
    let master = computed(|_| {
        let session = VISITS.fetch_add(1, Ordering::Relaxed);
        let listed = format!("video.m3u8?session={session}_key");
        let head = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000\n";
        manifest(format!("{head}{listed}\n")).cache_control("no-cache, no-store")
    });
    let with_session = computed(|request| match parameter(request, "session") {
        Some(session) => {
            let text = ended_playlist(1).replace(".ts", &format!(".ts?session={session}"));
            manifest(text).cache_control("no-cache, no-store")
        }
        None => status(401),
    });
    let media = computed(|request| match parameter(request, "session") {
        Some(_) => segment("media"),
        None => status(401),
    });
    let origin = origin(master, with_session, media).await;
    let shield = shield(&origin, "kind = \"ovenmediaengine\"").await;
    for _ in 0..10 {
        let mut viewer = shield.viewer().await;
        play(&mut viewer, &format!("{MASTER}?token=x")).await;
    }
    let mut sessions: Vec<String> = origin
        .requests(PLAYLIST)
        .iter()
        .map(|request| parameter(request, "session").unwrap().to_owned())
        .collect();
    sessions.dedup();
    assert_eq!(sessions.len(), 10, "{sessions:?}");
}

#[tokio::test]
async fn srs_without_contexts_hundred_viewers_one_fetch() {
    let origin = origin(master("video.m3u8"), playlist(""), media()).await;
    let shield = shield(&origin, "kind = \"srs\"").await;
    assert_hundred_viewers_one_fetch(&origin, &shield, "token=").await;
}

/// With `hls_ctx on`, SRS answers a playlist without a context with another multivariant playlist,
/// so the context stays in the requests for playlists. Its segments do not depend on it.
#[tokio::test]
async fn srs_with_contexts_shares_segments() {
    static VISITS: AtomicUsize = AtomicUsize::new(1);
    let by_context = computed(|request| {
        if let Some(context) = parameter(request, "hls_ctx") {
            let media = format!(".ts?hls_ctx={context}");
            return manifest(ended_playlist(1).replace(".ts", &media));
        }
        let context = VISITS.fetch_add(1, Ordering::Relaxed);
        let head = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,AVERAGE-BANDWIDTH=1\n";
        let listed = format!("{head}{MASTER}?hls_ctx={context}\n");
        manifest(listed).cache_control("no-store")
    });
    let origin = origin(by_context, playlist(""), media()).await;
    let shield = shield(&origin, "kind = \"srs\"").await;
    for number in 0..10 {
        let mut viewer = shield.viewer().await;
        play(&mut viewer, &format!("{MASTER}?token={number}")).await;
    }
    assert_eq!((origin.hits(MASTER), origin.hits(SEGMENT)), (20, 1));
}

#[tokio::test]
async fn wowza_as_http_origin_hundred_viewers_one_fetch() {
    let origin = origin(master("video.m3u8?DVR"), playlist("?DVR"), media()).await;
    let shield = shield(&origin, "kind = \"wowza\"").await;
    assert_hundred_viewers_one_fetch(&origin, &shield, "user=").await;
    assert_eq!(origin.latest(PLAYLIST).target, format!("{PLAYLIST}?DVR"));
    assert_eq!(origin.latest(SEGMENT).target, format!("{SEGMENT}?DVR"));
}

#[tokio::test]
async fn mediapackage_hundred_viewers_one_fetch() {
    let origin = origin(master("video.m3u8"), playlist("?x=1"), media()).await;
    let shield = shield(&origin, "kind = \"mediapackage\"").await;
    assert_hundred_viewers_one_fetch(&origin, &shield, "session=").await;
    let filtered = format!("{MASTER}?user=1&aws.manifestfilter=video_codec%3Ah264");
    shield.get(&filtered).await;
    let expected = format!("{MASTER}?aws.manifestfilter=video_codec%3Ah264");
    assert_eq!(origin.latest(MASTER).target, expected);
}

#[tokio::test]
async fn s3_hundred_viewers_one_fetch() {
    let origin = origin(master("video.m3u8"), playlist("?x=1"), media()).await;
    let shield = shield(&origin, "kind = \"s3\"").await;
    assert_hundred_viewers_one_fetch(&origin, &shield, "X-Amz-Signature=").await;
    shield.get(&format!("{SEGMENT}?versionId=7")).await;
    assert_eq!(
        origin.latest(SEGMENT).target,
        format!("{SEGMENT}?versionId=7")
    );
}

/// The parameters of these servers are not all known, so none is dropped: their sessions are
/// switched off at the server.
#[tokio::test]
async fn nimble_and_unified_get_every_parameter() {
    for kind in ["nimble", "unified"] {
        let origin = origin(master("video.m3u8"), playlist(""), media()).await;
        let shield = shield(&origin, &format!("kind = \"{kind}\"")).await;
        for _ in 0..100 {
            play(&mut shield.viewer().await, MASTER).await;
        }
        for path in [MASTER, PLAYLIST, SEGMENT] {
            assert_eq!(origin.hits(path), 1, "{kind}: {path}");
        }
        let target = format!("{MASTER}?nimblesessionid=7&filter=x");
        shield.get(&target).await;
        assert_eq!(origin.latest(MASTER).target, target, "{kind}");
    }
}

/// Cookies of a load balancer, another one for each request.
fn balanced(other: &'static str) -> Script {
    static VISITS: AtomicUsize = AtomicUsize::new(0);
    computed(move |_| {
        let visit = VISITS.fetch_add(1, Ordering::Relaxed);
        let reply = segment("media").cache_control("public, max-age=60");
        let reply = reply.header("Set-Cookie", format!("AWSALB={visit}; Path=/"));
        let reply = reply.header("Set-Cookie", format!("AWSALBCORS={visit}; Path=/"));
        match other {
            "" => reply,
            _ => reply.header("Set-Cookie", format!("{other}={visit}")),
        }
    })
}

#[tokio::test]
async fn cookies_of_a_load_balancer_defeat_no_cache() {
    let origin = Origin::start().await.on(SEGMENT, balanced(""));
    let file = "[[route]]\nstrip_set_cookie = [\"AWSALB*\"]";
    let shield = shield(&origin, file).await;
    for _ in 0..100 {
        let response = shield.get(SEGMENT).await;
        assert_eq!(response.header("set-cookie"), None, "{response:?}");
        response.assert_whole("media");
    }
    assert_eq!(origin.hits(SEGMENT), 1);
}

/// One cookie that is not named makes the response one viewer's own, with all of its cookies.
#[tokio::test]
async fn session_beside_cookies_of_a_load_balancer_stays_with_its_viewer() {
    let origin = Origin::start().await.on(SEGMENT, balanced("session"));
    let file = "[[route]]\nstrip_set_cookie = [\"AWSALB*\"]";
    let shield = shield(&origin, file).await;
    let mut seen = Vec::new();
    for _ in 0..10 {
        let response = shield.get(SEGMENT).await;
        let cookies = response.fields.all("set-cookie").join(" ");
        assert!(
            cookies.contains("AWSALB=") && cookies.contains("session="),
            "{cookies}"
        );
        assert!(!seen.contains(&cookies), "{cookies}");
        seen.push(cookies);
    }
    assert_eq!(origin.hits(SEGMENT), 10);
}

/// A route that says which parameters it keeps is not changed by the kind of its origin.
#[tokio::test]
async fn query_of_the_route_wins_over_the_kind() {
    let origin = Origin::start().await.on(SEGMENT, reply().body("media"));
    let file = "kind = \"s3\"\n[[route]]\nquery = { only = [\"part\"] }";
    let shield = shield(&origin, file).await;
    let target = format!("{SEGMENT}?part=2&versionId=7");
    shield.get(&target).await.assert_whole("media");
    assert_eq!(origin.latest(SEGMENT).target, format!("{SEGMENT}?part=2"));
}

/// The origin reads one cookie; players, websites and analytics send others.
#[tokio::test]
async fn cookies_that_the_origin_does_not_read_split_no_object_and_reach_no_origin() {
    let media = computed(|request: &Request| {
        let cookies = request.header("cookie").unwrap_or_default();
        segment(format!("[{cookies}]")).cache_control("max-age=60")
    });
    let origin = Origin::start().await.on(SEGMENT, media);
    let rules = "[[route]]\nforward_headers = [\"Cookie\"]\nignore_cookies = [\"_ga*\", \"sid\"]\n";
    let shield = shield(&origin, rules).await;
    let http2 = shield.h2_viewer().await;
    for viewer in 0..20 {
        let of = |tier: &str| format!("_ga={viewer}; tier={tier}; sid={viewer}; _gat=1");
        for tier in ["sd", "hd"] {
            let request = get(SEGMENT).header("Cookie", &of(tier));
            let expected = format!("[tier={tier}]");
            shield.ask(request.clone()).await.assert_whole(&expected);
            http2.ask(request).await.assert_whole(&expected);
        }
        let others = get(SEGMENT).header("Cookie", &format!("sid={viewer}"));
        shield.ask(others).await.assert_whole("[]");
    }
    shield.get(SEGMENT).await.assert_whole("[]");
    assert_eq!(origin.hits(SEGMENT), 3, "sd, hd, and none");
}
