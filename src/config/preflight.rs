//! Checks the configuration against this machine: asks the resolver for origins, and the kernel
//! for addresses, memory and the files of logs.
//!
//! Only `seawall check` does so. A start does not wait for names, because origins come and go.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::file::{AddressUse, ConfigDraft, ConfiguredLog};
use super::problem::Problem;
use crate::frontend::ListenAddress;
use crate::telemetry::check_log_path;
use seawall_upstream::{Endpoint, Resolver};

/// A name that takes longer to resolve counts as unknown.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Names resolved at the same time.
const LOOKUPS_MAX: usize = 16;

/// The system's resolver.
pub(super) fn system_lookup() -> Resolver {
    Arc::new(|host: &str, port: u16| Ok((host, port).to_socket_addrs()?.collect()))
}

/// Adds problems: addresses that this machine does not have, names that it cannot resolve, logs
/// that cannot be opened. Creates nothing.
pub(super) fn check(draft: &mut ConfigDraft, lookup: &Resolver, machine_bytes: Option<u64>) {
    let mut problems = Vec::new();
    problems.extend(machine_bytes.and_then(|bytes| memory_warning(draft, bytes)));
    for configured in &draft.addresses {
        if let Err(why) = check_address(&configured.address) {
            let what = match configured.used_as {
                AddressUse::Listener => "viewers cannot connect here",
                AddressUse::Admin => "operators cannot connect here",
            };
            problems.push(at_or_help(Problem::new(what), configured.span.clone(), why));
        }
    }
    for batch in draft.endpoints.chunks(LOOKUPS_MAX) {
        let endpoints: Vec<_> = batch.iter().map(|(endpoint, _)| endpoint.clone()).collect();
        for ((_, span), why) in batch.iter().zip(resolve(&endpoints, lookup)) {
            let Some(why) = why else { continue };
            // The host is not quoted: part of it may come from the environment.
            let problem = Problem::new("this origin's name cannot be resolved");
            let problem = problem.at(span.clone(), why);
            problems.push(problem.help("check the name, or use --offline to leave this out"));
        }
    }
    problems.extend(draft.logs.iter().filter_map(log_problem));
    for problem in problems {
        draft.problems.push(problem);
    }
}

/// The problem of a log that this user could not open here.
fn log_problem(log: &ConfiguredLog) -> Option<Problem> {
    let error = check_log_path(&log.path).err()?;
    let why = if log.has_variables {
        error.kind().to_string()
    } else {
        error.to_string()
    };
    let problem = Problem::new(format!("the {} cannot be opened", log.name));
    let help = "the server creates no directories; check as the user that it runs as, or use \
                --offline to leave this out";
    Some(problem.at(log.span.clone(), why).help(help))
}

/// Memory that this process may use: the machine's, or its control group's if that is less.
pub(super) fn machine_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok());
    Some(group.unwrap_or(u64::MAX).min(kib.saturating_mul(1024)))
}

/// Warns if bodies may take more memory than the machine has.
fn memory_warning(draft: &ConfigDraft, machine_bytes: u64) -> Option<Problem> {
    let needed_bytes = draft.bodies_bytes_max();
    if needed_bytes <= machine_bytes {
        return None;
    }
    let mib = |bytes: u64| bytes >> 20;
    let problem = Problem::warning("the system may end the program before its memory is full");
    let label = format!(
        "with `memory` of [fill] {} MiB, and there are {} MiB here",
        mib(needed_bytes),
        mib(machine_bytes)
    );
    let problem = at_or_help(problem, draft.memory.clone(), label);
    Some(match draft.memory {
        Some(_) => problem.help("lower `memory`, and leave some for connections and the system"),
        None => problem,
    })
}

fn at_or_help(problem: Problem, span: Option<super::problem::SourceSpan>, why: String) -> Problem {
    match span {
        Some(span) => problem.at(span, why),
        None => problem.help(why),
    }
}

/// Whether this machine has the address. The port is not tried: the server may be running.
fn check_address(address: &ListenAddress) -> Result<(), String> {
    match address {
        ListenAddress::Tcp(address) => match TcpListener::bind(SocketAddr::new(address.ip(), 0)) {
            Ok(_) => Ok(()),
            Err(why) if why.kind() == io::ErrorKind::AddrNotAvailable => {
                Err("this machine does not have this address".to_owned())
            }
            Err(why) => Err(why.to_string()),
        },
        ListenAddress::Unix(path) => match path.parent() {
            Some(folder) if folder.is_dir() => Ok(()),
            _ => Err("the folder of this socket does not exist".to_owned()),
        },
    }
}

/// Why each of these cannot be resolved; `None` for those that can. Bounded by the deadline: a
/// resolver that hangs leaves its thread behind, which ends with the program.
fn resolve(endpoints: &[Endpoint], lookup: &Resolver) -> Vec<Option<String>> {
    let (sender, receiver) = mpsc::sync_channel(endpoints.len());
    let mut reasons = Vec::new();
    for (configured, endpoint) in endpoints.iter().cloned().enumerate() {
        let (sender, lookup) = (sender.clone(), Arc::clone(lookup));
        let thread = thread::Builder::new().spawn(move || {
            let reason = match lookup(&endpoint.host, endpoint.port) {
                Ok(addresses) if addresses.is_empty() => Some("no address known".to_owned()),
                Ok(_) => None,
                Err(why) => Some(why.to_string()),
            };
            let _ = sender.send((configured, reason));
        });
        let unanswered = thread.map_or_else(|why| why.to_string(), |_| timeout_message());
        reasons.push(Some(unanswered));
    }
    drop(sender);
    let deadline = Instant::now() + RESOLVE_MAX;
    while let Ok((configured, reason)) =
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        reasons[configured] = reason;
    }
    reasons
}

fn timeout_message() -> String {
    format!("no answer within {} s", RESOLVE_MAX.as_secs())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file;
    use super::*;

    fn check_text(source: &str) -> String {
        let lookup: Resolver = Arc::new(|host: &str, port: u16| match host {
            "good.example" => Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]),
            "empty.example" => Ok(Vec::new()),
            _ => Err(io::Error::other("no such name")),
        });
        let mut draft = file::read(source, Path::new("seawall.toml"), &|_| None);
        check(&mut draft, &lookup, Some(8 << 30));
        draft.problems.to_string()
    }

    #[test]
    fn warns_of_more_memory_than_the_machine_has() {
        let of = |memory: &str| {
            check_text(&format!(
                "[cache]\nmemory = \"{memory}\"\n[[origin]]\nendpoints = [\"http://good.example\"]\n"
            ))
        };
        let text = of("8GiB");
        assert!(text.contains("warning: the system may end"), "{text}");
        assert!(text.contains("seawall.toml:2:10"), "{text}");
        assert_eq!(of("7GiB"), "");
    }

    #[test]
    fn underlines_names_that_do_not_resolve() {
        let text = check_text(
            "[[origin]]\nendpoints = [\n  \"https://good.example\",\n  \"https://bad.example\",\n  \
             \"https://empty.example\",\n]\n",
        );
        assert!(
            text.contains("this origin's name cannot be resolved"),
            "{text}"
        );
        assert!(text.contains("seawall.toml:4:3"), "{text}");
        assert!(
            text.contains("^^^^^^^^^^^^^^^^^^^^^ no such name"),
            "{text}"
        );
        assert!(
            text.contains("seawall.toml:5:3") && text.contains("no address known"),
            "{text}"
        );
        assert!(!text.contains("good.example"), "{text}");
    }

    #[test]
    fn underlines_addresses_of_other_machines() {
        let text = check_text(
            "[[listener]]\nlisten = \"192.0.2.77:8080\"\n[[listener]]\nlisten = \
             \"unix:/nowhere/at/all/s.sock\"\n[[listener]]\nlisten = \"127.0.0.1:8080\"\n\
             [[origin]]\nendpoints = [\"http://good.example\"]\n",
        );
        assert!(text.contains("seawall.toml:2:10"), "{text}");
        assert!(text.contains("does not have this address"), "{text}");
        assert!(
            text.contains("seawall.toml:4:10") && text.contains("does not exist"),
            "{text}"
        );
        assert!(!text.contains(":6:"), "{text}");
    }
}
