//! Which bodies count as pinned, and whose readers are cut off above the limit.

use std::task::Wake;
use std::time::Duration;

use super::*;

const BODY: usize = 100 << 10;

struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Taken(AtomicU64);

impl BodyConsumer for Taken {
    fn bytes_taken(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A viewer that accepts no bytes.
fn no_consumer() -> Weak<dyn BodyConsumer> {
    Weak::<Taken>::new()
}

/// A clock, and a limit of two bodies (including the slack after a cut).
struct PinnedBodiesModel {
    start: Instant,
    pinned: Arc<PinnedBodies>,
}

impl PinnedBodiesModel {
    fn new() -> PinnedBodiesModel {
        let budget = FillBudget::new(5 * BODY as u64);
        PinnedBodiesModel {
            start: Instant::now(),
            pinned: Arc::new(PinnedBodies::new(Arc::new(budget))),
        }
    }

    fn after(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn stored(&self) -> Arc<SharedBody> {
        let body = SharedBody::of(BODY).unwrap();
        body.add_entry(&self.pinned);
        body
    }

    /// A body that was stored, is read by a viewer that accepts no bytes, and was evicted.
    fn pinned(&self, seconds: u64) -> (Arc<SharedBody>, SlowReader) {
        let body = self.stored();
        let reader = body.register_slow_reader(no_consumer(), Waker::noop(), self.after(seconds));
        body.remove_entry(self.after(seconds));
        (body, reader)
    }

    /// As [`PinnedBodiesModel::pinned`], with a viewer that may accept bytes.
    fn pinned_by_viewer(&self, seconds: u64) -> (Arc<SharedBody>, Arc<Taken>, SlowReader) {
        let body = self.stored();
        let viewer = Arc::<Taken>::default();
        let weak = Arc::downgrade(&viewer);
        let reader = body.register_slow_reader(weak, Waker::noop(), self.after(seconds));
        body.remove_entry(self.after(seconds));
        (body, viewer, reader)
    }

    fn bytes(&self) -> u64 {
        assert_eq!(self.pinned.budget.used(), self.pinned.bytes());
        self.pinned.bytes()
    }
}

fn is_cut(reader: &SlowReader) -> bool {
    reader.reader.is_cut()
}

/// A viewer that leaves during the call for its accepted bytes.
#[derive(Default)]
struct Leaving {
    itself: Mutex<Option<Arc<Leaving>>>,
    reads: Mutex<Option<SlowReader>>,
}

impl BodyConsumer for Leaving {
    fn bytes_taken(&self) -> u64 {
        drop(self.itself.lock().take());
        0
    }
}

#[test]
fn no_deadlock_when_reader_drops_during_slowest_search() {
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let scene = PinnedBodiesModel::new();
        let viewer = Arc::<Leaving>::default();
        let body = scene.stored();
        let weak = Arc::downgrade(&viewer);
        let reader = body.register_slow_reader(weak, Waker::noop(), scene.start);
        *viewer.reads.lock() = Some(reader);
        *viewer.itself.lock() = Some(Arc::clone(&viewer));
        drop(viewer);
        body.remove_entry(scene.start);
        let others: Vec<_> = (0..3).map(|_| scene.pinned(1)).collect();
        assert!(others.iter().any(|(_, reader)| is_cut(reader)));
        assert!(body.state.lock().readers.is_empty(), "the viewer has left");
        done.send(()).unwrap();
    });
    assert!(is_done.recv_timeout(Duration::from_secs(20)).is_ok());
}

#[test]
fn stored_or_unread_bodies_do_not_count_as_pinned() {
    let scene = PinnedBodiesModel::new();
    let (held, idle) = (scene.stored(), scene.stored());
    held.add_entry(&scene.pinned);
    let _reader = held.register_slow_reader(no_consumer(), Waker::noop(), scene.start);
    held.remove_entry(scene.start);
    idle.remove_entry(scene.start);
    assert_eq!(scene.bytes(), 0);
    assert!(SharedBody::of(COUNTED_BYTES_MIN - 1).is_none());
}

#[test]
fn pinned_body_counts_once_until_its_last_reader_ends() {
    let scene = PinnedBodiesModel::new();
    let (body, first) = scene.pinned(0);
    let second = body.register_slow_reader(no_consumer(), Waker::noop(), scene.start);
    assert_eq!(scene.bytes(), BODY as u64);
    drop(first);
    assert_eq!(scene.bytes(), BODY as u64);
    drop(second);
    assert_eq!(scene.bytes(), 0);
}

#[test]
fn body_stored_again_no_longer_counts_as_pinned() {
    let scene = PinnedBodiesModel::new();
    let (body, _reader) = scene.pinned(0);
    body.add_entry(&scene.pinned);
    assert_eq!(scene.bytes(), 0);
}

#[test]
fn unstored_body_counts_as_pinned_once_complete() {
    let scene = PinnedBodiesModel::new();
    let body = Arc::<SharedBody>::default();
    let _reader = body.register_slow_reader(no_consumer(), Waker::noop(), scene.start);
    let body = body.sized(BODY).unwrap();
    assert_eq!(scene.bytes(), 0);
    body.record_unstored(&scene.pinned, scene.start);
    assert_eq!(scene.bytes(), BODY as u64);
}

#[test]
fn above_limit_only_the_slowest_reader_is_cut_and_woken() {
    let scene = PinnedBodiesModel::new();
    let bell = Arc::new(Bell(AtomicBool::new(false)));
    let (_one, viewer, steady) = scene.pinned_by_viewer(0);
    let (_two, stalled) = scene.pinned(1);
    for second in 2..30 {
        viewer.0.store(second * 1000, Ordering::Relaxed);
        assert!(!steady.record_blocked(Waker::noop(), scene.after(second)));
        let waker = Waker::from(Arc::clone(&bell));
        assert!(!stalled.record_blocked(&waker, scene.after(second)));
    }
    let (_three, new) = scene.pinned(30);
    assert_eq!([&steady, &stalled, &new].map(is_cut), [false, true, false]);
    assert!(bell.0.load(Ordering::Relaxed));
    assert!(stalled.record_blocked(Waker::noop(), scene.after(31)));
    drop((steady, stalled, new));
    assert_eq!(scene.bytes(), 0);
    assert_eq!(scene.pinned.cut_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn slow_readers_are_kept_while_another_reads_same_body_fast() {
    let scene = PinnedBodiesModel::new();
    let (shared, fast_viewer, fast) = scene.pinned_by_viewer(0);
    let stalled = shared.register_slow_reader(no_consumer(), Waker::noop(), scene.start);
    let (_other, slow_viewer, slow) = scene.pinned_by_viewer(0);
    for second in 1..30 {
        fast_viewer.0.store(second << 20, Ordering::Relaxed);
        slow_viewer.0.store(second << 10, Ordering::Relaxed);
        assert!(!fast.record_blocked(Waker::noop(), scene.after(second)));
        assert!(!slow.record_blocked(Waker::noop(), scene.after(second)));
    }
    let (_new, new) = scene.pinned(30);
    assert_eq!(
        [&stalled, &fast, &slow, &new].map(is_cut),
        [false, false, true, false]
    );
}

#[test]
fn new_reader_of_a_cut_body_is_not_cut() {
    let scene = PinnedBodiesModel::new();
    let (body, stalled) = scene.pinned(0);
    let others = [scene.pinned(1), scene.pinned(2)];
    assert!(is_cut(&stalled));
    let late = body.register_slow_reader(no_consumer(), Waker::noop(), scene.after(3));
    // The body stays now, so another one must be cut.
    assert_eq!(
        [&late, &others[0].1, &others[1].1].map(is_cut),
        [false, true, false]
    );
}

#[test]
fn memory_held_by_fills_reduces_room_for_pinned_bodies() {
    let scene = PinnedBodiesModel::new();
    assert!(scene.pinned.budget.take(0, 3 * BODY as u64));
    let (_one, first) = scene.pinned(0);
    assert!(is_cut(&first));
}

#[test]
fn fills_cut_pinned_readers_down_to_the_pinned_share() {
    let scene = PinnedBodiesModel::new();
    let (_one, first) = scene.pinned(0);
    let (_two, second) = scene.pinned(1);
    scene.pinned.cut_for_fill(BODY as u64, scene.after(2));
    assert_eq!([&first, &second].map(is_cut), [false, false]);
    scene.pinned.cut_for_fill(2 * BODY as u64, scene.after(2));
    assert_eq!([&first, &second].map(is_cut), [true, false]);
    scene.pinned.cut_for_fill(u64::MAX, scene.after(2));
    assert!(is_cut(&second));
    let (_small, kept) = {
        let body = SharedBody::of(5 * BODY / 8).unwrap();
        let reader = body.register_slow_reader(no_consumer(), Waker::noop(), scene.start);
        body.record_unstored(&scene.pinned, scene.start);
        (body, reader)
    };
    scene.pinned.cut_for_fill(u64::MAX, scene.after(60));
    assert!(!is_cut(&kept));
}
