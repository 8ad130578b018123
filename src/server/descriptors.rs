//! How many descriptors are there, and how many of them may viewers take?

use crate::frontend::Limits;

/// Kept for connections to origins, listeners, files and the log.
const RESERVE: u64 = 1024;

/// Raises the limit of open descriptors as far as the system allows, and keeps viewers from taking
/// all of them: a connection that is closed at once is better than one nobody can accept.
pub(super) fn raise(limits: &mut Limits) {
    let available = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(available) => available,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the descriptor limit");
            return;
        }
    };
    tracing::info!(descriptors = available, "descriptor limit is {available}");
    let room = room(available);
    if room < limits.connections_max {
        tracing::warn!(
            configured = limits.connections_max,
            connections_max = room,
            "fewer descriptors than connections allowed: raise the hard limit (ulimit -Hn)"
        );
        limits.connections_max = room;
    }
}

/// Connections that fit into so many descriptors.
fn room(descriptors: u64) -> usize {
    let room = descriptors - RESERVE.min(descriptors / 4);
    usize::try_from(room).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::room;

    #[test]
    fn a_share_is_kept_for_everything_but_viewers() {
        assert_eq!(room(256), 192);
        assert_eq!(room(65_536), 64_512);
    }
}
