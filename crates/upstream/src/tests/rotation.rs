//! A secret changes without a failed request, whichever side changes first.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::scripted::Scripted;
use super::{LONG, get, no_lookup, origin, request, settings, whole};
use crate::{Origin, SetupError};

/// An origin that accepts one code, and a shield with its code in a file.
struct RotatingSecret {
    /// The code that the origin accepts.
    taken: Arc<Mutex<&'static str>>,
    /// The codes it received.
    shown: Arc<Mutex<Vec<String>>>,
    origin: Arc<Origin>,
    file: PathBuf,
    _folder: TempDir,
    _script: Scripted,
}

const FIELD: &str = "x-mediapackagev2-cdnidentifier";

/// The code in a request head.
fn code(head: &str) -> String {
    let mut lines = head.lines();
    let line = lines
        .find_map(|line| line.strip_prefix(FIELD))
        .unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

async fn scene(code_in_file: &str) -> RotatingSecret {
    let (taken, shown) = (Arc::new(Mutex::new("first")), Arc::default());
    let script = Scripted::answering({
        let (taken, shown): (Arc<Mutex<_>>, Arc<Mutex<Vec<_>>>) =
            (taken.clone(), Arc::clone(&shown));
        move |head| {
            let code = code(head);
            let good = code == *taken.lock();
            shown.lock().push(code);
            let (status, body) = if good {
                ("200 OK", "yes")
            } else {
                ("403 Forbidden", "no")
            };
            let length = body.len();
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("code");
    std::fs::write(&file, code_in_file).unwrap();
    let mut settings = settings(script.address);
    settings.header_files = vec![(FIELD.parse().unwrap(), file.clone())];
    RotatingSecret {
        taken,
        shown,
        origin: origin(settings),
        file,
        _folder: folder,
        _script: script,
    }
}

impl RotatingSecret {
    /// Changes the file and reads it at once.
    fn write(&self, code: &str) {
        std::fs::write(&self.file, code).unwrap();
        self.origin.group.signer.reread_files();
    }

    async fn status(&self) -> u16 {
        whole(&self.origin, get("/x")).await.unwrap().0
    }

    /// The codes received since the last call.
    fn shown(&self) -> Vec<String> {
        std::mem::take(&mut *self.shown.lock())
    }
}

#[tokio::test]
async fn former_header_value_is_tried_if_new_one_is_refused() {
    let scene = scene("first").await;
    assert_eq!(scene.status().await, 200);
    scene.write("second\n");
    assert_eq!(scene.status().await, 200);
    assert_eq!(scene.shown(), ["first", "second", "first"]);
    assert_eq!(scene.origin.stats().total.resent, 1);
    // The accepted value is used first from now on: no request is repeated needlessly.
    assert_eq!(scene.status().await, 200);
    assert_eq!(scene.shown(), ["first"]);
    *scene.taken.lock() = "second";
    assert_eq!(scene.status().await, 200);
    assert_eq!(scene.status().await, 200);
    assert_eq!(scene.shown(), ["first", "second", "second"]);
    assert_eq!(scene.origin.stats().total.resent, 2);
}

#[tokio::test]
async fn first_refusal_is_returned_if_both_values_are_refused() {
    let scene = scene("first").await;
    *scene.taken.lock() = "third";
    assert_eq!(scene.status().await, 403);
    assert_eq!(scene.shown(), ["first"]);
    scene.write("second");
    let answer = whole(&scene.origin, get("/x")).await.unwrap();
    assert_eq!((answer.0, &answer.1[..]), (403, &b"no"[..]));
    assert_eq!(scene.shown(), ["second", "first"]);
    let stats = scene.origin.stats();
    assert_eq!((stats.total.client_error, stats.total.resent), (2, 1));
}

#[tokio::test]
async fn refused_unsafe_request_is_not_resent_with_former_value() {
    let scene = scene("first").await;
    scene.write("second");
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let answer = whole(&scene.origin, request(method, "/x")).await.unwrap();
        assert_eq!(answer.0, 403);
    }
    assert_eq!(scene.shown(), ["second"; 3]);
}

#[tokio::test]
async fn changed_header_file_is_read_without_a_request() {
    let scene = scene("zeroth").await;
    std::fs::write(&scene.file, "first\n").unwrap();
    let noticing = async {
        while scene.origin.group.signer.request_auth().unwrap().headers()[0].1 != "first" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, noticing).await.expect("a look");
    assert_eq!(scene.status().await, 200);
    assert_eq!(scene.shown(), ["first"]);
}

#[test]
fn rejects_empty_header_file_at_startup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("code");
    std::fs::write(&file, "\n").unwrap();
    let mut settings = settings("192.0.2.1:80".parse().unwrap());
    settings.header_files = vec![(FIELD.parse().unwrap(), file.clone())];
    match Origin::new(settings, no_lookup()) {
        Err(SetupError::HeaderFile { path, why }) => {
            assert_eq!((path, &*why), (file, "this file is empty"));
        }
        other => panic!("{other:?}"),
    }
}
