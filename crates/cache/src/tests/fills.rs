//! Bodies in progress: what a fill holds, in which pieces, and the cost of its readers.

use super::*;
use crate::flight::{Flight, FlightStage};

#[test]
fn body_above_object_bytes_max_streams_through_window() {
    let cache = Cache::new(Settings {
        object_bytes_max: 1000,
        ..Settings::default()
    });
    let (fill, follower) = lead(&cache, &HeaderMap::new());
    let mut reader = Reader::new(follower);
    fill.begin(Arc::new(head()));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        let mut push = std::pin::pin!(fill.push(Bytes::from(vec![7; 20_000])));
        assert!(push.as_mut().poll(&mut cx).is_ready());
        reader.read();
        // Only the window is charged, and it is small.
        assert!(cache.stats().fill_bytes <= 40_000);
    }
    finish(fill);
    reader.read();
    assert_eq!((reader.read.len(), reader.end), (2_000_000, Some(Ok(()))));
    assert!(look(&cache).object.is_none());
}

/// Low-latency players request each version under a key of its own, all at once. The newest version
/// is also stored under the key of the playlist.
#[test]
fn older_playlist_versions_are_evicted_before_the_newest() {
    let cache = Cache::new(Settings {
        memory_bytes: 256 << 10,
        ..Settings::default()
    });
    let (newest, directory) = (Key::of(&[b"i.m3u8"]), Key::of(&[b"states"]));
    for number in 0..100_u32 {
        let upstream = HeaderMap::new();
        let name = Key::of(&[b"i.m3u8", &number.to_be_bytes()]);
        let lookup = cache.lookup(&name, Kind::Hls, Instant::now(), HeaderMap::new);
        let JoinOutcome::Lead(fill, _leader) = cache.join(&lookup, &upstream) else {
            panic!("expected to lead");
        };
        let _players: [_; 5] = std::array::from_fn(|_| cache.join(&lookup, &upstream));
        let version = StoredHead {
            kind: Kind::Hls,
            epoch_token: Some(cache.bind_epoch(Some(&directory), None)),
            ..head()
        };
        let version = Arc::new(Object::new(version, Bytes::from(vec![b'#'; 8 << 10])));
        cache.store_under(&newest, Kind::Hls, &version);
        assert_eq!(
            fill.store_and_publish(&version, Verdict::Object(Arc::clone(&version))),
            StoreOutcome::Stored
        );
        let held = cache
            .lookup(&newest, Kind::Hls, Instant::now(), HeaderMap::new)
            .object;
        assert!(held.is_some(), "version {number}");
    }
}

#[test]
fn stops_fill_without_readers_that_is_too_large_to_store() {
    let cache = Cache::new(Settings {
        object_bytes_max: 10,
        ..Settings::default()
    });
    let (fill, follower) = lead(&cache, &HeaderMap::new());
    fill.begin(Arc::new(head()));
    drop(follower);
    let mut cx = Context::from_waker(Waker::noop());
    let mut push = std::pin::pin!(fill.push(Bytes::from_static(&[7; 500])));
    assert_eq!(push.as_mut().poll(&mut cx), Poll::Ready(FillControl::Stop));
}

#[tokio::test(start_paused = true)]
async fn fill_that_exhausts_budget_midway_returns_all_of_it() {
    let cache = Cache::new(Settings {
        fill_bytes_max: 1000,
        ..Settings::default()
    });
    let (fill, follower) = lead(&cache, &HeaderMap::new());
    let mut reader = Reader::new(follower);
    fill.begin(Arc::new(head()));
    assert!(cache.inner.budget.take(0, 900));
    for piece in 0..10 {
        assert_eq!(
            fill.push(Bytes::from_static(&[7; 60])).await,
            FillControl::Continue
        );
        reader.read();
        if piece == 3 {
            cache.inner.budget.give_back(900);
        }
    }
    fill.finish().await;
    assert_eq!((cache.stats().windowed, cache.stats().fill_bytes), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn fill_waits_briefly_for_budget_and_is_stored_when_freed() {
    let cache = Cache::new(Settings {
        fill_bytes_max: 1000,
        ..Settings::default()
    });
    let (fill, _follower) = lead(&cache, &HeaderMap::new());
    fill.begin(Arc::new(head()));
    assert!(cache.inner.budget.take(0, 900));
    let give_back = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cache.inner.budget.give_back(900);
    };
    tokio::join!(fill.push(Bytes::from_static(&[7; 600])), give_back);
    fill.finish().await;
    assert_eq!(cache.stats().windowed, 0);
    assert!(look(&cache).object.is_some());
}

#[tokio::test]
async fn single_byte_chunks_are_merged_and_read_completely() {
    const PIECES: usize = 100_000;
    let cache = Cache::new(Settings::default());
    let (fill, follower) = lead(&cache, &HeaderMap::new());
    let (mut eager, mut late) = (Reader::new(follower), Reader::new(fill.follower()));
    fill.begin(Arc::new(head()));
    for number in 0..PIECES {
        // As pieces arrive: each a slice of a read buffer.
        let piece = Bytes::copy_from_slice(&number.to_le_bytes()[..1]);
        assert_eq!(fill.push(piece).await, FillControl::Continue);
        if number % 100 == 0 {
            eager.read();
        }
    }
    let chunks = match &fill.flight().state().stage {
        FlightStage::Growing(growing) => growing.chunks(),
        _ => panic!("it grows"),
    };
    assert!(chunks <= PIECES / 10_000, "{chunks}");
    fill.finish().await;
    for reader in [&mut eager, &mut late] {
        reader.read();
        assert_eq!(reader.end, Some(Ok(())));
        let right = |(at, byte): (usize, &u8)| usize::from(*byte) == at % 256;
        assert!(reader.read.len() == PIECES && reader.read.iter().enumerate().all(right));
    }
}

/// Whatever the number of followers of a windowed body, each piece wakes each of them once.
#[tokio::test]
async fn only_the_fastest_reader_wakes_the_producer_of_a_window() {
    let cache = Cache::new(Settings {
        object_bytes_max: 10,
        ..Settings::default()
    });
    let (fill, follower) = lead(&cache, &HeaderMap::new());
    let others = (0..50).map(|_| fill.follower());
    let mut readers: Vec<Reader> = others.chain([follower]).map(Reader::new).collect();
    fill.begin(Arc::new(head()));
    assert_eq!(
        fill.push(Bytes::from_static(&[7; 500])).await,
        FillControl::Continue
    );
    let flight = fill.flight();
    let woken = || {
        let mut cx = Context::from_waker(Waker::noop());
        std::pin::pin!(flight.producer.notified())
            .poll(&mut cx)
            .is_ready()
    };
    woken();
    let wakes = readers.iter_mut().filter_map(|reader| {
        reader.read();
        woken().then_some(())
    });
    assert_eq!(wakes.count(), 1);
    let fastest = |flight: &Flight| flight.state().fastest_offset();
    assert_eq!(fastest(&flight), Some(500));
    readers.clear();
    assert_eq!(fastest(&flight), None);
    fill.cut();
}

/// The producer waits for the fastest follower that is left, also when faster ones left before.
#[test]
fn fastest_reader_is_found_after_the_fastest_has_left() {
    let cache = Cache::new(Settings::default());
    let (fill, leader) = lead(&cache, &HeaderMap::new());
    let flight = fill.flight();
    let mut readers: Vec<_> = (0..4).map(|_| fill.follower()).collect();
    for (reader, offset) in readers.iter_mut().zip([40, 10, 30, 20]) {
        reader.set_range(offset, 50);
    }
    for fastest in [40, 30, 30, 20] {
        assert_eq!(flight.state().fastest_offset(), Some(fastest));
        drop(readers.remove(0));
    }
    assert_eq!(flight.state().fastest_offset(), Some(0), "the leader");
    drop(leader);
    assert_eq!(flight.state().fastest_offset(), None);
}
