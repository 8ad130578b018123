//! Raises the limit of open descriptors, and limits the share that viewers may use.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::frontend::Limits;

/// Reserved for connections to origins, listeners, files and the log.
const RESERVE: u64 = 1024;

/// The connections for which there are descriptors. `None`: unknown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DescriptorLimit(Option<usize>);

impl DescriptorLimit {
    /// Raises the limit of open descriptors as far as the system allows.
    pub(super) fn raise() -> DescriptorLimit {
        match raise_to_hard_limit() {
            Ok(available) => {
                tracing::info!(descriptors = available, "descriptor limit is {available}");
                DescriptorLimit(Some(connections_for(available)))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot raise the descriptor limit");
                DescriptorLimit(None)
            }
        }
    }

    /// Keeps viewers below it: a connection that is closed at once is better than one that cannot
    /// be accepted.
    pub(super) fn apply(self, limits: &Limits) -> Limits {
        let configured = limits.connections_max;
        let connections_max = self.0.unwrap_or(configured).min(configured);
        if connections_max < configured {
            tracing::warn!(
                configured,
                connections_max,
                "fewer descriptors than connections allowed: raise the hard limit (ulimit -Hn)"
            );
        }
        Limits {
            connections_max,
            ..limits.clone()
        }
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
    fn lowers_connections_to_what_there_are_descriptors_for() {
        let limits = |connections_max| Limits {
            connections_max,
            ..Limits::default()
        };
        let applied = |limit, configured| DescriptorLimit(limit).apply(&limits(configured));
        assert_eq!(applied(Some(10), 20).connections_max, 10);
        assert_eq!(applied(Some(10), 5).connections_max, 5);
        assert_eq!(applied(None, 20).connections_max, 20);
    }

    #[test]
    fn reserves_descriptors_for_uses_other_than_viewers() {
        assert_eq!(connections_for(256), 192);
        assert_eq!(connections_for(65_536), 64_512);
    }
}
