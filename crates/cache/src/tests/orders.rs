//! Tests the flight's state machine under random orders of events: one fill per key, no lost
//! wake-up, and nothing left in memory.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Join,
    Leave(usize),
    Read(usize),
    Begin,
    Push(u8),
    Finish,
    Break,
    Purge,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Join),
        1 => any::<usize>().prop_map(Event::Leave),
        4 => any::<usize>().prop_map(Event::Read),
        2 => Just(Event::Begin),
        4 => (1..40_u8).prop_map(Event::Push),
        1 => Just(Event::Finish),
        1 => Just(Event::Break),
        1 => Just(Event::Purge),
    ]
}

/// One flight under test, with its expected state.
struct Model {
    cache: Cache,
    fill: Option<Fill>,
    begun: bool,
    sent: Vec<u8>,
    readers: Vec<Reader>,
    purged: bool,
    over: Option<Result<(), BodyTruncated>>,
}

impl Model {
    fn start() -> Model {
        let cache = Cache::new(Settings::default());
        let (fill, follower) = lead(&cache, &HeaderMap::new());
        Model {
            cache,
            fill: Some(fill),
            begun: false,
            sent: Vec::new(),
            readers: vec![Reader::new(follower)],
            purged: false,
            over: None,
        }
    }

    fn apply(&mut self, event: Event) {
        let changes = match event {
            Event::Join => {
                self.join();
                false
            }
            Event::Leave(pick) => {
                if !self.readers.is_empty() {
                    self.readers.swap_remove(pick % self.readers.len());
                }
                false
            }
            Event::Read(pick) => {
                let readers = self.readers.len();
                if readers > 0 {
                    self.readers[pick % readers].read();
                }
                false
            }
            Event::Begin => self.begin(),
            Event::Push(length) => self.push(length),
            Event::Finish => self.begun && self.end(Ok(())),
            Event::Break => self.end(Err(BodyTruncated::Origin)),
            Event::Purge => {
                self.cache.purge(&key(), Kind::Segment);
                self.purged |= self.fill.is_some();
                false
            }
        };
        if changes {
            assert!(self.readers.iter().all(Reader::was_woken), "lost wake-up");
        }
    }

    fn join(&mut self) {
        if self.fill.is_none() || self.purged {
            return;
        }
        match self.cache.join(&look(&self.cache), &HeaderMap::new()) {
            JoinOutcome::Follow(follower) => self.readers.push(Reader::new(follower)),
            _ => panic!("a second fill was started, or the first was lost"),
        }
    }

    fn begin(&mut self) -> bool {
        match &self.fill {
            Some(fill) if !self.begun => fill.begin(Arc::new(head())),
            _ => return false,
        }
        self.begun = true;
        true
    }

    fn push(&mut self, length: u8) -> bool {
        let Some(fill) = self.fill.as_ref().filter(|_| self.begun) else {
            return false;
        };
        let at = self.sent.len();
        let pattern = (0..=250_u8).cycle();
        let piece: Vec<u8> = pattern.skip(at).take(length.into()).collect();
        self.sent.extend_from_slice(&piece);
        let mut push = std::pin::pin!(fill.push(Bytes::from(piece)));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(
            push.as_mut().poll(&mut cx),
            Poll::Ready(FillControl::Continue)
        );
        true
    }

    fn end(&mut self, how: Result<(), BodyTruncated>) -> bool {
        let Some(fill) = self.fill.take() else {
            return false;
        };
        match how {
            Ok(()) => finish(fill),
            Err(_) => drop(fill),
        }
        self.over = Some(how);
        true
    }

    fn settle(mut self) {
        if self.fill.is_some() {
            self.end(Err(BodyTruncated::Origin));
        }
        for reader in &mut self.readers {
            assert!(reader.was_woken(), "asleep after the end");
            reader.read();
            assert!(self.sent.starts_with(&reader.read));
            let whole = reader.read == self.sent;
            match (self.over, reader.end) {
                (Some(Ok(())), Some(Ok(()))) => assert!(whole),
                // A follower that has read everything before the break still gets the error.
                (Some(Err(_)), Some(Err(_))) => {}
                other => panic!("ended as {other:?}"),
            }
        }
        let stored = look(&self.cache).object;
        let expected = self.over == Some(Ok(())) && !self.purged;
        let purged_later = expected && stored.is_none();
        assert!(stored.is_none() || expected);
        if let Some(object) = stored {
            assert_eq!(object.body, self.sent);
        } else {
            assert!(!expected || purged_later);
        }
        self.readers.clear();
        let stats = self.cache.stats();
        assert_eq!((stats.fills, stats.followers, stats.fill_bytes), (0, 0, 0));
    }
}

proptest! {
    #[test]
    fn one_fill_no_lost_wakeup_and_no_leak_in_any_event_order(
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let mut model = Model::start();
        for event in events {
            model.apply(event);
        }
        model.settle();
    }
}
