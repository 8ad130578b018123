//! With memory for a third of a live stream's segments, segments at the live edge stay stored until
//! viewers request them, and hardly any is fetched twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use seawall::config::Config;

use crate::support::metrics::{FILLS, STORED_BYTES};
use crate::support::origin::Reply;
use crate::support::viewer::Viewer;
use crate::support::{
    Origin, Response, Shield, computed, eventually, get, noise, reply, segment, status,
};

const MPD: &str = "/live/a.mpd";
const REPRESENTATIONS: [&str; 3] = ["hd", "sd", "en"];
const SEGMENT: usize = 16 << 10;
/// Segments of each representation in a run.
const SEGMENTS: u64 = 90;
/// How many segments the two viewers are behind the newest one.
const BEHIND: [u64; 2] = [3, 4];
/// A viewer rewinds once in this many segments.
const REWINDS_EVERY: u64 = 5;
const STEP: Duration = Duration::from_millis(80);

/// An MPD of all representations.
fn mpd(attributes: &str, template: &str) -> String {
    let of = |id: &&str| format!("<Representation id=\"{id}\" bandwidth=\"1\"/>");
    let representations: String = REPRESENTATIONS.iter().map(of).collect();
    format!(
        "<MPD type=\"dynamic\" availabilityStartTime=\"1970-01-01T00:00:00Z\" {attributes}>\
         <Period id=\"0\" start=\"PT0S\"><AdaptationSet mimeType=\"video/mp4\">{template}\
         {representations}</AdaptationSet></Period></MPD>"
    )
}

/// Segments by number, available by the clock.
fn by_number(attributes: &str) -> String {
    let step = STEP.as_millis();
    mpd(
        &format!("minimumUpdatePeriod=\"PT1H\" {attributes}"),
        &format!(
            "<SegmentTemplate timescale=\"1000\" duration=\"{step}\" startNumber=\"0\" \
             media=\"$RepresentationID$/$Number$.m4s\"/>"
        ),
    )
}

/// Segments of a tenth of a second that are listed, by time.
fn by_time(attributes: &str, first: u64, last: u64) -> String {
    let (start, more) = (first, last - first);
    mpd(
        &format!("minimumUpdatePeriod=\"PT0.1S\" {attributes}"),
        &format!(
            "<SegmentTemplate timescale=\"10\" media=\"$RepresentationID$/$Time$.m4s\">\
             <SegmentTimeline><S t=\"{start}\" d=\"1\" r=\"{more}\"/></SegmentTimeline>\
             </SegmentTemplate>"
        ),
    )
}

fn dash(text: String) -> Reply {
    reply().content_type("application/dash+xml").body(text)
}

/// Memory for a third of all segments.
async fn shield(origin: &Origin) -> Shield {
    let all = SEGMENTS * REPRESENTATIONS.len() as u64 * SEGMENT as u64;
    let memory = |config: &mut Config| config.cache.memory_bytes = all / 3;
    Shield::in_front_of(origin).with(memory).start().await
}

/// Viewers of all representations.
struct Audience {
    viewer: Viewer,
    asked: usize,
    /// Segments that were fetched again for them.
    again: Vec<String>,
}

impl Audience {
    async fn of(shield: &Shield) -> Audience {
        Audience {
            viewer: shield.viewer().await,
            asked: 0,
            again: Vec::new(),
        }
    }

    /// Requests the segments behind the newest one; `old` is a number that a viewer rewinds to.
    async fn watch(
        &mut self,
        origin: &Origin,
        (newest, old): (u64, Option<u64>),
        name: impl Fn(&str, u64) -> String,
    ) {
        for representation in REPRESENTATIONS {
            for behind in BEHIND {
                let name = name(representation, newest - behind);
                self.viewer
                    .get(&name)
                    .await
                    .assert_whole(noise(newest - behind, SEGMENT));
                self.asked += 1;
                if origin.hits(&name) > 1 {
                    self.again.push(name);
                }
            }
            if let Some(old) = old {
                self.viewer.get(&name(representation, old)).await;
            }
        }
    }

    async fn missed_nothing(self, shield: &Shield) {
        let Audience { asked, again, .. } = self;
        assert!(
            again.len() * 200 <= asked,
            "of {asked} requests again {again:?}"
        );
        let evicted = shield.counter("seawall_store_evictions_total", &[("reason", "live")]);
        let departed = shield.counter("seawall_store_evictions_total", &[("reason", "departed")]);
        assert!(evicted.await + departed.await > SEGMENTS, "memory was full");
        assert!(shield.gauge(STORED_BYTES).await > 0);
    }
}

/// Now and then a viewer rewinds half way, if that segment still exists.
fn rewind(index: u64, there: u64) -> Option<u64> {
    let back = index / 2;
    (index.is_multiple_of(REWINDS_EVERY) && back > 8 && back < there).then_some(back)
}

/// The newest segment that exists.
fn newest() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis() / STEP.as_millis()).unwrap() - 1
}

/// `there`: how many segments exist at the origin.
async fn is_watched_by_number(attributes: &str, there: u64) {
    let origin = Origin::start().await.on(MPD, dash(by_number(attributes)));
    let name = |id: &str, number: u64| format!("/live/{id}/{number}.m4s");
    let first = newest();
    for number in first - 10..first + SEGMENTS + 60 {
        for id in REPRESENTATIONS {
            let there = move |_: &_| {
                if newest() >= number {
                    segment(noise(number, SEGMENT))
                } else {
                    status(404)
                }
            };
            origin.set_script(&name(id, number), computed(there));
        }
    }
    let shield = shield(&origin).await;
    shield.get(MPD).await;
    let mut audience = Audience::of(&shield).await;
    let begun = newest();
    for index in 0..SEGMENTS {
        let number = begun + index;
        eventually("the next segment", async || newest() >= number).await;
        let old = rewind(index, there).map(|back| number - back);
        audience.watch(&origin, (number, old), name).await;
    }
    audience.missed_nothing(&shield).await;
}

#[tokio::test]
async fn numbered_mpd_without_window_keeps_live_edge_stored() {
    is_watched_by_number("", u64::MAX).await;
}

#[tokio::test]
async fn numbered_mpd_with_window_keeps_live_edge_stored() {
    let depth = STEP * 60;
    let depth = format!("timeShiftBufferDepth=\"PT{}S\"", depth.as_secs_f64());
    is_watched_by_number(&depth, 60).await;
}

/// `listed`: how many segments the MPD lists.
async fn is_watched_by_time(attributes: &str, listed: u64) {
    const BEGIN: u64 = 10;
    let mut origin = Origin::start().await;
    let name = |id: &str, number: u64| format!("/live/{id}/{number}.m4s");
    for number in 1..=BEGIN + SEGMENTS {
        for id in REPRESENTATIONS {
            origin = origin.on(&name(id, number), segment(noise(number, SEGMENT)));
        }
    }
    let text = |newest: u64| by_time(attributes, newest.saturating_sub(listed).max(1), newest);
    let version = |newest| dash(text(newest)).cache_control("max-age=1").age(1);
    origin.set_script(MPD, version(BEGIN));
    let shield = shield(&origin).await;
    shield.get(MPD).await;
    let mut audience = Audience::of(&shield).await;
    for newest in BEGIN..=BEGIN + SEGMENTS {
        origin.set_script(MPD, version(newest));
        let listed_now = text(newest);
        let is_newest = |answer: &Response| answer.text() == listed_now;
        shield.repeat_until(get(MPD), is_newest).await;
        shield.wait_gauge(FILLS, |fills| fills == 0).await;
        let old = rewind(newest - BEGIN, listed).map(|back| newest - back);
        audience.watch(&origin, (newest, old), name).await;
    }
    audience.missed_nothing(&shield).await;
}

#[tokio::test]
async fn timeline_mpd_without_window_keeps_live_edge_stored() {
    is_watched_by_time("", u64::MAX).await;
}

#[tokio::test]
async fn timeline_mpd_with_window_keeps_live_edge_stored() {
    is_watched_by_time("timeShiftBufferDepth=\"PT6S\"", 60).await;
}
