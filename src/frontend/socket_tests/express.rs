//! Requests answered from memory before hyper reads them: the bytes are the same as hyper's.

use std::time::Duration;

use bytes::Bytes;

use crate::frontend::Limits;
use crate::frontend::test_support::{AtHand, Scene, Viewer, until};
use crate::proxy::{ResponseBody, ViewerRequest};

/// `/here…` is answered from memory with its path as the body. hyper answers other paths, with an
/// empty body.
fn scene() -> Scene {
    let here = |arrival: &ViewerRequest| {
        let path = arrival.uri.path().to_owned();
        let here = path.starts_with("/here");
        here.then(|| ResponseBody::Whole(Some(Bytes::from(path + "."))))
    };
    Scene::serve(Limits::default(), None, AtHand(here))
}

async fn get(viewer: &mut Viewer, path: &str) -> String {
    viewer
        .say(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    let end = if path.starts_with("/here") {
        format!("{path}.")
    } else {
        "\r\n\r\n".to_owned()
    };
    viewer.hear_until(&end).await
}

fn at_hand(heard: &str) -> bool {
    heard.contains("\r\nat-hand: 1\r\n")
}

#[tokio::test]
async fn what_is_at_hand_is_told_like_any_answer() {
    let scene = scene();
    let mut viewer = Viewer::meet(&scene).await;
    for _ in 0..3 {
        let heard = get(&mut viewer, "/here").await;
        assert!(at_hand(&heard), "{heard}");
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
        assert!(heard.contains("\r\ncontent-length: 6\r\n"), "{heard}");
        assert!(heard.contains("\r\ndate: "), "{heard}");
    }
    until("told", || scene.tales.count() == 3).await;
    for tale in scene.tales.take() {
        assert!(tale.bytes == 6 && tale.cut_by.is_none());
        assert!(!tale.head_time.is_zero());
    }
}

#[tokio::test]
async fn after_an_answer_of_hypers_the_next_may_be_at_hand_again() {
    let scene = scene();
    let mut viewer = Viewer::meet(&scene).await;
    for _ in 0..3 {
        assert!(!at_hand(&get(&mut viewer, "/away").await));
        assert!(at_hand(&get(&mut viewer, "/here").await));
    }
}

#[tokio::test]
async fn half_a_head_makes_the_connection_hypers_for_good() {
    let scene = scene();
    let mut viewer = Viewer::meet(&scene).await;
    let first = "GET /here/1 HTTP/1.1\r\nhost: a\r\n\r\n";
    viewer.say(&format!("{first}GET /here/2 HT")).await;
    viewer.hear_until("/here/1.").await;
    viewer.say("TP/1.1\r\nhost: a\r\n\r\n").await;
    viewer.hear_until("/here/2.").await;
    assert!(!at_hand(&get(&mut viewer, "/here/3").await));
}

/// If a request were parsed in the middle of another head, a viewer could inject responses that a
/// proxy in front would assign to other clients.
#[tokio::test]
async fn a_request_inside_another_ones_head_is_none() {
    let scene = scene();
    let mut viewer = Viewer::meet(&scene).await;
    let first = "GET /here/1 HTTP/1.1\r\nhost: a\r\n\r\n";
    viewer
        .say(&format!("{first}GET /here/2 HTTP/1.1\r\nhost: a\r\nx: "))
        .await;
    viewer.hear_until("/here/1.").await;
    viewer.say("GET /here/3 HTTP/1.1\r\nb: c\r\n\r\n").await;
    let heard = viewer.hear_until("/here/2.").await;
    assert!(!heard.contains("/here/3"), "{heard}");
}

#[tokio::test]
async fn a_request_behind_a_body_is_answered_after_it() {
    let scene = scene();
    let mut viewer = Viewer::meet(&scene).await;
    let body = "GET /here/no HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = body.len();
    viewer
        .say(&format!(
            "GET /away HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
    viewer.say(body).await;
    viewer.hear_until("\r\n\r\n").await;
    let heard = get(&mut viewer, "/here/yes").await;
    assert!(heard.starts_with("HTTP/1.1 200 OK"), "{heard}");
    assert!(!heard.contains("/here/no"), "{heard}");
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let scene = scene();
    let mut viewer = Viewer::meet(&scene).await;
    let paths = ["/here/1", "/away", "/here/2", "/away", "/here/3"];
    for path in paths {
        viewer
            .say(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
    }
    for end in ["/here/1.", "/here/2.", "/here/3."] {
        viewer.hear_until(end).await;
    }
    until("told", || scene.tales.count() == paths.len()).await;
}

#[tokio::test]
async fn a_large_answer_leaves_whole_before_the_next() {
    const LENGTH: usize = 9 << 20;
    let large = |arrival: &ViewerRequest| match arrival.uri.path() {
        "/large" => Some(ResponseBody::Whole(Some(Bytes::from(vec![b'x'; LENGTH])))),
        _ => None,
    };
    let scene = Scene::serve(Limits::default(), None, AtHand(large));
    let mut viewer = Viewer::meet(&scene).await;
    viewer.say("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    viewer
        .say("GET /away HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    let (heard, proper) = viewer.hear_out().await;
    let body = heard.find("\r\n\r\n").unwrap() + 4;
    let rest = heard[body..].trim_start_matches('x');
    assert_eq!(heard.len() - body - rest.len(), LENGTH);
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && proper, "{rest}");
    let tales = scene.tales.take();
    assert_eq!((tales[0].bytes, tales[0].cut_by), (LENGTH as u64, None));
}

#[tokio::test]
async fn a_head_over_a_limit_is_refused_though_its_answer_is_at_hand() {
    let scene = scene();
    let mut viewer = Viewer::meet(&scene).await;
    let field = "x".repeat(9000);
    viewer
        .say(&format!("GET /here/{field} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    assert!(viewer.hear_out().await.0.starts_with("HTTP/1.1 414 "));
}

#[tokio::test]
async fn small_pieces_leave_together_and_in_order() {
    let pieces = |_: &ViewerRequest| {
        let pieces = ["one, ", "two, ", "three."];
        Some(ResponseBody::Pieces(pieces.map(Bytes::from).into()))
    };
    let scene = Scene::serve(Limits::default(), None, AtHand(pieces));
    let mut viewer = Viewer::meet(&scene).await;
    viewer.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let heard = viewer.hear_until("three.").await;
    assert!(at_hand(&heard), "{heard}");
    assert!(heard.contains("\r\ncontent-length: 16\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\none, two, three."), "{heard}");
    until("told", || scene.tales.count() == 1).await;
    assert_eq!(scene.tales.take()[0].bytes, 16);
}

/// The time to the head is Seawall's; the time to the end is the viewer's.
#[tokio::test]
async fn a_slow_viewer_does_not_make_the_head_late() {
    let large = |_: &ViewerRequest| Some(ResponseBody::Whole(Some(Bytes::from(vec![0; 64 << 20]))));
    let limits = Limits {
        send_rate_window: Duration::from_millis(100),
        ..Limits::default()
    };
    let scene = Scene::serve(limits, None, AtHand(large));
    let mut viewer = Viewer::meet(&scene).await;
    viewer.say("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until("cut", || scene.tales.count() == 1).await;
    let tale = scene.tales.take().remove(0);
    assert!(tale.cut_by.is_some() && tale.head_time < tale.total_time);
}
