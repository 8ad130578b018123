//! Counts the instructions of a request, and fails when a request costs 3 % more than the counts
//! below. Counts do not depend on the load of the machine, so they are a gate; times are not.
//!
//! `.ci/run instruction_counts` installs what this needs (valgrind, gungraun's runner) and runs it.
//! When a change is worth its cost, or saves some, put the new counts into [`counts`] with it.
//!
//! A miss includes the threads' way to the origin and back in the shield, not the origin itself. A
//! followed miss is the average of a hundred requests that share one fetch.

#![expect(
    missing_docs,
    clippy::disallowed_methods,
    reason = "what the macros of gungraun expand to; and a wait for a second to begin"
)]

#[path = "in_process/shield.rs"]
mod shield;
#[path = "in_process/viewer.rs"]
mod viewer;

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};

use seawall_manifest::{Kind, read_manifest};
use seawall_policy::{RequiredToken, Route, TokenKind};
use shield::{InProcess, Worker, get};

/// Instructions of a thousand requests, on x86-64, in the profile `release`. Repeated runs differ
/// by less than half a percent.
mod counts {
    pub(crate) const REPEATED_HIT: u64 = 6_660_000;
    pub(crate) const LOOKED_UP_HIT: u64 = 24_200_000;
    pub(crate) const RANGE_HIT: u64 = 32_150_000;
    pub(crate) const STALE_HIT: u64 = 25_880_000;
    pub(crate) const NOT_MODIFIED: u64 = 28_130_000;
    pub(crate) const MISS: u64 = 171_500_000;
    pub(crate) const FOLLOWED_MISS: u64 = 14_720_000;
    /// A token may make a hit cost 1.3 times as much. In a cookie it is 1.24 times, in the query,
    /// where the target of the request is made anew without it, 1.27.
    pub(crate) const TOKEN_HIT: u64 = 30_030_000;
    pub(crate) const TOKEN_IN_QUERY_HIT: u64 = 30_640_000;
    /// The signature is verified each time: only valid tokens are remembered. The response lets the
    /// player's page read its status: 1,200 instructions for the headers of that.
    pub(crate) const TOKEN_REFUSED: u64 = 31_250_000;
    pub(crate) const PLAYLIST_READ: u64 = 86_346_000;
}

/// Fails above 103 % of a count.
fn at_most(count: u64) -> LibraryBenchmarkConfig {
    let limit = count + count * 3 / 100;
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

const REQUESTS: usize = 1000;

/// A worker, and requests that have been sent before unless they are to be misses.
fn prepared(target: &str, lines: &str, is_miss: bool) -> (Worker, Vec<Vec<u8>>) {
    let worker = InProcess::start().worker();
    let number = |number: usize| format!("{target}{}", if is_miss { number } else { 0 });
    let requests = |numbers: Range<usize>| numbers.map(|place| get(&number(place), lines));
    begin_a_second();
    worker.serve(requests(0..5).collect());
    begin_a_second();
    worker.serve(requests(5..8).collect());
    (worker, requests(8..8 + REQUESTS).collect())
}

/// Waits for the next second of the system's clock. A repeated response ends with its second, by
/// its `Date` and its `Age`: without this, the number of lookups would depend on the load of the
/// machine.
fn begin_a_second() {
    let since_epoch = UNIX_EPOCH.elapsed().unwrap_or_default();
    let since_second = Duration::from_nanos(since_epoch.subsec_nanos().into());
    std::thread::sleep(Duration::from_secs(1) - since_second);
}

fn hit(lines: &str) -> (Worker, Vec<Vec<u8>>) {
    prepared("/playlist/", lines, false)
}

/// The secret of an issuer, what it signed (everything below `/playlist/`, until 2100), and the
/// same by another secret.
const SECRET: &str = "a-secret-for-the-benchmark-of-tokens";
const TOKEN: &str = concat!(
    "hEOhAQWhBEFrWCWjAWp0di5leGFtcGxlBBr0hlcAGQE4oQOhAWovcGxheWxpc3QvWCCUDqbBmIR5WLfE",
    "qP5KJ6GYFHWBKb6XVzGSJ78UyhZHqA"
);
const FORGED_TOKEN: &str = concat!(
    "hEOhAQWhBEFrWCWjAWp0di5leGFtcGxlBBr0hlcAGQE4oQOhAWovcGxheWxpc3QvWCANBx-S0PeIVGT5",
    "88FzXSE7Y1QsSHVx892sORxk1xRoHQ"
);

/// Requests for an object behind a token in a cookie. Each is looked up: the viewer chose its id.
fn with_token(token: &str) -> (Worker, Vec<Vec<u8>>) {
    let get = |token: &str| {
        get(
            "/playlist/0",
            &format!("X-Request-Id: 1\r\nCookie: CAT={token}\r\n"),
        )
    };
    guarded(get, token)
}

/// The same with the token in the query.
fn with_token_in_query(token: &str) -> (Worker, Vec<Vec<u8>>) {
    let get = |token: &str| get(&format!("/playlist/0?CAT={token}"), "X-Request-Id: 1\r\n");
    guarded(get, token)
}

fn guarded(get: impl Fn(&str) -> Vec<u8>, token: &str) -> (Worker, Vec<Vec<u8>>) {
    let key = tempfile::NamedTempFile::new().and_then(|key| {
        std::fs::write(key.path(), SECRET)?;
        Ok(key)
    });
    let Ok(key) = key else {
        panic!("a folder for temporary files")
    };
    let demanded = Arc::new(RequiredToken {
        kind: TokenKind::Cat,
        keys: vec![("k".to_owned(), key.path().to_owned())],
        issuers: vec!["tv.example".to_owned()],
        audiences: Vec::new(),
        accepts_no_expiry: false,
        header: None,
        cookie: Some("CAT".to_owned()),
        query: Some("CAT".to_owned()),
        path: None,
    });
    let demand = |route: &mut Route| route.access.token = Some(Arc::clone(&demanded));
    let in_process = InProcess::with_rules(demand);
    let worker = in_process.worker();
    let refused = || {
        let refused = in_process.shield.load().access_stats().refused;
        refused.iter().map(|(_, count)| count).sum::<u64>()
    };
    worker.serve(vec![get(TOKEN); 5]);
    assert_eq!(refused(), 0, "the token is valid");
    worker.serve(vec![get(FORGED_TOKEN)]);
    assert_eq!(refused(), 1, "the other one is not");
    (worker, vec![get(token); REQUESTS])
}

/// Viewers that request the same new objects at the same time, one after another.
fn followers() -> (Worker, Vec<Vec<Vec<u8>>>) {
    const VIEWERS: usize = 100;
    let (worker, requests) = prepared("/segment/", "", true);
    let fetched = requests[..REQUESTS / VIEWERS].to_vec();
    (worker, vec![fetched; VIEWERS])
}

#[library_benchmark(config = at_most(counts::FOLLOWED_MISS))]
#[bench::followed_miss(followers())]
fn serve_all((worker, viewers): (Worker, Vec<Vec<Vec<u8>>>)) -> Worker {
    worker.serve_all(black_box(viewers));
    worker
}

#[library_benchmark]
#[bench::repeated_hit(args = (hit("")), config = at_most(counts::REPEATED_HIT))]
#[bench::looked_up_hit(args = (hit("X-Request-Id: 1\r\n")), config = at_most(counts::LOOKED_UP_HIT))]
#[bench::range_hit(args = (prepared("/segment/", "X-Request-Id: 1\r\nRange: bytes=0-99\r\n", false)), config = at_most(counts::RANGE_HIT))]
#[bench::stale_hit(args = (prepared("/stale/", "X-Request-Id: 1\r\n", false)), config = at_most(counts::STALE_HIT))]
#[bench::not_modified(args = (hit("X-Request-Id: 1\r\nIf-None-Match: \"1\"\r\n")), config = at_most(counts::NOT_MODIFIED))]
#[bench::token_hit(args = (with_token(TOKEN)), config = at_most(counts::TOKEN_HIT))]
#[bench::token_in_query_hit(args = (with_token_in_query(TOKEN)), config = at_most(counts::TOKEN_IN_QUERY_HIT))]
#[bench::token_refused(args = (with_token(FORGED_TOKEN)), config = at_most(counts::TOKEN_REFUSED))]
#[bench::miss(args = (prepared("/segment/", "", true)), config = at_most(counts::MISS))]
fn serve((worker, requests): (Worker, Vec<Vec<u8>>)) -> Worker {
    worker.serve(black_box(requests));
    worker
}

#[library_benchmark(config = at_most(counts::PLAYLIST_READ))]
#[bench::playlist(shield::playlist())]
fn read(text: Vec<u8>) {
    for _ in 0..REQUESTS {
        let _ = black_box(read_manifest(Kind::Hls, black_box(&text)));
    }
}

library_benchmark_group!(name = requests, benchmarks = [serve, serve_all, read]);
main!(library_benchmark_groups = requests);
