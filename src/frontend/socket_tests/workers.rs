//! The workers of a listener share its connections evenly: no core serves all viewers, and no new
//! viewer waits for a worker that hangs.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::frontend::test_support::{Hang, TestServer, Viewer, until};

#[tokio::test]
async fn workers_have_equally_many_connections() {
    let server = TestServer::with_workers(3, &Hang::new());
    let mut viewers = Vec::new();
    let mut connections_by_worker: HashMap<String, usize> = HashMap::new();
    for _ in 0..30 {
        let mut viewer = Viewer::connect(&server).await;
        let worker = serving_worker(&mut viewer).await;
        *connections_by_worker.entry(worker).or_default() += 1;
        viewers.push(viewer);
    }
    let counts: Vec<_> = connections_by_worker.into_values().collect();
    assert_eq!(counts, [10, 10, 10]);
}

#[tokio::test]
async fn new_connections_do_not_wait_for_worker_that_hangs() {
    let hang = Hang::new();
    let server = TestServer::with_workers(2, &hang);
    let mut hanging = Viewer::connect(&server).await;
    hanging.send("GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until("a worker hangs", || hang.has_begun.load(Ordering::Acquire)).await;
    let mut viewers = Vec::new();
    for _ in 0..20 {
        let mut viewer = Viewer::connect(&server).await;
        serving_worker(&mut viewer).await;
        viewers.push(viewer);
    }
    tokio::task::spawn_blocking(move || hang.end.wait())
        .await
        .unwrap();
    hanging.read_until(";").await;
}

async fn serving_worker(viewer: &mut Viewer) -> String {
    viewer.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let response = viewer.read_until(";").await;
    let (_, worker) = response.split_once("\r\n\r\n").unwrap();
    worker.to_owned()
}
