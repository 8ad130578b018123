//! A host that has no sockets left cannot ask its origin: that is told as the host's own trouble, is
//! held against no endpoint, and is over when it is over.

use crate::support::program::Program;
use crate::support::{Origin, get, segment};

/// More than it takes to open a breaker.
const MANY: usize = 30;

#[tokio::test]
async fn when_there_are_no_descriptors_for_a_while() {
    let path = |number: usize| format!("/{number}/a.ts");
    let mut origin = Origin::start().await;
    for number in 0..=MANY {
        // Each on a connection of its own.
        let once = segment("whole").header("Connection", "close");
        origin = origin.on(&path(number), once);
    }
    let program = Program::serve(&origin, "").await;
    let mut viewer = program.viewer().await;
    // Its connection is accepted, and the origin's is closed again.
    viewer.ask(get(&path(MANY))).await.is_whole("whole");
    let usual = program.exhaust_descriptors();
    for number in 0..MANY {
        let answer = viewer.ask(get(&path(number))).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let how = answer.cache_status();
        assert_eq!(how.value("detail"), Some("out-of-sockets"), "{how:?}");
        assert_eq!(origin.hits(&path(number)), 0);
    }
    program.limit_descriptors(usual);
    for number in 0..MANY {
        viewer.ask(get(&path(number))).await.is_whole("whole");
    }
}
