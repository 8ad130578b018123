//! Tests of the pure parts of `benches/shield`: a bench has no test harness of its own.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "the modules are the bench's own, and some of their items are for its reports"
)]

#[path = "../benches/shield/blocked/delays.rs"]
mod delays;
#[path = "../benches/shield/figures.rs"]
mod figures;
#[path = "../benches/shield/audience/plan.rs"]
mod plan;
#[path = "../benches/shield/blocked/playlist.rs"]
mod playlist;
#[path = "../benches/shield/event_loop/response_reader.rs"]
mod response_reader;
#[path = "../benches/shield/audience/timer_wheel.rs"]
mod timer_wheel;

mod audience {
    use std::time::Duration;

    use seawall_manifest::{Kind, read_manifest};

    use crate::plan::{Object, Plan, connections_for, read_mark};
    use crate::timer_wheel::TimerWheel;

    const PLAN: Plan = Plan {
        streams: 4,
        renditions: 3,
        segment: Duration::from_secs(4),
    };

    #[test]
    fn each_url_names_one_object() {
        for playlist in 0..PLAN.playlists() {
            for object in [Object::Playlist(playlist), Object::Segment(playlist, 1_042)] {
                let mut target = Vec::new();
                PLAN.write_target(object, &mut target);
                let target = String::from_utf8(target).unwrap();
                assert_eq!(PLAN.object(&target), Some(object), "{target}");
            }
        }
        assert_eq!(PLAN.object("/live/stream-4/r0/index.m3u8"), None);
    }

    #[test]
    fn a_body_names_itself() {
        let text = PLAN.playlist_text(7, 1_042);
        assert_eq!(read_mark(text.as_bytes()), Some((7, 1_042)));
        let body = PLAN.segment_body(7, 1_042);
        assert_eq!(read_mark(&body), Some((7, 1_042)));
        assert_eq!(body.len(), PLAN.segment_bytes(7));
        assert_eq!(read_mark(&body[..10]), None);
    }

    #[test]
    fn the_playlist_ends_with_the_newest_segment() {
        let read = read_manifest(Kind::Hls, PLAN.playlist_text(0, 1_042).as_bytes()).unwrap();
        assert_eq!(read.info.playlist_edge().unwrap().last_sequence, 1_042);
        assert!(read.info.is_live());
    }

    #[test]
    fn streams_advance_in_real_time_one_after_another() {
        let newest = |playlist, seconds| PLAN.newest(playlist, Duration::from_secs(seconds));
        assert_eq!(newest(0, 0) + 1, newest(0, 4));
        // The second stream is a second ahead, in all its renditions.
        assert_eq!((newest(3, 2), newest(5, 2)), (newest(0, 0), newest(0, 0)));
        assert_eq!((newest(3, 3), newest(5, 3)), (newest(0, 4), newest(0, 4)));
        let (from, until) = (Duration::from_millis(4_500), Duration::from_millis(12_500));
        assert_eq!(PLAN.made_between(from, until), 2 * 12);
    }

    #[test]
    fn viewers_share_connections_where_few_files_may_be_open() {
        assert_eq!(connections_for(50_000, 1 << 20), 50_000);
        assert_eq!(connections_for(50_000, 20_000), 18_900);
        assert_eq!(connections_for(50_000, 1_000), 0);
    }

    #[test]
    fn the_wheel_gives_each_viewer_when_it_is_due() {
        let mut wheel = TimerWheel::new();
        let mut due = Vec::new();
        wheel.add(1, 5);
        wheel.add(2, 4_000);
        wheel.take_due(4, &mut due);
        assert!(due.is_empty());
        wheel.take_due(5, &mut due);
        assert_eq!(due, [1]);
        // What is past is due at once.
        wheel.add(3, 2);
        wheel.take_due(6, &mut due);
        assert_eq!(due, [1, 3]);
        wheel.take_due(3_999, &mut due);
        wheel.add(4, 4_000 + 30_000);
        wheel.take_due(4_000, &mut due);
        assert_eq!(due, [1, 3, 2]);
        wheel.take_due(33_999, &mut due);
        assert_eq!(due.len(), 3);
        wheel.take_due(34_000, &mut due);
        assert_eq!(due, [1, 3, 2, 4]);
    }
}

mod blocked {
    use std::time::{Duration, Instant};

    use seawall_manifest::{Kind, read_manifest};

    use crate::delays::{TurnDelays, cells};
    use crate::playlist::{PARTS_PER_SEGMENT, Version};

    #[test]
    fn a_turn_is_its_first_median_and_last_viewer() {
        let written = Instant::now();
        let done = (1..=100)
            .rev()
            .map(|ms| written + Duration::from_millis(ms));
        let delays = TurnDelays::of(written, done.collect()).unwrap();
        let expected = [1, 51, 100, 100].map(Duration::from_millis);
        let figures = [delays.first, delays.median, delays.p99, delays.last];
        assert_eq!(figures, expected);
        assert_eq!(TurnDelays::of(written, Vec::new()), None);
    }

    #[test]
    fn many_turns_are_their_median_and_the_worst() {
        let written = Instant::now();
        let turn = |ms| TurnDelays::of(written, vec![written + Duration::from_millis(ms)]).unwrap();
        let turns = [turn(9), turn(1), turn(3)];
        assert_eq!(cells(&turns), ["3.0", "3.0", "3.0", "3.0", "9.0"]);
    }

    #[test]
    fn a_request_names_the_version_that_it_waits_for() {
        let mut version = Version::first();
        for _ in 0..2 * PARTS_PER_SEGMENT {
            let next = version.next();
            let target = next.target();
            let (_, query) = target.split_once('?').unwrap();
            assert_eq!(Version::requested(query), Some(next));
            version = next;
        }
    }

    #[test]
    fn the_playlist_has_what_a_request_for_its_version_names() {
        let mut version = Version::first();
        for parts in 0..PARTS_PER_SEGMENT {
            let read = read_manifest(Kind::Hls, version.text().as_bytes()).unwrap();
            let edge = read.info.playlist_edge().unwrap();
            assert_eq!(edge.last_sequence + 1, version.position().0);
            assert_eq!(edge.next_segment_parts, parts);
            assert!(read.info.can_block_reload());
            version = version.next();
        }
    }
}

mod responses {
    use crate::response_reader::{Malformed, ResponseReader, Source};

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nCache-Status: seawall; hit; ttl=3\r\n\
                       Content-Length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
                         Cache-Status: seawall; fwd=miss; collapsed\r\n\r\n\
                         3\r\nhel\r\nc;x=1\r\nlo, viewers!\r\n0\r\n\r\n";

    fn reader_of(response: &[u8], piece_bytes: usize) -> ResponseReader {
        let mut reader = ResponseReader::default();
        for piece in response.chunks(piece_bytes) {
            assert!(!reader.is_whole());
            reader.read(piece).unwrap();
        }
        reader
    }

    #[test]
    fn reads_a_response_in_pieces_of_any_size() {
        for piece_bytes in 1..=CHUNKED.len() {
            let reader = reader_of(PLAIN, piece_bytes);
            assert!(reader.is_whole());
            assert_eq!(reader.start(), b"hello");
            assert_eq!((reader.status(), reader.source()), (200, Source::Memory));

            let reader = reader_of(CHUNKED, piece_bytes);
            assert!(reader.is_whole());
            assert_eq!(reader.start(), b"hello, viewers!");
            assert_eq!((reader.body_bytes(), reader.source()), (15, Source::Joined));
        }
    }

    #[test]
    fn a_cut_response_is_not_whole() {
        for response in [PLAIN, CHUNKED] {
            for end in 0..response.len() {
                let mut reader = ResponseReader::default();
                reader.read(&response[..end]).unwrap();
                assert!(!reader.is_whole(), "whole after {end} bytes");
            }
        }
    }

    #[test]
    fn begins_anew_on_the_same_connection() {
        let mut reader = reader_of(CHUNKED, 7);
        reader.begin();
        reader.read(PLAIN).unwrap();
        assert!(reader.is_whole());
        assert_eq!(reader.start(), b"hello");
    }

    #[test]
    fn rejects_bytes_after_the_end() {
        let mut reader = reader_of(PLAIN, 1000);
        assert_eq!(reader.read(b"more"), Err(Malformed));
    }
}
