//! Reads `[cache]` and `[fill]`.

use crate::config::problem::Problem;
use crate::config::spelling::nearest;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue, new_name};
use crate::config::{ValueError, read};
use crate::proxy;
use seawall_cache;
use seawall_manifest::Kind;

/// Reads `[cache]`, except for the keys of `proxy::Settings`.
pub(super) fn read_cache(table: &mut TomlTable<'_>, cache: &mut seawall_cache::Settings) {
    table.read_into("memory", &mut cache.memory_bytes, read::size);
    let object = table.value("object_max");
    table.read_into("object_max", &mut cache.object_bytes_max, read::size);
    table.read_into("variants_max", &mut cache.variants_max, read::count);
    table.read_into("tags_max", &mut cache.tags_max, read::count);
    let kind_max = table.value("kind_max");
    table.read_into("kind_max", &mut cache.kind_bytes_max, kinds);
    if let Some(kind_max) = kind_max.filter(|_| !seawall_cache::MemoryShares::leave_room(cache)) {
        let expected =
            "at most fifteen sixteenths of `memory` in all, to leave room for the other kinds";
        let error = ValueError::new(expected, "too much of `memory`");
        let problem = kind_max.problem(error);
        let help = "lower these bounds, or raise `memory`";
        table.reader().add_problem(problem.help(help));
        cache.kind_bytes_max.clear();
    }
    if cache.object_bytes_max > cache.memory_bytes {
        if let Some(object) = object {
            let expected = "at most `memory`, which holds all objects";
            table
                .reader()
                .add_problem(object.problem(ValueError::new(expected, "larger than `memory`")));
        }
        cache.object_bytes_max = cache.memory_bytes;
    }
}

fn kinds(value: TomlValue<'_>) -> ReadResult<Vec<(Kind, u64)>> {
    let mut limits = Vec::new();
    for entry in value.entries("a table such as { hls = \"64MiB\" }")? {
        let size = value.reader().value_or_report(read::size(entry.value));
        let words = Kind::ALL.map(Kind::as_str);
        let Some(kind) = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == entry.key)
        else {
            let problem = Problem::new(format!("there is no kind of content `{}`", entry.key));
            let new_name = new_name(entry.key, &words);
            value
                .reader()
                .add_problem(match (new_name, nearest(entry.key, words)) {
                    (Some(new), _) => problem.at(entry.span, format!("its name is `{new}` now")),
                    (_, Some(word)) => problem.at(entry.span, format!("did you mean `{word}`?")),
                    (_, None) => problem
                        .at(entry.span, "not a kind")
                        .help(format!("the kinds are {}", words.join(", "))),
                });
            continue;
        };
        limits.extend(size.map(|size| (kind, size)));
    }
    limits.sort_by_key(|(kind, _)| kind.index());
    Ok(limits)
}

/// Reads `[fill]`.
pub(super) fn read_fill(
    table: &mut TomlTable<'_>,
    cache: &mut seawall_cache::Settings,
    shield: &mut proxy::Settings,
) {
    table.read_into("memory", &mut cache.fill_bytes_max, read::size);
    table.read_into("waiters_max", &mut cache.waiters_max, read::count);
    table.read_into("wait_max", &mut shield.wait_max, read::timeout);
    table.read_into("stale_wait_max", &mut shield.stale_wait_max, read::duration);
    table.read_into(
        "failure_backoff",
        &mut shield.failure_backoff,
        read::duration,
    );
    table.read_into("finish_abandoned", &mut shield.finish_abandoned, read::flag);
    table.read_into("whole_max", &mut shield.whole_fetch_max, read::size_or_zero);
    table.read_into("slice", &mut shield.slice_bytes, read::size);
    table.read_into("manifest_max", &mut shield.manifest_bytes_max, read::size);
}
