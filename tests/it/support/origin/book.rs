//! The scripts and the request record of one origin, shared by its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::reply::{Reply, Script, status};
use super::request::Request;

/// Scripts by path, and a record that can be waited on.
#[derive(Default)]
pub(super) struct Book {
    scripts: Mutex<HashMap<String, Script>>,
    record: watch::Sender<Record>,
}

/// The record so far.
#[derive(Default)]
pub(super) struct Record {
    requests: Vec<Request>,
    connections: usize,
    under_way: usize,
    under_way_max: usize,
    /// Open connections.
    pub(super) open: usize,
    /// Responses whose reader left before their end.
    pub(super) abandoned: usize,
}

impl Record {
    pub(super) fn hits(&self, target: &str) -> usize {
        self.requests
            .iter()
            .filter(|asked| matches(asked, target))
            .count()
    }
}

fn matches(asked: &Request, target: &str) -> bool {
    asked.target == target || asked.path() == target
}

impl Book {
    pub(super) fn set_script(&self, target: &str, script: Script) {
        let mut scripts = self.scripts.lock().expect("no script panics");
        scripts.insert(target.to_owned(), script);
    }

    pub(super) fn requests(&self, target: &str) -> Vec<Request> {
        let record = self.record.borrow();
        let asked = record.requests.iter();
        asked
            .filter(|asked| matches(asked, target))
            .cloned()
            .collect()
    }

    pub(super) fn concurrent_max(&self) -> usize {
        self.record.borrow().under_way_max
    }

    pub(super) fn open(&self) -> usize {
        self.record.borrow().open
    }

    /// Returns when `reached` holds.
    pub(super) async fn wait_until(&self, reached: impl Fn(&Record) -> bool) {
        let mut record = self.record.subscribe();
        record
            .wait_for(|record| reached(record))
            .await
            .expect("the book holds its own sender");
    }

    pub(super) fn connect(self: &Arc<Self>) -> Connection {
        let mut number = 0;
        self.record.send_modify(|record| {
            record.open += 1;
            record.connections += 1;
            number = record.connections;
        });
        Connection {
            number,
            book: self.clone(),
        }
    }

    fn next_reply(&self, request: &Request) -> Reply {
        let mut scripts = self.scripts.lock().expect("no script panics");
        if let Some(script) = scripts.get_mut(&request.target) {
            return script.next(request);
        }
        match scripts.get_mut(request.path()) {
            Some(script) => script.next(request),
            None => status(404).body("no such thing"),
        }
    }
}

/// The view of one open connection.
pub(super) struct Connection {
    /// Counted from 1.
    pub(super) number: usize,
    book: Arc<Book>,
}

impl Connection {
    /// Records a request and returns its reply. The response is in progress until the guard is
    /// dropped.
    pub(super) fn answer(&self, request: &Request) -> (Reply, UnderWay) {
        let reply = self.book.next_reply(request);
        self.book.record.send_modify(|record| {
            record.requests.push(request.clone());
            record.under_way += 1;
            record.under_way_max = record.under_way_max.max(record.under_way);
        });
        (reply, UnderWay(self.book.clone()))
    }

    /// Records that a response's reader left before its end.
    pub(super) fn record_abandoned(&self) {
        self.book.record.send_modify(|record| record.abandoned += 1);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.book.record.send_modify(|record| record.open -= 1);
    }
}

/// A response in progress.
pub(super) struct UnderWay(Arc<Book>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.record.send_modify(|record| record.under_way -= 1);
    }
}
