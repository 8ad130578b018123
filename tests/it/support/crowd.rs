//! Many viewers at once, each on a connection of its own.

use tokio::task::JoinSet;

use super::shield::Shield;
use super::viewer::{Arriving, Ask, Response, Viewer};

/// Viewers who have asked and have not been answered yet.
pub struct Crowd {
    waiting: Vec<(Viewer, Ask)>,
}

impl Crowd {
    /// Connects `count` viewers, each of whom asks the same.
    pub async fn asking(shield: &Shield, count: usize, ask: Ask) -> Crowd {
        let mut waiting = Vec::with_capacity(count);
        for _ in 0..count {
            let mut viewer = shield.viewer().await;
            viewer.send(&ask).await;
            waiting.push((viewer, ask.clone()));
        }
        Crowd { waiting }
    }

    /// Everyone's whole answer, read at the same time.
    pub async fn answers(self) -> Vec<Response> {
        self.answering().join_all().await
    }

    /// Everyone's answer, each when it is whole.
    pub fn answering(self) -> JoinSet<Response> {
        let answer = async |(mut viewer, ask): (Viewer, Ask)| viewer.receive(&ask).await;
        self.waiting.into_iter().map(answer).collect()
    }

    /// Everyone with the head of an answer and nothing of its body read.
    pub async fn arriving(self) -> Vec<Arriving> {
        let mut arriving = Vec::with_capacity(self.waiting.len());
        for (viewer, ask) in self.waiting {
            arriving.push(viewer.arriving(&ask).await);
        }
        arriving
    }
}
