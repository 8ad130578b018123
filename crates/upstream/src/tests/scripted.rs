//! An origin that sends exactly the bytes that a test specifies.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A listening scripted origin; stops when dropped.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// One accepted connection.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    /// Its number, from 0.
    pub(super) number: usize,
}

impl Scripted {
    /// Runs `script` on every connection.
    pub(super) async fn play<F>(script: impl Fn(Wire) -> F + Send + 'static) -> Scripted
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                wires.spawn(script(Wire { stream, number }));
            }
        });
        Scripted {
            address,
            accepted,
            _tasks: tasks,
        }
    }

    /// Answers every request on every connection with the same bytes.
    pub(super) async fn always(answer: &'static str) -> Scripted {
        Scripted::play(move |mut wire| async move {
            while wire.request().await.is_some() {
                wire.say(answer).await;
            }
        })
        .await
    }

    /// Answers every request with a function of its head.
    pub(super) async fn answering(
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Scripted {
        let answer = Arc::new(answer);
        Scripted::play(move |mut wire| {
            let answer = answer.clone();
            async move {
                while let Some(head) = wire.request().await {
                    wire.say(&answer(&head)).await;
                }
            }
        })
        .await
    }

    /// Answers one request per connection, and closes it.
    pub(super) async fn once(answer: &'static str) -> Scripted {
        Scripted::play(move |mut wire| async move {
            wire.request().await;
            wire.say(answer).await;
        })
        .await
    }

    /// Answers one request per connection, and sends nothing more.
    pub(super) async fn then_silent(answer: &'static str) -> Scripted {
        Scripted::play(move |mut wire| async move {
            wire.request().await;
            wire.say(answer).await;
            std::future::pending::<()>().await;
        })
        .await
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Wire {
    /// The head of the next request; `None` when the shield has closed.
    pub(super) async fn request(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        Some(String::from_utf8(head).unwrap())
    }

    pub(super) async fn say(&mut self, text: &str) {
        // The shield may have closed: the test must detect that.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Waits until the shield has closed.
    pub(super) async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
    }
}
