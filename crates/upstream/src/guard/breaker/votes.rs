//! Counts recent failures, one per URL, and decides whether they point to the endpoint. Memory is
//! bounded.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{EndpointFault, FailureSubject};

/// Maximum number of remembered URLs; the oldest is dropped first.
const URLS_MAX: usize = 512;
/// Error responses count against the endpoint only when they come from at least this many
/// directories. One dead channel is one or two directories.
const DIRECTORIES_MIN: usize = 3;

/// The failures within the window.
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

    /// Counts failures within another window from now on.
    pub(super) fn set_window(&mut self, window: Duration) {
        self.window = window;
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

    /// Whether anything in the subject's directory failed within the window.
    pub(super) fn has_failed_directory(&self, subject: FailureSubject, now: Instant) -> bool {
        self.votes.iter().any(|vote| {
            let is_recent = now.saturating_duration_since(vote.at) < self.window;
            is_recent && vote.subject.directory == subject.directory
        })
    }

    /// Whether enough URLs failed, with faults and directories that point to the endpoint.
    pub(super) fn is_decisive(&mut self, needed: u32, now: Instant) -> bool {
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

    /// Number of failed URLs. URLs with an error of their own count half.
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
