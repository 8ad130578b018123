//! A purge that names an origin, a host or a stream that is not there is answered with those that
//! are, and one that is written wrongly with what is wrong.

use crate::support::operated::Operated;
use crate::support::{Origin, Shield, ask, manifest, playlist, segment};

#[tokio::test]
async fn unknown_names_are_answered_with_those_that_are_known() {
    let origin = Origin::start()
        .await
        .on("/live/a.m3u8", manifest(playlist(1)))
        .on("/live/seg1.ts", segment("x"))
        .on("/live/seg2.ts", segment("x"))
        .on("/live/seg3.ts", segment("x"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.hosts = vec!["media.test".to_owned(), "*.b.test".to_owned()])
        .start()
        .await;
    let why = async |query: &str| {
        let answer = shield.admin(ask("POST", &format!("/purge?{query}"))).await;
        let told: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer.status, 404, "{query}: {told}");
        assert_eq!(told["objects"], 0, "{query}: {told}");
        told["error"].as_str().expect("why").to_owned()
    };
    let hosts = "\"c.test\": routes serve *.b.test, media.test";
    for scope in ["url", "path", "prefix", "stream"] {
        let text = why(&format!("{scope}=http://c.test/a.m3u8")).await;
        assert!(text.contains(hosts), "{scope}: {text}");
    }
    let text = why("host=c.test").await;
    assert!(text.contains(hosts), "{text}");
    let text = why("tag=a&origin=none").await;
    assert!(text.contains("\"none\": the origins are only"), "{text}");
    let unknown = "stream=http://media.test/other/none.m3u8";
    let text = why(unknown).await;
    assert!(text.contains("no live stream is known"), "{text}");
    for _ in 0..2 {
        assert_eq!(shield.get("/live/a.m3u8").await.status, 200);
    }
    let text = why(unknown).await;
    assert!(text.contains("known are /live/a.m3u8"), "{text}");
}

#[tokio::test]
async fn command_says_what_is_wrong() {
    let operated = Operated::start("").await;
    for (words, part) in [
        ("purge --host media.test:8080", "a host name without a port"),
        ("purge media.test/a.ts", "an absolute http or https URL"),
        ("purge --tag a --origin none", "the origins are only"),
        (
            "purge --stream http://a/none.m3u8",
            "this stream is not known",
        ),
    ] {
        let ended = operated.command(words).await;
        assert_eq!(ended.status.code(), Some(1), "{words}");
        let error = String::from_utf8(ended.stderr).expect("text");
        assert!(error.starts_with("error: "), "{words}: {error}");
        assert!(error.contains(part), "{words}: {error}");
    }
}
