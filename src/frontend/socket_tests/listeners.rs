//! A listener that is closed leaves nobody behind who has connected to it, and nothing at its
//! address, also when a worker hangs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::frontend::test_support::{Hang, TestServer, Viewer, until};
use crate::frontend::{BoundListener, ListenAddress, Listener, RemovedListeners};

/// Removes the listener as a reload does.
fn remove_listener(server: &TestServer) -> RemovedListeners {
    let prepared = server.frontend.prepare_listeners(&[]).unwrap();
    server.frontend.apply_listeners(prepared)
}

/// A viewer because of whom a worker hangs.
async fn hang_one(server: &TestServer, hang: &Arc<Hang>) -> Viewer {
    let mut hanging = Viewer::connect(server).await;
    hanging.send("GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until("a worker hangs", || hang.has_begun.load(Ordering::Acquire)).await;
    hanging
}

async fn end_hang(hang: Arc<Hang>) {
    tokio::task::spawn_blocking(move || hang.end.wait())
        .await
        .unwrap();
}

#[tokio::test]
async fn connections_in_the_queue_of_a_removed_listener_are_served() {
    let hang = Hang::new();
    let server = TestServer::with_workers(1, &hang);
    let mut hanging = hang_one(&server, &hang).await;
    let mut viewers = Vec::new();
    for _ in 0..20 {
        let mut viewer = Viewer::connect(&server).await;
        viewer.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        viewers.push(viewer);
    }
    remove_listener(&server);
    end_hang(hang).await;
    hanging.read_until(";").await;
    for viewer in &mut viewers {
        let (response, is_clean) = viewer.read_to_end().await;
        assert!(response.contains("connection: close"), "{response}");
        assert!(response.ends_with(';') && is_clean, "{response}");
    }
}

#[tokio::test]
async fn worker_that_hangs_does_not_keep_the_address() {
    let hang = Hang::new();
    let server = TestServer::with_workers(2, &hang);
    let mut hanging = hang_one(&server, &hang).await;
    remove_listener(&server).free_addresses().await;
    let again = BoundListener::bind(&Listener {
        address: ListenAddress::Tcp(server.address),
        tls: None,
        proxy_protocol: None,
    });
    let again = again.unwrap();
    end_hang(hang).await;
    hanging.read_until(";").await;
    // The other worker serves it as well.
    server.frontend.open(vec![again]).unwrap();
    let mut viewer = Viewer::connect(&server).await;
    viewer.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    viewer.read_until(";").await;
}
