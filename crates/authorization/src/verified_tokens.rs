//! Remembers verified tokens, so that the next request with one costs a lookup instead of a
//! signature. Only valid ones: a flood of others pushes none out. It belongs to one worker.

use ahash::RandomState;
use hashbrown::HashTable;

use super::TokenClaims;
use super::forged_signatures::ForgedSignatures;

/// Verified tokens, up to a number and a size. Where there is no room, those go first that were
/// not used since the last search for room (the clock algorithm).
#[derive(Debug)]
pub struct VerifiedTokens {
    entries_max: usize,
    bytes_max: usize,
    hasher: RandomState,
    /// Where in `tokens` each is, by the hash of rules and token.
    places: HashTable<usize>,
    tokens: Vec<VerifiedToken>,
    /// The next one that may have to go.
    hand: usize,
    bytes: usize,
    evictions: u64,
    verifications: u64,
    /// What was not verified.
    pub(crate) forged: ForgedSignatures,
}

/// How full the memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifiedTokenStats {
    /// Tokens remembered.
    pub entries: usize,
    /// Their memory in bytes, about.
    pub bytes: usize,
    /// Tokens that had to go for others.
    pub evictions: u64,
    /// Tokens that were not found, and were verified.
    pub verifications: u64,
}

#[derive(Debug)]
struct VerifiedToken {
    hash: u64,
    rules_number: u64,
    token: Box<str>,
    claims: TokenClaims,
    bytes: usize,
    was_used: bool,
}

impl VerifiedTokens {
    /// Room for this many tokens with this much memory.
    pub fn new(entries_max: usize, bytes_max: usize) -> VerifiedTokens {
        VerifiedTokens {
            entries_max,
            bytes_max,
            hasher: RandomState::new(),
            places: HashTable::new(),
            tokens: Vec::new(),
            hand: 0,
            bytes: 0,
            evictions: 0,
            verifications: 0,
            forged: ForgedSignatures::new(),
        }
    }

    /// How full it is.
    pub fn stats(&self) -> VerifiedTokenStats {
        VerifiedTokenStats {
            entries: self.tokens.len(),
            bytes: self.bytes,
            evictions: self.evictions,
            verifications: self.verifications,
        }
    }

    pub(crate) fn count_verification(&mut self) {
        self.verifications += 1;
    }

    /// What the token permits under these rules, if it was verified by them. All of it is compared:
    /// a hash alone could be met.
    pub(crate) fn find(&mut self, rules_number: u64, token: &str) -> Option<&TokenClaims> {
        let hash = self.hasher.hash_one((rules_number, token));
        let place = self.place(hash, rules_number, token)?;
        let verified = &mut self.tokens[place];
        verified.was_used = true;
        Some(&verified.claims)
    }

    /// Remembers a verified token that [`VerifiedTokens::find`] did not find.
    pub(crate) fn remember(&mut self, rules_number: u64, token: &str, claims: TokenClaims) {
        let bytes = size_of::<VerifiedToken>() + token.len() + claims.heap_bytes();
        if self.entries_max == 0 || bytes > self.bytes_max {
            return;
        }
        while self.tokens.len() >= self.entries_max || self.bytes + bytes > self.bytes_max {
            self.evict();
        }
        let hash = self.hasher.hash_one((rules_number, token));
        let tokens = &self.tokens;
        self.places
            .insert_unique(hash, tokens.len(), |&place| tokens[place].hash);
        self.bytes += bytes;
        self.tokens.push(VerifiedToken {
            hash,
            rules_number,
            token: token.into(),
            claims,
            bytes,
            was_used: false,
        });
    }

    /// Forgets a token that can permit nothing more.
    pub(crate) fn forget(&mut self, rules_number: u64, token: &str) {
        let hash = self.hasher.hash_one((rules_number, token));
        if let Some(place) = self.place(hash, rules_number, token) {
            self.remove(place);
        }
    }

    fn place(&self, hash: u64, rules_number: u64, token: &str) -> Option<usize> {
        let is_it = |&place: &usize| {
            let verified = &self.tokens[place];
            verified.rules_number == rules_number && *verified.token == *token
        };
        self.places.find(hash, is_it).copied()
    }

    /// Removes one that was not used lately. The second time round there is one.
    fn evict(&mut self) {
        loop {
            self.hand = if self.hand < self.tokens.len() {
                self.hand
            } else {
                0
            };
            let verified = &mut self.tokens[self.hand];
            if !std::mem::take(&mut verified.was_used) {
                break;
            }
            self.hand += 1;
        }
        self.evictions += 1;
        self.remove(self.hand);
    }

    /// The last one takes its place.
    fn remove(&mut self, place: usize) {
        let last = self.tokens.len() - 1;
        let last_hash = self.tokens[last].hash;
        let removed = self.tokens.swap_remove(place);
        self.bytes -= removed.bytes;
        if let Ok(entry) = self.places.find_entry(removed.hash, |&at| at == place) {
            entry.remove();
        }
        if let Some(moved) = self.places.find_mut(last_hash, |&at| at == last) {
            *moved = place;
        }
    }
}

#[cfg(test)]
mod tests;
