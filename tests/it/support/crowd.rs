//! Many concurrent viewers, each on its own connection.

use tokio::task::JoinSet;

use super::shield::Shield;
use super::viewer::{Arriving, Ask, Response, Viewer};

/// Viewers who have sent a request and have no response yet.
pub struct Crowd {
    waiting: Vec<(Viewer, Ask)>,
}

impl Crowd {
    /// Connects `count` viewers who all send the same request.
    pub async fn connect(shield: &Shield, count: usize, ask: Ask) -> Crowd {
        let mut waiting = Vec::with_capacity(count);
        for _ in 0..count {
            let mut viewer = shield.viewer().await;
            viewer.send(&ask).await;
            waiting.push((viewer, ask.clone()));
        }
        Crowd { waiting }
    }

    /// All complete responses, read concurrently.
    pub async fn read_all(self) -> Vec<Response> {
        self.spawn_reads().join_all().await
    }

    /// The responses, each as soon as it is complete.
    pub fn spawn_reads(self) -> JoinSet<Response> {
        let answer = async |(mut viewer, ask): (Viewer, Ask)| viewer.receive(&ask).await;
        self.waiting.into_iter().map(answer).collect()
    }

    /// All viewers with the response head, and no body byte read.
    pub async fn read_heads(self) -> Vec<Arriving> {
        let mut arriving = Vec::with_capacity(self.waiting.len());
        for (viewer, ask) in self.waiting {
            arriving.push(viewer.receive_head(&ask).await);
        }
        arriving
    }
}
