//! Raises the limit of open descriptors, and limits the share that viewers may use.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::frontend::Limits;

/// Reserved for connections to origins, listeners, files and the log.
const RESERVE: u64 = 1024;

/// Raises the limit of open descriptors as far as the system allows, and keeps viewers below it: a
/// connection that is closed at once is better than one that cannot be accepted.
pub(super) fn raise_limit(limits: &mut Limits) {
    let available = match raise_to_hard_limit() {
        Ok(available) => available,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the descriptor limit");
            return;
        }
    };
    tracing::info!(descriptors = available, "descriptor limit is {available}");
    let connections = connections_for(available);
    if connections < limits.connections_max {
        tracing::warn!(
            configured = limits.connections_max,
            connections_max = connections,
            "fewer descriptors than connections allowed: raise the hard limit (ulimit -Hn)"
        );
        limits.connections_max = connections;
    }
}

/// Returns the new limit.
fn raise_to_hard_limit() -> nix::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Connections that fit into this number of descriptors.
fn connections_for(descriptors: u64) -> usize {
    let connections = descriptors - RESERVE.min(descriptors / 4);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_the_limit_once_and_for_all() {
        let raised = raise_to_hard_limit().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, hard), (raised, raised));
        assert_eq!(raise_to_hard_limit(), Ok(raised));
    }

    #[test]
    fn reserves_descriptors_for_uses_other_than_viewers() {
        assert_eq!(connections_for(256), 192);
        assert_eq!(connections_for(65_536), 64_512);
    }
}
