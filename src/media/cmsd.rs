//! What does the shield tell a player about the way to it (Common Media Server Data, CTA-5006)?
//! Only writes `CMSD-Dynamic`; the origin's `CMSD-Static` passes through unread.

use std::fmt;
use std::time::Duration;

/// What is said of one response, by one server on its way. Never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmsdDynamic<'a> {
    /// Which server says it. What no header can carry is left out of the name.
    pub server: &'a str,
    /// `etp`: the throughput that is expected.
    pub throughput_kbps: Option<u32>,
    /// `rtt`: a round trip to the viewer.
    pub round_trip: Option<Duration>,
    /// `mb`: no bitrate above this one should be asked for.
    pub bitrate_max_kbps: Option<u32>,
    /// `du`: the server is under duress.
    pub duress: bool,
}

/// An item of a structured field (RFC 9651 §3.3): the server's name and its parameters.
impl fmt::Display for CmsdDynamic<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"")?;
        for letter in self.server.chars() {
            match letter {
                '"' | '\\' => write!(out, "\\{letter}")?,
                ' '..='~' => write!(out, "{letter}")?,
                _ => {}
            }
        }
        out.write_str("\"")?;
        if let Some(kbps) = self.throughput_kbps {
            write!(out, ";etp={kbps}")?;
        }
        if let Some(round_trip) = self.round_trip {
            // Structured fields have integers of fifteen digits.
            let millis = round_trip.as_millis().min(999_999_999_999_999);
            write!(out, ";rtt={millis}")?;
        }
        if let Some(kbps) = self.bitrate_max_kbps {
            write!(out, ";mb={kbps}")?;
        }
        if self.duress {
            out.write_str(";du")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_known_is_said() {
        let nothing = CmsdDynamic {
            server: "seawall",
            ..CmsdDynamic::default()
        };
        assert_eq!(nothing.to_string(), "\"seawall\"");
        let all = CmsdDynamic {
            throughput_kbps: Some(115),
            round_trip: Some(Duration::from_millis(16)),
            bitrate_max_kbps: Some(5000),
            duress: true,
            ..nothing
        };
        assert_eq!(all.to_string(), "\"seawall\";etp=115;rtt=16;mb=5000;du");
        let round_trip = Some(Duration::MAX);
        let long = CmsdDynamic {
            round_trip,
            ..nothing
        };
        assert_eq!(long.to_string(), "\"seawall\";rtt=999999999999999");
    }

    #[test]
    fn names_are_quoted() {
        let named = |server| {
            CmsdDynamic {
                server,
                ..CmsdDynamic::default()
            }
            .to_string()
        };
        assert_eq!(named("a\"b\\c"), "\"a\\\"b\\\\c\"");
        assert_eq!(named("é\r\nx"), "\"x\"");
    }

    proptest! {
        #[test]
        fn a_header_can_carry_it(server: String) {
            let value = CmsdDynamic { server: &server, ..CmsdDynamic::default() }.to_string();
            prop_assert!(http::HeaderValue::from_str(&value).is_ok());
        }
    }
}
