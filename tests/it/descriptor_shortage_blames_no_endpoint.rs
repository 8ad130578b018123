//! When the host has no file descriptors left, requests fail with an error about the host: no
//! endpoint is blamed, and requests succeed again when descriptors are free.

use crate::support::program::Program;
use crate::support::{Origin, get, segment};

/// More failures than open a breaker.
const MANY: usize = 30;

#[tokio::test]
async fn answers_503_while_file_descriptors_are_exhausted() {
    let path = |number: usize| format!("/{number}/a.ts");
    let mut origin = Origin::start().await;
    for number in 0..=MANY {
        // Each request on a connection of its own.
        let once = segment("whole").header("Connection", "close");
        origin = origin.on(&path(number), once);
    }
    let program = Program::serve(&origin, "").await;
    let mut viewer = program.viewer().await;
    // The viewer's connection is accepted, and the origin's is closed again.
    viewer.ask(get(&path(MANY))).await.assert_whole("whole");
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
        viewer.ask(get(&path(number))).await.assert_whole("whole");
    }
}
