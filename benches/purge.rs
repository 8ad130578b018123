//! Purges 10,000 objects with a tag out of 500,000 while workers look up and store objects: how
//! soon nothing of them is served, how soon the purge is answered, and how long a worker was held
//! up. The cache alone, without sockets.
//!
//! `cargo bench --bench purge -- --rounds 9`. The workers are busy 70 % of the time. Fails when the
//! median of the answers exceeds 50 ms, or that of the longest operations of a worker 5 ms.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use seawall_cache::{
    Cache, Fill, JoinOutcome, Object, PurgeCount, PurgeMode, Settings, StoredHead, TagKeys, Verdict,
};
use seawall_manifest::Kind;
use seawall_policy::{Key, Lifetime};

const HELP: &str = "\
Purges the objects of a tag while workers serve, and prints how long that takes.

cargo bench --bench purge [-- [--objects N] [--tagged N] [--rounds N] [--busy PERCENT]]

  --objects N      stored objects (500000)
  --tagged N       those with the purged tag (10000)
  --rounds N       medians of N purges (9)
  --busy PERCENT   of the time, each worker works (70); at 100 the two workers and the purge share
                   two cores, and the kernel holds each of them up for milliseconds
";

/// What the purge may take until it is answered, and what it may hold a worker up.
const ANSWER_MAX: Duration = Duration::from_millis(50);
const STALL_MAX: Duration = Duration::from_millis(5);

const WORKERS: usize = 2;
/// A worker that is not busy all the time works and waits in turns of this length.
const TURN: Duration = Duration::from_millis(1);
/// A worker replaces an object after this many lookups.
const LOOKUPS_PER_STORE: usize = 50;
/// How long the workers run before a purge, to see what the machine itself holds them up.
const CALM: Duration = Duration::from_millis(300);

#[derive(Clone, Copy)]
struct Order {
    objects: usize,
    tagged: usize,
    rounds: usize,
    busy: usize,
}

/// What one purge took.
struct Round {
    unusable: Duration,
    answered: Duration,
    /// The longest operation of a worker before the purge, and until its answer.
    calm: Duration,
    stall: Duration,
    operations: usize,
}

/// What one worker did in a round.
#[derive(Default)]
struct Worked {
    calm: Duration,
    stall: Duration,
    operations: usize,
    /// Purged objects that it was given after the purge had made them unusable.
    served_purged: usize,
}

#[derive(Default)]
struct Phase {
    purging: AtomicBool,
    unusable: AtomicBool,
    ended: AtomicBool,
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    // Without arguments this is cargo's test of all targets.
    if words.is_empty() || words.iter().any(|word| word == "--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let Some(order) = parse_arguments(words.into_iter()) else {
        eprint!("{HELP}");
        return ExitCode::FAILURE;
    };
    let library = Library::stored(order);
    let mut passes = true;
    for mode in [PurgeMode::Hard, PurgeMode::Soft] {
        let rounds: Vec<_> = (0..order.rounds).map(|_| library.round(mode)).collect();
        passes &= report(mode, order, &rounds);
    }
    if passes {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse_arguments(mut words: impl Iterator<Item = String>) -> Option<Order> {
    let mut order = Order {
        objects: 500_000,
        tagged: 10_000,
        rounds: 9,
        busy: 70,
    };
    while let Some(word) = words.next() {
        let number = match word.as_str() {
            "--bench" => continue,
            "--objects" => &mut order.objects,
            "--tagged" => &mut order.tagged,
            "--rounds" => &mut order.rounds,
            "--busy" => &mut order.busy,
            _ => return None,
        };
        *number = words.next()?.parse().ok().filter(|number| *number > 0)?;
    }
    (order.tagged <= order.objects && order.busy <= 100).then_some(order)
}

/// The cache and what it holds: the first objects have the tag.
struct Library {
    cache: Cache,
    order: Order,
    keys: Arc<Vec<Key>>,
}

fn tag() -> Key {
    Key::of(&[b"tag", b"film-1"])
}

impl Library {
    fn stored(order: Order) -> Library {
        let cache = Cache::new(Settings {
            memory_bytes: 4 << 30,
            ..Settings::default()
        });
        let key = |number: usize| {
            let target = format!("/vod/{}/segment{number}.ts", number % 100);
            Key::of(&[b"origin", b"", target.as_bytes()])
        };
        let library = Library {
            cache,
            order,
            keys: Arc::new((0..order.objects).map(key).collect()),
        };
        (0..order.objects).for_each(|number| store(&library.cache, &library.keys, order, number));
        library
    }

    /// Purges the tag while workers serve, and stores the objects again.
    fn round(&self, mode: PurgeMode) -> Round {
        (0..self.order.tagged)
            .for_each(|number| store(&self.cache, &self.keys, self.order, number));
        let (phase, start) = (Phase::default(), Barrier::new(WORKERS + 1));
        thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|worker| {
                    let (phase, start) = (&phase, &start);
                    scope.spawn(move || {
                        start.wait();
                        self.work(worker, phase, mode)
                    })
                })
                .collect();
            start.wait();
            thread::park_timeout(CALM);
            phase.purging.store(true, Ordering::SeqCst);
            let begun = Instant::now();
            let mut purge = self.cache.purging(mode);
            purge.tag(&tag());
            let unusable = begun.elapsed();
            phase.unusable.store(true, Ordering::SeqCst);
            let PurgeCount { objects, .. } = purge.finish();
            let answered = begun.elapsed();
            phase.ended.store(true, Ordering::SeqCst);
            assert_eq!(objects, self.order.tagged as u64, "all, and no other");
            let worked = workers.into_iter().map(thread::ScopedJoinHandle::join);
            let worked: Vec<_> = worked.map(Result::unwrap_or_default).collect();
            let served: usize = worked.iter().map(|worked| worked.served_purged).sum();
            assert_eq!(served, 0, "purged objects were served");
            let longest = |of: fn(&Worked) -> Duration| worked.iter().map(of).max();
            Round {
                unusable,
                answered,
                calm: longest(|worked| worked.calm).unwrap_or_default(),
                stall: longest(|worked| worked.stall).unwrap_or_default(),
                operations: worked.iter().map(|worked| worked.operations).sum(),
            }
        })
    }

    /// Looks objects up, and replaces some that have no tag, until the round ends.
    fn work(&self, worker: usize, phase: &Phase, mode: PurgeMode) -> Worked {
        let mut worked = Worked::default();
        let mut random = fastrand::Rng::with_seed(worker as u64);
        let mut turn = Turn::begin(self.order.busy);
        while !phase.ended.load(Ordering::Relaxed) {
            let is_purging = phase.purging.load(Ordering::Relaxed);
            let is_unusable = phase.unusable.load(Ordering::SeqCst);
            let number = random.usize(..self.order.objects);
            // What is late to begin is late to end.
            let begun = turn.next_operation();
            if worked.operations.is_multiple_of(LOOKUPS_PER_STORE) {
                let other =
                    random.usize(self.order.tagged.min(self.order.objects - 1)..self.order.objects);
                store(&self.cache, &self.keys, self.order, other);
            } else {
                let key = &self.keys[number];
                let found = self.cache.lookup(key, Kind::Segment, begun, HeaderMap::new);
                let is_purged = is_unusable && number < self.order.tagged;
                worked.served_purged +=
                    usize::from(is_purged && is_served(found.object.as_ref(), mode));
            }
            let took = begun.elapsed();
            worked.operations += 1;
            let longest = if is_purging {
                &mut worked.stall
            } else {
                &mut worked.calm
            };
            *longest = took.max(*longest);
        }
        worked
    }
}

/// When a worker works, and when it waits as one that has no events.
struct Turn {
    works: Duration,
    ends: Instant,
}

impl Turn {
    fn begin(busy_percent: usize) -> Turn {
        let works = TURN * u32::try_from(busy_percent).unwrap_or(100) / 100;
        Turn {
            works,
            ends: Instant::now() + works,
        }
    }

    /// The moment at which the next operation is due.
    fn next_operation(&mut self) -> Instant {
        let now = Instant::now();
        let waits = TURN.saturating_sub(self.works);
        if now < self.ends || waits.is_zero() {
            return now;
        }
        thread::park_timeout(waits);
        let due = now + waits;
        self.ends = due.max(Instant::now()) + self.works;
        due
    }
}

/// Whether a purged object would be served, after a soft purge as fresh.
fn is_served(found: Option<&Arc<Object>>, mode: PurgeMode) -> bool {
    found.is_some_and(|object| {
        let remaining = object.head.lifetime.fresh_remaining(Instant::now());
        mode == PurgeMode::Hard || !remaining.is_zero()
    })
}

/// Fetches an object, as a fill does.
fn store(cache: &Cache, keys: &[Key], order: Order, number: usize) {
    let lookup = cache.lookup(&keys[number], Kind::Segment, Instant::now(), HeaderMap::new);
    let JoinOutcome::Lead(fill, _follower) = cache.join(&lookup, &HeaderMap::new()) else {
        // The other worker has just stored it.
        return;
    };
    let is_tagged = number < order.tagged;
    let object = Arc::new(Object::new(
        head(cache, &fill, is_tagged),
        Bytes::from_static(&[7; 256]),
    ));
    fill.store_and_publish(&object, Verdict::Object(Arc::clone(&object)));
}

/// Each hundredth object has its own directory; one in fifty of the others has another tag.
fn head(cache: &Cache, fill: &Fill, is_tagged: bool) -> StoredHead {
    let key = fill.lookup().key.fingerprint();
    let directory = Key::of(&[b"directory", &(key % 100).to_le_bytes()]);
    let token = cache.bind_epoch(Some(&directory), None);
    let name = if is_tagged {
        tag()
    } else {
        Key::of(&[b"tag", &(key % 1000).to_le_bytes()])
    };
    let tags = TagKeys {
        keys: vec![name],
        overflow: Key::of(&[b"overflow"]),
    };
    StoredHead {
        status: http::StatusCode::OK,
        headers: HeaderMap::new().into(),
        targeted: None,
        kind: Kind::Segment,
        lifetime: Lifetime {
            fresh_for: Duration::from_hours(1),
            stale_while_revalidate: Duration::from_hours(1),
            ..Lifetime::none(Instant::now())
        },
        manifest_info: None,
        length: None,
        will_be_stored: true,
        is_own: false,
        stream: None,
        epoch_token: Some(fill.bind_tags(Some(token), &tags)),
        access_tracker: None,
    }
}

/// Prints the medians. False when one exceeds its limit.
fn report(mode: PurgeMode, order: Order, rounds: &[Round]) -> bool {
    let of = |figure: fn(&Round) -> Duration| {
        let mut figures: Vec<_> = rounds.iter().map(figure).collect();
        figures.sort();
        let most = figures.last().copied().unwrap_or_default();
        (figures[figures.len() / 2], most)
    };
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let answered = of(|round| round.answered);
    let stall = of(|round| round.stall);
    let rows = [
        ("nothing of it is served after", of(|round| round.unusable)),
        ("the purge is answered after", answered),
        (
            "longest operation of a worker, before",
            of(|round| round.calm),
        ),
        ("longest operation of a worker, meanwhile", stall),
    ];
    let operations: usize = rounds.iter().map(|round| round.operations).sum();
    println!(
        "{} purge of {} objects out of {}, medians of {} (most); {operations} operations of \
         {WORKERS} workers",
        mode.as_str(),
        order.tagged,
        order.objects,
        rounds.len()
    );
    for (what, (median, most)) in rows {
        println!("  {what:42} {:8.2} ms ({:.2})", ms(median), ms(most));
    }
    let passes = answered.0 <= ANSWER_MAX && stall.0 <= STALL_MAX;
    if !passes {
        println!("  TOO LONG: at most {ANSWER_MAX:?} to the answer, {STALL_MAX:?} for a worker");
    }
    passes
}
