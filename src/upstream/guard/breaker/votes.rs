//! Which URLs failed lately, and does that speak against the endpoint? One vote per URL, in bounded
//! memory.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{EndpointFault, FailureSubject};

/// More URLs than this are not remembered, the oldest are forgotten first.
const URLS_MAX: usize = 512;
/// Answers that fail say something of an endpoint where they come from so many directories: one
/// dead channel is one or two.
const DIRECTORIES_MIN: usize = 3;

/// What failed.
#[derive(Debug)]
pub(super) struct Votes {
    window: Duration,
    votes: Vec<Vote>,
}

#[derive(Debug)]
struct Vote {
    subject: FailureSubject,
    fault: EndpointFault,
    at: Instant,
}

impl Votes {
    pub(super) fn new(window: Duration) -> Votes {
        let votes = Vec::new();
        Votes { window, votes }
    }

    pub(super) fn clear(&mut self) {
        self.votes.clear();
    }

    pub(super) fn cast(&mut self, subject: FailureSubject, fault: EndpointFault, now: Instant) {
        let window = self.window;
        self.votes.retain(|vote| {
            vote.subject != subject && now.saturating_duration_since(vote.at) < window
        });
        if self.votes.len() == URLS_MAX {
            self.votes.remove(0);
        }
        self.votes.push(Vote {
            subject,
            fault,
            at: now,
        });
    }

    /// Something of its directory failed within the window.
    pub(super) fn implicates(&self, subject: FailureSubject, now: Instant) -> bool {
        self.votes.iter().any(|vote| {
            let is_recent = now.saturating_duration_since(vote.at) < self.window;
            is_recent && vote.subject.directory == subject.directory
        })
    }

    /// Enough failed, of the kinds and in the places that speak of the endpoint.
    pub(super) fn carry(&mut self, needed: u32, now: Instant) -> bool {
        let window = self.window;
        self.votes
            .retain(|vote| now.saturating_duration_since(vote.at) < window);
        let needed = usize::try_from(needed)
            .unwrap_or(URLS_MAX)
            .clamp(1, URLS_MAX);
        let silent = self.votes.iter().filter(|vote| vote.fault.is_silence());
        let spread = self.directories() >= DIRECTORIES_MIN.min(needed);
        silent.count() >= needed || (spread && self.weight() as usize >= needed)
    }

    /// How many URLs failed; those whose failure is likely their own count half.
    pub(super) fn weight(&self) -> u32 {
        let own = self.votes.iter().filter(|vote| vote.fault.is_of_url());
        let own = own.count();
        let weight = self.votes.len() - own + own.div_ceil(2);
        u32::try_from(weight).unwrap_or(u32::MAX)
    }

    pub(super) fn urls(&self) -> usize {
        self.votes.len()
    }

    pub(super) fn directories(&self) -> usize {
        let directories = self.votes.iter().map(|vote| vote.subject.directory);
        directories.collect::<HashSet<_>>().len()
    }
}
