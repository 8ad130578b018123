//! A process that hangs, dies or sends nonsense is given up, and none of it becomes an object.

use std::future::Future;

use tokio::io::AsyncWriteExt;

use super::*;

/// A source with one connection, and the end of the other process.
fn source() -> (ObjectSource, UnixStream) {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let source = ObjectSource::new(vec![ours]).unwrap();
    (source, UnixStream::from_std(theirs).unwrap())
}

fn question() -> ObjectQuestion {
    ObjectQuestion::new(b"key", "segment", &HeaderMap::new(), 1 << 20)
}

fn head(length: u64) -> GivenHead {
    GivenHead {
        status: 200,
        fields: Vec::new(),
        tags: Vec::new(),
        length,
        sliced_length: None,
        age_millis: 1000,
        fresh_for_millis: 5000,
        stale_while_revalidate_millis: 0,
        stale_if_error_millis: 0,
    }
}

/// Asks while the other process does this.
async fn ask_while(
    source: &ObjectSource,
    other: impl Future<Output = ()>,
) -> Option<(GivenHead, Bytes)> {
    let question = question();
    let (given, ()) = tokio::join!(source.ask(&question, |_| true), other);
    given
}

fn count(source: &ObjectSource, result: &str) -> u64 {
    let questions = source.stats().questions.into_iter();
    let mut numbers = questions.filter(|(name, _)| *name == result);
    numbers.next().unwrap().1
}

#[tokio::test]
async fn object_is_given_whole_with_its_age() {
    let (source, mut theirs) = source();
    let given = ask_while(&source, async {
        let asked = wire::receive::<ObjectQuestion>(&mut theirs).await.unwrap();
        assert_eq!((&asked.key[..], &*asked.kind), (&b"key"[..], "segment"));
        wire::send(&mut theirs, &Some(head(5))).await.unwrap();
        theirs.write_all(b"who").await.unwrap();
        theirs.write_all(b"le").await.unwrap();
    });
    let (head, body) = given.await.unwrap();
    assert_eq!(body, "whole");
    assert!(head.age_millis >= 1000);
    assert_eq!((count(&source, "given"), source.stats().bytes), (1, 5));
}

#[tokio::test]
async fn truncated_object_is_none_and_ends_the_source() {
    let (source, mut theirs) = source();
    let given = ask_while(&source, async {
        wire::send(&mut theirs, &Some(head(5))).await.unwrap();
        theirs.write_all(b"who").await.unwrap();
        drop(theirs);
    });
    assert!(given.await.is_none());
    assert_eq!(count(&source, "failed"), 1);
    assert!(source.has_ended());
}

#[tokio::test(start_paused = true)]
async fn process_that_hangs_is_given_up_after_a_few_questions() {
    let pairs: Vec<_> = (0..8).map(|_| StdUnixStream::pair().unwrap()).collect();
    let (ours, _theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let source = ObjectSource::new(ours).unwrap();
    for late in 0..LATE_MAX {
        assert!(!source.has_ended(), "{late}");
        let began = Instant::now();
        assert!(source.ask(&question(), |_| true).await.is_none());
        assert!(began.elapsed() <= HEAD_MAX + Duration::from_millis(2));
    }
    assert!(source.has_ended());
    assert_eq!(count(&source, "late"), u64::from(LATE_MAX));
}

/// More questions than connections: all end by the same deadline.
#[tokio::test(start_paused = true)]
async fn no_question_waits_longer_than_its_deadline() {
    let (source, _theirs) = source();
    let began = Instant::now();
    let (one, other) = (question(), question());
    let asked = tokio::join!(source.ask(&one, |_| true), source.ask(&other, |_| true));
    assert!(asked.0.is_none() && asked.1.is_none());
    assert!(began.elapsed() <= HEAD_MAX + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn body_that_stops_is_late() {
    let (source, mut theirs) = source();
    let began = Instant::now();
    let given = ask_while(&source, async {
        wire::send(&mut theirs, &Some(head(5))).await.unwrap();
        theirs.write_all(b"who").await.unwrap();
    });
    assert!(given.await.is_none());
    assert!(began.elapsed() <= HEAD_MAX + BODY_MAX + Duration::from_millis(4));
    assert_eq!(count(&source, "late"), 1);
    assert_eq!(source.stats().connections, 0, "its rest may still come");
}

#[tokio::test]
async fn object_without_memory_is_skipped_and_the_next_one_is_right() {
    let (source, mut theirs) = source();
    let question = question();
    let giving = async {
        for body in [b"first", b"other"] {
            wire::receive::<ObjectQuestion>(&mut theirs).await.unwrap();
            wire::send(&mut theirs, &Some(head(5))).await.unwrap();
            theirs.write_all(body).await.unwrap();
        }
    };
    let asking = async {
        assert!(source.ask(&question, |_| false).await.is_none());
        source.ask(&question, |_| true).await.unwrap().1
    };
    let (body, ()) = tokio::join!(asking, giving);
    assert_eq!(body, "other");
}

#[tokio::test]
async fn nonsense_ends_the_source() {
    let too_long = serde_json::to_vec(&Some(head(u64::MAX))).unwrap();
    let framed = [
        &u32::try_from(too_long.len()).unwrap().to_be_bytes()[..],
        &too_long,
    ]
    .concat();
    for sent in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"\0\0\0\x02{}", &framed] {
        let (source, mut theirs) = source();
        let given = ask_while(&source, async {
            theirs.write_all(sent).await.unwrap();
        });
        assert!(given.await.is_none());
        assert!(source.has_ended());
    }
}

/// A purge during the question: what comes is not used.
#[tokio::test]
async fn object_that_comes_after_the_end_is_none() {
    let (source, mut theirs) = source();
    let given = ask_while(&source, async {
        wire::receive::<ObjectQuestion>(&mut theirs).await.unwrap();
        source.end("there was a purge");
        wire::send(&mut theirs, &Some(head(5))).await.unwrap();
        theirs.write_all(b"whole").await.unwrap();
    });
    assert!(given.await.is_none());
}

#[test]
fn terms_only_shorten_a_lifetime() {
    let terms = GivenTerms {
        tags: Vec::new(),
        fresh_for: Duration::from_secs(5),
        stale_while_revalidate: Duration::from_secs(9),
        stale_if_error: Duration::ZERO,
    };
    let lifetime = Lifetime {
        fresh_for: Duration::from_mins(1),
        stale_while_revalidate: Duration::from_secs(3),
        stale_if_error: Duration::from_mins(1),
        ..Lifetime::none(std::time::Instant::now())
    };
    let StorageDecision::Store(limited) = terms.limit(StorageDecision::Store(lifetime)) else {
        panic!("it may be stored");
    };
    let seconds = [
        limited.fresh_for,
        limited.stale_while_revalidate,
        limited.stale_if_error,
    ];
    assert_eq!(seconds.map(|time| time.as_secs()), [5, 3, 0]);
}
