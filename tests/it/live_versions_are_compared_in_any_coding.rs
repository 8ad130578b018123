//! A version of a live playlist that lags is rejected in any content coding.

use std::io::Read;

use seawall_upstream::Balance;

use crate::support::origin::Reply;
use crate::support::shield::endpoint;
use crate::support::{Origin, Response, Shield, get, gzip, manifest, playlist, reply};

const PATH: &str = "/live/index.m3u8";
const UNFIT: &str = "seawall_manifests_unfit_total";

/// The playlist whose first segment has this number, with or without `Vary`.
type Version<'a> = &'a dyn Fn(u64, bool) -> Reply;

/// Stale on arrival, and refreshed in the background.
fn overdue(text: String) -> Reply {
    manifest(text).cache_control("max-age=1").age(1)
}

/// Either or both versions are coded, requested or not, with and without `Vary`.
#[tokio::test]
async fn lagging_playlist_is_rejected_in_any_content_coding() {
    let coded = |first: u64, varies: bool| {
        let reply = reply().content_type("application/vnd.apple.mpegurl");
        let reply = reply.cache_control("max-age=1").age(1);
        let reply = reply.header("Content-Encoding", "gzip");
        let body = gzip(playlist(first).as_bytes());
        if varies {
            reply.header("Vary", "Accept-Encoding").body(body)
        } else {
            reply.body(body)
        }
    };
    let plain = |first, _| overdue(playlist(first));
    let codings: [(Version, Version); 3] = [(&coded, &coded), (&coded, &plain), (&plain, &coded)];
    for (at, (newer, older)) in codings.into_iter().enumerate() {
        for varies in [false, true] {
            let [first, second] = [Origin::start().await, Origin::start().await];
            let first = first.on(PATH, newer(10, varies));
            let second = second.on(PATH, newer(10, varies));
            let shield = Shield::in_front_of(&first).origin(|group| {
                group.balance = Balance::RoundRobin;
                group.endpoints.push(endpoint(&second));
            });
            let shield = shield.start().await;
            let ask = |accepted| get(PATH).header("Accept-Encoding", accepted);
            let shows = async |first: u64| {
                for accepted in ["gzip", "identity"] {
                    let shown = decoded(&shield.ask(ask(accepted)).await);
                    assert_eq!(shown, playlist(first), "{at} {varies} {accepted}");
                }
            };
            shows(10).await;
            for origin in [&first, &second] {
                origin.set_script(PATH, older(9, varies));
            }
            while shield.counter(UNFIT, &[("reason", "behind")]).await < 2 {
                shows(10).await;
            }
            first.set_script(PATH, newer(11, varies));
            let goes_on = |answer: &Response| decoded(answer) == playlist(11);
            shield.repeat_until(ask("gzip"), goes_on).await;
            for _ in 0..10 {
                shows(11).await;
            }
        }
    }
}

/// The decoded text.
fn decoded(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut text = String::new();
    match answer.header("content-encoding") {
        Some(coding) => {
            assert_eq!(coding, "gzip");
            let mut reader = flate2::read::GzDecoder::new(&*answer.body);
            reader.read_to_string(&mut text).unwrap();
        }
        None => text.push_str(answer.text()),
    }
    text
}
