//! On a manual clock, the simulated origin serves exactly what its plan says, in each packaging and
//! under each fault.

use std::time::Duration;

use seawall_simulator::{
    Broadcast, BroadcastPlan, Clock, ClockControl, DemoRendition, Packaging, Resource,
    ResourceKind, SimulatedOrigin, Utc,
};
use tokio::task::JoinHandle;

use crate::support::viewer::{Ask, Viewer};
use crate::support::{Arriving, End, Response, eventually, get};

const START: Utc = Duration::from_secs(1_750_000_000);
const PART: Duration = Duration::from_nanos(333_333_334);

/// Twenty segments and two parts exist.
fn on_air() -> (SimulatedOrigin, ClockControl) {
    let (clock, hand) = Clock::manual(START + Duration::from_secs(40) + 2 * PART);
    (
        SimulatedOrigin::start(BroadcastPlan::from(START), clock).unwrap(),
        hand,
    )
}

async fn asked(origin: &SimulatedOrigin, target: &str) -> Response {
    Viewer::connect(origin.address()).await.get(target).await
}

async fn begun(origin: &SimulatedOrigin, target: &str) -> Arriving {
    let viewer = Viewer::connect(origin.address()).await;
    viewer.begin(get(target)).await
}

/// A request that must wait: it is in progress when this returns.
async fn waiting(origin: &SimulatedOrigin, target: &str) -> JoinHandle<Response> {
    waiting_for(origin, target, get(target)).await
}

async fn waiting_for(origin: &SimulatedOrigin, target: &str, ask: Ask) -> JoinHandle<Response> {
    let address = origin.address();
    let answer = tokio::spawn(async move { Viewer::connect(address).await.ask(ask).await });
    eventually("the request to arrive", async || {
        origin.request_log().count_of_target(target).in_flight == 1
    })
    .await;
    answer
}

fn whole(
    broadcast: &Broadcast,
    form: Packaging,
    rendition: DemoRendition,
    segment: u64,
) -> bytes::Bytes {
    match form {
        Packaging::Ts => broadcast.ts_segment(rendition, segment),
        _ => broadcast.segment(rendition, segment),
    }
}

/// Everything that an HLS player would request from the entry playlist exists, with the planned
/// bytes.
#[tokio::test]
async fn every_uri_in_hls_playlists_serves_planned_bytes() {
    let (origin, _hand) = on_air();
    for form in Packaging::ALL.into_iter().filter(|form| !form.is_dash()) {
        let entry = asked(&origin, &form.entry()).await;
        assert_eq!(entry.header("cache-control"), Some("max-age=1"));
        for rendition in DemoRendition::ALL
            .into_iter()
            .filter(|one| form.has_rendition(*one))
        {
            let uri = format!("{}/index.m3u8", rendition.name());
            assert!(entry.assert_200_text().contains(&uri), "{form:?}");
            let playlist = Resource::Playlist(form, rendition).path();
            let response = asked(&origin, &playlist).await;
            let named: Vec<&str> = response
                .assert_200_text()
                .lines()
                .filter(|line| !line.starts_with('#'))
                .collect();
            assert_eq!(named.len(), 10);
            for (segment, name) in (10..).zip(named) {
                let place = Resource::Segment(form, rendition, segment).path();
                assert!(
                    place.ends_with(&format!("/{name}")),
                    "{place} is not {name}"
                );
                let expected = whole(origin.broadcast(), form, rendition, segment);
                let got = asked(&origin, &place).await;
                got.assert_whole(&expected);
                assert_eq!(got.header("cache-control"), Some("max-age=1209600"));
            }
            if form != Packaging::Ts {
                let init = asked(&origin, &Resource::Init(form, rendition).path()).await;
                init.assert_whole(origin.broadcast().init(rendition));
            }
        }
    }
    assert_eq!(origin.request_log().duplicates(), []);
}

/// Timeline times and segment numbers name the same segments.
#[tokio::test]
async fn mpd_times_and_numbers_name_existing_segments_only() {
    let (origin, hand) = on_air();
    let response = asked(&origin, &Packaging::Timeline.entry()).await;
    assert!(
        response
            .assert_200_text()
            .contains("<S t=\"600000\" d=\"60000\" r=\"9\"/>")
    );
    for rendition in DemoRendition::ALL {
        let (ticks, _) = origin.broadcast().segment_ticks(rendition, 19);
        let expected = origin.broadcast().segment(rendition, 19);
        for place in [
            Resource::Segment(Packaging::Timeline, rendition, ticks),
            Resource::Segment(Packaging::Number, rendition, 19),
            Resource::Segment(Packaging::Chunked, rendition, 19),
        ] {
            asked(&origin, &place.path()).await.assert_whole(&expected);
        }
    }
    let next = Resource::Segment(Packaging::Number, DemoRendition::Low, 20).path();
    assert_eq!(asked(&origin, &next).await.status, 404);
    hand.advance(Duration::from_secs(2));
    assert_eq!(asked(&origin, &next).await.status, 200);
    let time = asked(&origin, "/time").await;
    assert_eq!(time.assert_200_text(), "2025-06-15T15:07:22.666Z");
    assert_eq!(time.header("cache-control"), Some("no-store"));
}

/// LL-DASH: a segment is sent chunk by chunk as it is made, and does not exist before that.
#[tokio::test]
async fn ll_dash_segment_is_sent_chunk_by_chunk() {
    let (origin, hand) = on_air();
    let place =
        |segment| Resource::Segment(Packaging::Chunked, DemoRendition::High, segment).path();
    assert_eq!(asked(&origin, &place(21)).await.status, 404);
    let chunk = |part| origin.broadcast().part(DemoRendition::High, 20, part);
    let mut growing = begun(&origin, &place(20)).await;
    let made = [chunk(0), chunk(1)].concat();
    assert_eq!(growing.read(made.len()).await, made);
    for part in 2..6 {
        hand.advance(PART);
        let chunk = chunk(part);
        assert_eq!(growing.read(chunk.len()).await, chunk);
    }
    let rest = growing.finish().await;
    assert_eq!(rest.end, End::Whole);
    asked(&origin, &place(20))
        .await
        .assert_whole(origin.broadcast().segment(DemoRendition::High, 20));
}

/// LL-HLS: a blocking request is answered when its part exists, and so is a hinted part.
#[tokio::test]
async fn blocking_reload_and_hinted_part_wait_until_produced() {
    let (origin, hand) = on_air();
    let playlist = Resource::Playlist(Packaging::LowLatency, DemoRendition::Low).path();
    let now = asked(&origin, &playlist).await;
    assert!(now.assert_200_text().contains("TYPE=PART,URI=\"20.2.m4s\""));
    assert_eq!(now.header("cache-control"), Some("max-age=1"));

    let hinted = Resource::Part(Packaging::LowLatency, DemoRendition::Low, 20, 2).path();
    let text = waiting(&origin, &format!("{playlist}?_HLS_msn=20&_HLS_part=2")).await;
    let part = waiting(&origin, &hinted).await;
    hand.advance(PART);
    let text = text.await.unwrap();
    assert!(
        text.assert_200_text().contains("URI=\"20.2.m4s\"\n"),
        "{}",
        text.text()
    );
    assert!(text.text().contains("TYPE=PART,URI=\"20.3.m4s\""));
    let bytes = origin.broadcast().part(DemoRendition::Low, 20, 2);
    part.await.unwrap().assert_whole(&bytes);

    let status = async |query: &str| asked(&origin, &format!("{playlist}?{query}")).await.status;
    assert_eq!(status("_HLS_msn=23").await, 400);
    assert_eq!(status("_HLS_part=1").await, 400);
    let beyond = Resource::Part(Packaging::LowLatency, DemoRendition::Low, 20, 5).path();
    assert_eq!(asked(&origin, &beyond).await.status, 404);
    // A whole segment without an end: a request that waits for it gets an error.
    origin.control().stall();
    let never = waiting(&origin, &format!("{playlist}?_HLS_msn=20")).await;
    hand.advance(Duration::from_secs(6));
    assert_eq!(never.await.unwrap().status, 503);
}

/// LL-HLS with byte ranges: the parts are ranges of the segment, and together the whole of it.
#[tokio::test]
async fn ll_hls_part_ranges_together_are_the_segment() {
    let (origin, hand) = on_air();
    let place = Resource::Segment(Packaging::LowLatencyRanges, DemoRendition::Audio, 20).path();
    let (address, mut joined) = (origin.address(), Vec::new());
    for part in 0..6 {
        let expected = origin.broadcast().part(DemoRendition::Audio, 20, part);
        let (first, last) = (joined.len(), joined.len() + expected.len() - 1);
        let ask = get(&place).range(&format!("{first}-{last}"));
        let answer = if part < 2 {
            tokio::spawn(async move { Viewer::connect(address).await.ask(ask).await })
        } else {
            let waiting = waiting_for(&origin, &place, ask).await;
            hand.advance(PART);
            waiting
        };
        answer.await.unwrap().assert_is(206, &expected);
        joined.extend_from_slice(&expected);
    }
    asked(&origin, &place).await.assert_whole(&joined);
    assert_eq!(joined, origin.broadcast().segment(DemoRendition::Audio, 20));
}

/// Time faults: each shows what was true at another moment.
#[tokio::test]
async fn time_faults_show_the_stream_at_another_time() {
    let (origin, hand) = on_air();
    let twin = origin.twin(2).unwrap();
    let playlist = Resource::Playlist(Packaging::Cmaf, DemoRendition::Low).path();
    let last = async |origin: &SimulatedOrigin| -> u64 {
        let response = asked(origin, &playlist).await;
        let last = response
            .assert_200_text()
            .lines()
            .last()
            .unwrap()
            .to_owned();
        last.trim_end_matches(".m4s").parse().unwrap()
    };
    let segment = |number| Resource::Segment(Packaging::Cmaf, DemoRendition::Low, number).path();
    let control = origin.control();
    assert_eq!((last(&origin).await, last(&twin).await), (19, 17));
    assert_eq!(asked(&twin, &segment(18)).await.status, 404);
    let same = origin.broadcast().segment(DemoRendition::Low, 17);
    asked(&twin, &segment(17)).await.assert_whole(&same);

    control.set(|faults| faults.back = 3);
    assert_eq!(last(&origin).await, 16);
    control.heal();
    control.set(|faults| faults.late = Duration::from_secs(4));
    assert_eq!(last(&origin).await, 17);
    assert_eq!(asked(&origin, &segment(18)).await.status, 404);
    control.heal();
    control.set(|faults| faults.missing = Duration::from_secs(1));
    assert_eq!(asked(&origin, &segment(19)).await.status, 404);
    hand.advance(Duration::from_secs(1));
    assert_eq!(asked(&origin, &segment(19)).await.status, 200);
    control.heal();
    control.stall();
    hand.advance(Duration::from_secs(6));
    assert_eq!((last(&origin).await, last(&twin).await), (19, 20));
    control.heal();
    assert_eq!(last(&origin).await, 22);

    control.restart();
    assert_eq!(last(&origin).await, 0);
    let reused = asked(&origin, &segment(0)).await;
    assert_ne!(
        reused.body,
        origin.broadcast().segment(DemoRendition::Low, 0)
    );
}

/// Other faults: truncated, refused, slow.
#[tokio::test]
async fn cut_refuse_and_slow_faults_take_effect() {
    let (origin, hand) = on_air();
    let control = origin.control();
    let place = Resource::Segment(Packaging::Ts, DemoRendition::Low, 19).path();
    let playlist = Resource::Playlist(Packaging::Ts, DemoRendition::Low).path();
    let whole = origin.broadcast().ts_segment(DemoRendition::Low, 19);
    control.set(|faults| faults.cut_media = true);
    let cut = asked(&origin, &place).await;
    cut.assert_cut(&whole);
    assert_eq!(cut.body, whole[..whole.len() / 2]);
    control.heal();
    let text = asked(&origin, &playlist).await;
    control.set(|faults| faults.cut_manifests = true);
    let half = &text.body[..text.body.len() / 2];
    asked(&origin, &playlist).await.assert_whole(half);
    control.heal();
    control.set(|faults| faults.refused_percent = 50);
    let mut refused = 0;
    for _ in 0..10 {
        refused += u32::from(asked(&origin, &playlist).await.status == 503);
    }
    assert_eq!(refused, 5);
    control.heal();
    control.set(|faults| faults.slow = Duration::from_secs(2));
    let slow = waiting(&origin, &playlist).await;
    hand.advance(Duration::from_secs(2));
    assert_eq!(slow.await.unwrap().status, 200);
}

/// Faults are switched by URL; these requests are not counted as the stream's.
#[tokio::test]
async fn faults_can_be_switched_by_url() {
    let (origin, _hand) = on_air();
    let order = |target: &str| crate::support::ask("POST", target);
    let address = origin.address();
    let posted = async |target: &str| {
        let mut viewer = Viewer::connect(address).await;
        viewer.ask(order(target)).await.status
    };
    assert_eq!(posted("/control?refuse=100").await, 200);
    assert_eq!(asked(&origin, &Packaging::Ts.entry()).await.status, 503);
    assert_eq!(posted("/control?heal").await, 200);
    assert_eq!(asked(&origin, &Packaging::Ts.entry()).await.status, 200);
    assert_eq!(posted("/control?wrong=1").await, 400);
    assert_eq!(
        origin
            .request_log()
            .count_of_kind(ResourceKind::Multivariant)
            .requests,
        2
    );
    assert_eq!(origin.request_log().requests(), 2);
}

/// Revalidation and HEAD, as for any object.
#[tokio::test]
async fn etag_gets_304_and_head_gets_content_length() {
    let (origin, _hand) = on_air();
    let place = Resource::Segment(Packaging::Cmaf, DemoRendition::High, 19).path();
    let first = asked(&origin, &place).await;
    let etag = first.header("etag").unwrap().to_owned();
    let mut viewer = Viewer::connect(origin.address()).await;
    let again = viewer.ask(get(&place).header("If-None-Match", &etag)).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let head = viewer.ask(crate::support::head(&place)).await;
    let length = first.body.len().to_string();
    assert_eq!(head.header("content-length"), Some(length.as_str()));
}
