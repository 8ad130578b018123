//! Reads `catnip`: the networks from which a token may be used (addresses and prefixes of
//! RFC 9164).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::cbor::CborValue;

const IPV4: u64 = 52;
const IPV6: u64 = 54;

/// The networks. Numbers of autonomous systems are left out: which one a client belongs to is not
/// known here, so none permits anything. `None`: something else is in the list.
pub(super) fn read(value: &CborValue<'_>) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    for entry in value.as_array()? {
        match entry {
            CborValue::Integer(system) if u32::try_from(*system).is_ok() => {}
            entry => networks.push(network(entry)?),
        }
    }
    Some(networks)
}

/// One address or prefix.
pub(super) fn network(entry: &CborValue<'_>) -> Option<IpNet> {
    let (address, length) = match entry {
        CborValue::Tagged(IPV4, value) => {
            let (octets, length) = prefix::<4>(value)?;
            (IpAddr::V4(Ipv4Addr::from(octets)), length)
        }
        CborValue::Tagged(IPV6, value) => {
            let (octets, length) = prefix::<16>(value)?;
            (IpAddr::V6(Ipv6Addr::from(octets)), length)
        }
        _ => return None,
    };
    IpNet::new(address, length).ok()
}

/// An address, or an array of the prefix length and the address, which may lack zeros at its end.
fn prefix<const LENGTH: usize>(value: &CborValue<'_>) -> Option<([u8; LENGTH], u8)> {
    if let Some(address) = value.as_bytes() {
        let bits = u8::try_from(LENGTH * 8).ok()?;
        return Some((address.try_into().ok()?, bits));
    }
    let [length, address] = value.as_array()? else {
        return None;
    };
    let address = address.as_bytes()?;
    let mut octets = [0; LENGTH];
    octets.get_mut(..address.len())?.copy_from_slice(address);
    Some((octets, u8::try_from(length.as_integer()?).ok()?))
}
