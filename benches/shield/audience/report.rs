//! The report of an audience: response times, errors, and the ratios.

use crate::audience::viewers::{Tally, Times};
use crate::figures::{percent, ratio};
use crate::table::{Table, grouped};

/// The response time that a hit should not exceed.
const NOTICEABLE_MICROS: u32 = 10_000;

/// What was measured beside the viewers' own tally.
pub struct Measured {
    pub seconds: f64,
    pub shield_cores: f64,
    pub generator_cores: f64,
    pub resident_mebibytes: u64,
    /// Open connections of viewers, as the shield counts them.
    pub connections_open: u64,
    /// Responses, by what the shield's metrics say.
    pub hits: u64,
    pub counted: u64,
    /// Playlist versions made in the measured time; as many segments.
    pub made: u64,
    pub failed_in_warm_up: u64,
}

/// The table of times and the lines below it.
pub fn text(tally: Tally, measured: &Measured) -> String {
    let Measured { seconds, made, .. } = *measured;
    let origin = tally.origin_playlists + tally.origin_segments + tally.origin_missing;
    let errors = tally.errors;
    let (unchanged, collisions) = (tally.unchanged, tally.collisions);
    let (origin_playlists, origin_segments) = (tally.origin_playlists, tally.origin_segments);
    let mut table = Table::new(&[
        "audience",
        "",
        "count",
        "per second",
        "p50 ms",
        "p99",
        "p99.9",
        "max",
        "> 10 ms",
    ]);
    let polls = (tally.playlists.from_memory.len() + tally.playlists.others.len()) as u64;
    let mut responses = 0;
    let mut add = |name: &str, of: &str, times: Vec<u32>| {
        table.row(row(name, of, times, seconds));
    };
    for (name, times) in [("playlists", tally.playlists), ("segments", tally.segments)] {
        let Times {
            from_memory,
            others,
        } = times;
        let all = [from_memory.as_slice(), &others].concat();
        responses += all.len() as u64;
        add(name, "from memory", from_memory);
        add(name, "waited for the origin", others);
        add(name, "all", all);
    }
    add("generator", "request sent late by", tally.lags);
    add("generator", "served sockets for", tally.steps);
    let hit_share = 100.0 * measured.hits as f64 / measured.counted.max(1) as f64;
    let spared = 100.0 * (1.0 - origin as f64 / responses.max(1) as f64);
    format!(
        "{}\n\n\
         errors           {} (statuses {:?}, wrong body {}, truncated {}, no response {}, closed while idle {}); in warm-up {}\n\
         hit ratio        {hit_share:.3} % of {} requests, by the shield's metrics\n\
         origin           {origin} requests: {spared:.2} % of the responses were spared; playlists ÷ versions {}, \
         segments ÷ segments {}, ÷ ideal {}\n\
         polls            {} found no new segment\n\
         shield           {:.2} cores, {:.1} µs of CPU time per response, RSS {} MiB, {} connections open\n\
         generator        {:.2} cores, origin included; {collisions} requests waited for a connection in use\n",
        table.text(),
        errors.sum(),
        errors.statuses,
        errors.body,
        errors.truncated,
        errors.unanswered,
        errors.closed,
        measured.failed_in_warm_up,
        measured.counted,
        ratio(origin_playlists, made),
        ratio(origin_segments, made),
        ratio(origin, 2 * made),
        percent(unchanged as usize, polls as usize),
        measured.shield_cores,
        measured.shield_cores * seconds * 1e6 / responses.max(1) as f64,
        measured.resident_mebibytes,
        measured.connections_open,
        measured.generator_cores,
    )
}

fn row(name: &str, of: &str, mut micros: Vec<u32>, seconds: f64) -> Vec<String> {
    micros.sort_unstable();
    let at = |share: f64| {
        let place = (micros.len() as f64 * share) as usize;
        let found = micros.get(place.min(micros.len().saturating_sub(1)));
        found
            .map(|micros| format!("{:.2}", f64::from(*micros) / 1e3))
            .unwrap_or_default()
    };
    let fast = micros.partition_point(|micros| *micros <= NOTICEABLE_MICROS);
    vec![
        name.to_owned(),
        of.to_owned(),
        grouped(micros.len() as f64),
        grouped(micros.len() as f64 / seconds),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        format!(
            "{:.2} %",
            100.0 * (micros.len() - fast) as f64 / micros.len().max(1) as f64
        ),
    ]
}
