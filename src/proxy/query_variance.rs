//! Finds query parameters that nearly every fetch of a path sends with another value: sessions and
//! tokens, because of which no two viewers share an object. Knows targets only; the clock is an
//! argument.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use seawall_policy::CacheRequest;

/// The number of fetches that are looked at, and how many of them must differ.
const WINDOW: usize = 60;
const DISTINCT_MIN: usize = 54;
/// A parameter is looked at after so many fetches.
const LOOKED_AT_EVERY: usize = 6;
/// Paths with a query, in each of two generations; together 2 MiB at most.
const PATHS_MAX: usize = 512;
/// Parameters of a path. Of more, the ones seen longest ago are forgotten.
const PARAMETERS_MAX: usize = 8;
/// A longer name is not looked at.
const NAME_BYTES_MAX: usize = 64;
/// Parameters that were found, of all routes.
const FINDINGS_MAX: usize = 64;
/// A parameter is found again, and reported again, after this time.
const REPORTED_EVERY: Duration = Duration::from_hours(1);
/// The delivery directives of LL-HLS differ by design, and each value names an object.
const DIRECTIVES: &str = "_HLS_";

/// The query parameters of recent fetches.
#[derive(Default)]
pub(super) struct QueryVariance {
    state: Mutex<Observations>,
    hasher: RandomState,
}

#[derive(Default)]
struct Observations {
    /// Paths by hash, those seen since the last change of generations.
    current: HashMap<u64, Vec<Parameter>>,
    /// Those seen in the generation before.
    previous: HashMap<u64, Vec<Parameter>>,
    findings: Vec<Finding>,
}

/// A parameter of one path.
struct Parameter {
    name: Box<str>,
    /// Hashes of its last values, the oldest one at `next` when there are enough.
    values: Vec<u32>,
    next: usize,
}

/// A parameter of a route, found at this time.
struct Finding {
    route: Box<str>,
    name: Box<str>,
    at: Instant,
}

impl QueryVariance {
    /// Notes a fetch for a viewer, and logs what keeps viewers from sharing its response.
    pub(super) fn observe(&self, request: &CacheRequest, now: Instant) {
        let (route, path) = (&request.route, request.target.path());
        let Some(query) = request.target.query() else {
            return;
        };
        for parameter in self.record_fetch(&route.name, path, query, now) {
            let route = &*route.name;
            tracing::warn!(
                route,
                path,
                parameter,
                "nearly every fetch has another value of this query parameter, so no two viewers \
                 share an object: if no response depends on it, write query = {{ except = \
                 [\"{parameter}\"] }} in the route; if it is the origin's session, switch that off \
                 at the origin"
            );
        }
    }

    /// The parameters that nearly every fetch of this path sends with another value.
    pub(super) fn of_request(&self, request: &CacheRequest) -> Vec<String> {
        self.varying(&request.route.name, request.target.path())
    }

    /// Notes a fetch of this target. Returns the parameters that are to be reported now: found for
    /// the first time in an hour on this route.
    fn record_fetch(&self, route: &str, path: &str, query: &str, now: Instant) -> Vec<String> {
        let path_hash = self.hasher.hash_one((route, path));
        let mut state = self.state.lock();
        let mut found = Vec::new();
        let parameters = state.parameters(path_hash);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name.len() > NAME_BYTES_MAX || name.starts_with(DIRECTIVES) {
                continue;
            }
            let value = self.hasher.hash_one(value);
            let parameter = record_value(parameters, name, fold(value));
            if parameter.next.is_multiple_of(LOOKED_AT_EVERY) && parameter.is_varying() {
                found.push(name.to_owned());
            }
        }
        found.retain(|name| state.is_news(route, name, now));
        found
    }

    fn varying(&self, route: &str, path: &str) -> Vec<String> {
        let path_hash = self.hasher.hash_one((route, path));
        let state = self.state.lock();
        let known = state.current.get(&path_hash);
        let known = known.or_else(|| state.previous.get(&path_hash));
        let parameters = known.into_iter().flatten();
        let varying = parameters.filter(|parameter| parameter.is_varying());
        varying
            .map(|parameter| parameter.name.to_string())
            .collect()
    }

    /// The number of parameters, by route, that were found within the last hour.
    pub(super) fn varying_count(&self, now: Instant) -> u64 {
        let mut state = self.state.lock();
        state.forget_old_findings(now);
        state.findings.len() as u64
    }
}

/// Half of the bits of a hash.
#[expect(
    clippy::cast_possible_truncation,
    reason = "32 bits tell 60 values apart"
)]
fn fold(hash: u64) -> u32 {
    hash as u32
}

impl Observations {
    /// The parameters of a path. The oldest generation is forgotten when the newest one is full.
    fn parameters(&mut self, path_hash: u64) -> &mut Vec<Parameter> {
        if self.current.len() >= PATHS_MAX && !self.current.contains_key(&path_hash) {
            self.previous = std::mem::take(&mut self.current);
        }
        let previous = &mut self.previous;
        let known = || previous.remove(&path_hash).unwrap_or_default();
        self.current.entry(path_hash).or_insert_with(known)
    }

    fn forget_old_findings(&mut self, now: Instant) {
        let is_recent =
            |finding: &Finding| now.saturating_duration_since(finding.at) < REPORTED_EVERY;
        self.findings.retain(is_recent);
    }

    /// Whether this is not known of the route yet; then it is known from now on.
    fn is_news(&mut self, route: &str, name: &str, now: Instant) -> bool {
        self.forget_old_findings(now);
        let is_same = |found: &Finding| *found.route == *route && *found.name == *name;
        if self.findings.len() >= FINDINGS_MAX || self.findings.iter().any(is_same) {
            return false;
        }
        self.findings.push(Finding {
            route: route.into(),
            name: name.into(),
            at: now,
        });
        true
    }
}

/// Adds a value to a parameter, which moves to the end: the first one was seen longest ago.
fn record_value<'p>(parameters: &'p mut Vec<Parameter>, name: &str, value: u32) -> &'p Parameter {
    let known = parameters.iter().position(|known| *known.name == *name);
    let mut parameter = match known {
        Some(index) => parameters.remove(index),
        None => Parameter::new(name),
    };
    parameter.record(value);
    if parameters.len() >= PARAMETERS_MAX {
        parameters.remove(0);
    }
    parameters.push(parameter);
    &parameters[parameters.len() - 1]
}

impl Parameter {
    fn new(name: &str) -> Parameter {
        Parameter {
            name: name.into(),
            values: Vec::new(),
            next: 0,
        }
    }

    fn record(&mut self, value: u32) {
        if self.values.len() < WINDOW {
            self.values.push(value);
        } else {
            self.values[self.next] = value;
            self.next = (self.next + 1) % WINDOW;
        }
    }

    fn is_varying(&self) -> bool {
        if self.values.len() < WINDOW {
            return false;
        }
        let mut values = self.values.clone();
        values.sort_unstable();
        values.dedup();
        values.len() >= DISTINCT_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "live";
    const PATH: &str = "/live/index.m3u8";

    /// Notes this many fetches, each with its number in the query.
    fn record(
        variance: &QueryVariance,
        count: usize,
        query: impl Fn(usize) -> String,
        now: Instant,
    ) -> Vec<String> {
        let record = |number| variance.record_fetch(ROUTE, PATH, &query(number), now);
        (0..count).flat_map(record).collect()
    }

    #[test]
    fn names_a_session_of_60_fetches_once_an_hour() {
        let (variance, now) = (QueryVariance::default(), Instant::now());
        let query = |number: usize| format!("start=1&session=s{number}&x");
        assert!(record(&variance, 59, query, now).is_empty());
        assert!(variance.varying(ROUTE, PATH).is_empty());
        assert_eq!(
            variance.record_fetch(ROUTE, PATH, "session=other", now),
            ["session"]
        );
        assert_eq!(variance.varying(ROUTE, PATH), ["session"]);
        assert!(variance.varying("other", PATH).is_empty());
        let later = now + Duration::from_mins(59);
        assert!(record(&variance, 200, query, later).is_empty());
        assert_eq!(variance.varying_count(later), 1);
        let hour_later = now + REPORTED_EVERY;
        assert_eq!(variance.varying_count(hour_later), 0);
        assert_eq!(
            record(&variance, LOOKED_AT_EVERY, query, hour_later),
            ["session"]
        );
    }

    #[test]
    fn does_not_name_what_viewers_share() {
        let (variance, now) = (QueryVariance::default(), Instant::now());
        let query = |number: usize| format!("user={}&lang=en", number / 2);
        assert!(record(&variance, 500, query, now).is_empty());
        // Eight of sixty are the same: 53 differ.
        let query = |number: usize| format!("token={}", if number % 60 < 8 { 0 } else { number });
        assert!(record(&variance, 60, query, now).is_empty());
    }

    #[test]
    fn does_not_name_delivery_directives() {
        let (variance, now) = (QueryVariance::default(), Instant::now());
        let query = |number: usize| format!("_HLS_msn={number}&_HLS_part={number}");
        assert!(record(&variance, 500, query, now).is_empty());
    }

    #[test]
    fn random_names_and_paths_take_no_more_memory() {
        let (variance, now) = (QueryVariance::default(), Instant::now());
        let query = |number: usize| format!("n{number}=1&session=s{number}");
        // A parameter of every fetch is kept among names that occur once.
        assert_eq!(record(&variance, 500, query, now), ["session"]);
        for number in 0..5_000 {
            let path = format!("/{number}");
            variance.record_fetch(ROUTE, &path, "session=1", now);
        }
        let state = variance.state.lock();
        let paths = state.current.len() + state.previous.len();
        assert!(paths <= 2 * PATHS_MAX, "{paths}");
        let lists = state.current.values().chain(state.previous.values());
        assert!(lists.map(Vec::len).all(|count| count <= PARAMETERS_MAX));
        drop(state);
        for number in 0..100 {
            let name = format!("p{number}");
            record(&variance, 60, |value| format!("{name}=v{value}"), now);
        }
        assert_eq!(variance.varying_count(now), FINDINGS_MAX as u64);
    }

    #[test]
    fn path_that_is_fetched_again_outlives_others() {
        let (variance, now) = (QueryVariance::default(), Instant::now());
        for number in 0..60 {
            let session = format!("session={number}");
            let found = variance.record_fetch(ROUTE, PATH, &session, now);
            assert_eq!(found.is_empty(), number < 59, "{number}");
            for other in 0..100 {
                variance.record_fetch(ROUTE, &format!("/{number}/{other}"), "a=1", now);
            }
        }
    }
}
