//! Holds the keys of the tokens that routes demand, re-read while the program runs, and what each
//! worker remembers of tokens that it has verified. `authorization` decides about a token.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use http::Uri;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use thread_local::ThreadLocal;

use super::token_keys::{read_keys, read_token_key, token_rules};
use seawall_authorization::{TokenRejection, TokenRules, VerifiedTokens};
use seawall_policy::{RequiredToken, Route, Rules};

/// Verified tokens that one worker remembers, and their memory.
const TOKENS_MAX: usize = 1 << 16;
const TOKENS_BYTES_MAX: usize = 16 << 20;

/// The rules for the token of a request.
pub(super) type CurrentTokenRules = Guard<Arc<TokenRules>>;

/// Counters of tokens.
#[derive(Clone, Debug)]
pub struct TokenStats {
    /// Refused requests, by why.
    pub refused: Vec<(&'static str, u64)>,
    /// Tokens that all workers remember.
    pub remembered: u64,
    /// Their memory in bytes.
    pub remembered_bytes: u64,
    /// Tokens that had to go for others.
    pub evictions: u64,
    /// Tokens whose signature was verified.
    pub verifications: u64,
}

impl TokenStats {
    /// The words for why a token is refused.
    pub const REASONS: [&'static str; TokenRejection::WORDS.len()] = TokenRejection::WORDS;
}

/// The tokens that the routes demand.
#[derive(Default)]
pub(super) struct TokenControl {
    groups: Vec<TokenGroup>,
    /// What each route with a token demands, and its place in `groups`.
    places: Vec<(Arc<RequiredToken>, usize)>,
    /// The names under which a path may begin with a token.
    path_names: Vec<String>,
    /// Shared with what a reload replaces this by.
    shared: Arc<SharedTokens>,
}

/// What all routes have that demand the same.
struct TokenGroup {
    required: Arc<RequiredToken>,
    keys: Mutex<Vec<Vec<u8>>>,
    current: ArcSwap<TokenRules>,
    /// A file was unusable at the last read.
    was_unusable: AtomicBool,
}

#[derive(Default)]
struct SharedTokens {
    /// One for each worker: locked by another thread only while it is counted.
    verified: ThreadLocal<Mutex<VerifiedTokens>>,
    refused: [AtomicU64; TokenRejection::WORDS.len()],
}

impl TokenControl {
    /// Reads the keys of all tokens that routes demand. The error names the file that has none.
    pub(super) fn read(rules: &Rules) -> Result<TokenControl, (PathBuf, String)> {
        let mut control = TokenControl::default();
        let demanded = rules.routes.iter();
        for required in demanded.filter_map(|route| route.access.token.as_ref()) {
            let mut groups = control.groups.iter();
            let known = groups.position(|group| group.required == *required);
            let place = known.unwrap_or(control.groups.len());
            if known.is_none() {
                control.groups.push(TokenGroup::read(required)?);
            }
            control.places.push((Arc::clone(required), place));
            let name = required.path.as_ref();
            control.path_names.extend(name.cloned());
        }
        control.path_names.dedup();
        Ok(control)
    }

    /// Goes on counting where the one before ended, and keeps the rules that have not changed: what
    /// was verified by them is remembered.
    pub(super) fn succeeding(self, before: &TokenControl) -> TokenControl {
        for group in &self.groups {
            let mut former = before.groups.iter();
            let same = former.find(|former| {
                former.required == group.required && *former.keys.lock() == *group.keys.lock()
            });
            if let Some(same) = same {
                group.current.store(same.current.load_full());
            }
        }
        TokenControl {
            shared: Arc::clone(&before.shared),
            ..self
        }
    }

    /// Whether a route demands a token.
    pub(super) fn is_used(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Reads the files again. Blocks. A file that cannot be used keeps its last key.
    pub(super) fn reread_files(&self) {
        for group in &self.groups {
            group.reread();
        }
    }

    /// Takes the tokens away with which the path begins, on whichever route: they are no part of
    /// the path by which a route is found. Returns the target with them.
    pub(super) fn take_path_tokens(&self, uri: &mut Uri) -> Option<PathAndQuery> {
        if self.path_names.is_empty() {
            return None;
        }
        let path = self.path_without_token(uri.path());
        if path.len() == uri.path().len() {
            return None;
        }
        let query = uri
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        let target = format!("{path}{query}");
        let sent = uri.path_and_query()?.clone();
        set_target(uri, target).then_some(sent)
    }

    /// The path without its tokens. One whose end is missing is taken away too.
    pub(super) fn path_without_token<'p>(&self, path: &'p str) -> &'p str {
        let mut rest = path;
        let value = |path: &'p str| {
            let mut names = self.path_names.iter();
            names.find_map(|name| {
                path.strip_prefix('/')?
                    .strip_prefix(name)?
                    .strip_prefix('=')
            })
        };
        while let Some(token) = value(rest) {
            rest = token.find('/').map_or("/", |end| &token[end..]);
        }
        rest
    }

    /// The rules for the tokens that these routes demand, each once.
    pub(super) fn rules_of<'r>(
        &self,
        routes: impl Iterator<Item = &'r Arc<Route>>,
    ) -> Vec<CurrentTokenRules> {
        let mut places: Vec<usize> = Vec::new();
        for required in routes.filter_map(|route| route.access.token.as_ref()) {
            let mut known = self.places.iter();
            let place = known.find(|(known, _)| Arc::ptr_eq(known, required));
            debug_assert!(place.is_some(), "a route of this generation");
            if let Some((_, place)) = place
                && !places.contains(place)
            {
                places.push(*place);
            }
        }
        let current = |place: usize| self.groups[place].current.load();
        places.into_iter().map(current).collect()
    }

    /// Lets `decide` use what this worker remembers of verified tokens.
    pub(super) fn with_verified<T>(&self, decide: impl FnOnce(&mut VerifiedTokens) -> T) -> T {
        let empty = || Mutex::new(VerifiedTokens::new(TOKENS_MAX, TOKENS_BYTES_MAX));
        decide(&mut self.shared.verified.get_or(empty).lock())
    }

    pub(super) fn count_refusal(&self, rejection: TokenRejection) {
        self.shared.refused[rejection.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> TokenStats {
        let counts = self.shared.refused.iter();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        let mut stats = TokenStats {
            refused: TokenRejection::WORDS.into_iter().zip(counts).collect(),
            remembered: 0,
            remembered_bytes: 0,
            evictions: 0,
            verifications: 0,
        };
        for verified in &self.shared.verified {
            let of_worker = verified.lock().stats();
            stats.remembered += of_worker.entries as u64;
            stats.remembered_bytes += of_worker.bytes as u64;
            stats.evictions += of_worker.evictions;
            stats.verifications += of_worker.verifications;
        }
        stats
    }
}

impl TokenGroup {
    fn read(required: &Arc<RequiredToken>) -> Result<TokenGroup, (PathBuf, String)> {
        let keys = read_keys(required)?;
        let rules = token_rules(required, &keys).map_err(|why| {
            let file = required.keys.first().map(|(_, path)| path.clone());
            (file.unwrap_or_default(), why.to_string())
        })?;
        Ok(TokenGroup {
            required: Arc::clone(required),
            keys: Mutex::new(keys),
            current: ArcSwap::from_pointee(rules),
            was_unusable: AtomicBool::new(false),
        })
    }

    fn reread(&self) {
        let mut keys = self.keys.lock();
        let mut is_unusable = false;
        let mut is_changed = false;
        for ((id, path), key) in self.required.keys.iter().zip(keys.iter_mut()) {
            match read_token_key(self.required.kind, id, path) {
                Ok(read) => {
                    is_changed |= *key != read;
                    *key = read;
                }
                Err(why) => {
                    is_unusable = true;
                    if !self.was_unusable.load(Ordering::Relaxed) {
                        let path = path.display();
                        tracing::warn!(key = id, %path, why, "token key not usable: last one kept");
                    }
                }
            }
        }
        self.was_unusable.store(is_unusable, Ordering::Relaxed);
        if !is_changed {
            return;
        }
        match token_rules(&self.required, &keys) {
            Ok(rules) => {
                self.current.store(Arc::new(rules));
                tracing::info!("token keys changed: the new ones are used");
            }
            Err(why) => tracing::error!(%why, "token keys changed, and are not usable"),
        }
    }
}

/// Sets path and query. `false`: they are no target.
pub(super) fn set_target(uri: &mut Uri, target: String) -> bool {
    let Ok(target) = PathAndQuery::try_from(target) else {
        return false;
    };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    match Uri::from_parts(parts) {
        Ok(changed) => {
            *uri = changed;
            true
        }
        Err(_) => false,
    }
}
