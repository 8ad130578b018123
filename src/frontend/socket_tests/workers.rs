//! The workers of a listener share its connections evenly: no core serves all viewers.

use std::collections::HashMap;

use crate::frontend::test_support::{TestServer, Viewer};

#[tokio::test]
async fn workers_have_equally_many_connections() {
    let server = TestServer::with_workers(3);
    let mut viewers = Vec::new();
    let mut connections_by_worker: HashMap<String, usize> = HashMap::new();
    for _ in 0..30 {
        let mut viewer = Viewer::connect(&server).await;
        viewer.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let response = viewer.read_until(";").await;
        let (_, worker) = response.split_once("\r\n\r\n").unwrap();
        *connections_by_worker.entry(worker.to_owned()).or_default() += 1;
        viewers.push(viewer);
    }
    let counts: Vec<_> = connections_by_worker.into_values().collect();
    assert_eq!(counts, [10, 10, 10]);
}
