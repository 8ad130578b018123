//! Writes Common Media Server Data (CMSD, CTA-5006): only `CMSD-Dynamic`. The origin's
//! `CMSD-Static` is forwarded unchanged.

/// The item of one server about one response: its name, and whether it is under duress (`du`), so
/// that a player may reduce its bitrate. Never stored. Characters that no header may contain are
/// removed from the name.
///
/// An item of a structured field (RFC 9651 §3.3).
pub fn cmsd_dynamic(server: &str, duress: bool) -> String {
    let mut item = String::with_capacity(server.len() + 5);
    item.push('"');
    for letter in server.chars() {
        match letter {
            '"' | '\\' => item.extend(['\\', letter]),
            ' '..='~' => item.push(letter),
            _ => {}
        }
    }
    item.push_str(if duress { "\";du" } else { "\"" });
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cmsd_server_name_is_quoted_and_escaped() {
        assert_eq!(cmsd_dynamic("seawall", false), "\"seawall\"");
        assert_eq!(cmsd_dynamic("seawall", true), "\"seawall\";du");
        assert_eq!(cmsd_dynamic("a\"b\\c", false), "\"a\\\"b\\\\c\"");
        assert_eq!(cmsd_dynamic("é\r\nx", false), "\"x\"");
    }

    proptest! {
        #[test]
        fn cmsd_dynamic_is_always_a_valid_header_value(server: String, duress: bool) {
            let value = cmsd_dynamic(&server, duress);
            prop_assert!(http::HeaderValue::from_str(&value).is_ok());
        }
    }
}
