//! Limits what forged signatures cost: one of ES256 takes as long to refuse as many hits to answer.
//! It belongs to one worker.

use std::net::IpAddr;

use ahash::RandomState;

/// Forged signatures of a client in a second that are verified. Then its tokens are refused unread,
/// but for those that were verified before.
const PER_SECOND_MAX: u32 = 50;

/// Clients of the same slot share a limit. Which ones do is known to nobody.
const SLOTS: u64 = 4096;

/// How many forged signatures each client sent in this second.
#[derive(Debug)]
pub(crate) struct ForgedSignatures {
    hasher: RandomState,
    /// The second, and the count in it. Empty until there was one.
    slots: Vec<(u64, u32)>,
}

impl ForgedSignatures {
    pub(crate) fn new() -> ForgedSignatures {
        ForgedSignatures {
            hasher: RandomState::new(),
            slots: Vec::new(),
        }
    }

    /// Whether the client has sent so many that no more are verified in this second.
    pub(crate) fn are_too_many(&self, client: Option<IpAddr>, now: u64) -> bool {
        let slot = self.slots.get(self.slot(client));
        slot.is_some_and(|&(second, count)| second == now && count >= PER_SECOND_MAX)
    }

    pub(crate) fn count(&mut self, client: Option<IpAddr>, now: u64) {
        let slots = usize::try_from(SLOTS).unwrap_or_default();
        self.slots.resize(slots, (0, 0));
        let slot = self.slot(client);
        let (second, count) = &mut self.slots[slot];
        if *second != now {
            (*second, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
    }

    /// A client has a network of IPv6 for itself.
    fn slot(&self, client: Option<IpAddr>) -> usize {
        let client = client.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        });
        let slot = self.hasher.hash_one(client) % SLOTS;
        usize::try_from(slot).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn limits_each_client_for_a_second() {
        let mut forged = ForgedSignatures::new();
        let here = client("192.0.2.1");
        for _ in 0..PER_SECOND_MAX {
            assert!(!forged.are_too_many(here, 7));
            forged.count(here, 7);
        }
        assert!(forged.are_too_many(here, 7));
        assert!(forged.are_too_many(client("::ffff:192.0.2.1"), 7));
        assert!(!forged.are_too_many(here, 8));
        // Of eight others, at most a few share the slot by chance.
        let others = (2..10).map(|last| client(&format!("192.0.2.{last}")));
        let limited = others.filter(|&other| forged.are_too_many(other, 7));
        assert!(limited.count() < 4);
        forged.count(here, 8);
        assert!(!forged.are_too_many(here, 8));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let mut forged = ForgedSignatures::new();
        for last in 0..PER_SECOND_MAX {
            forged.count(client(&format!("2001:db8::{last:x}")), 7);
        }
        assert!(forged.are_too_many(client("2001:db8::ffff"), 7));
    }
}
