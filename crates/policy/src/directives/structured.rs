//! Parses a line as a structured dictionary (RFC 8941 §4.2.2). A malformed line is rejected as a
//! whole. The members are not interpreted.

use std::time::Duration;

use super::{Argument, SECONDS_MAX};

/// Calls `member` for each member of a line and returns their number. `None` if any part of the
/// line is malformed, even after calls of `member`.
pub(super) fn dictionary(line: &[u8], mut member: impl FnMut(&[u8], Argument)) -> Option<usize> {
    let mut cursor = StructuredCursor { rest: line };
    cursor.skip(b" ");
    let mut members = 0;
    while !cursor.rest.is_empty() {
        let key = cursor.key()?;
        let argument = if cursor.eat(b'=') {
            cursor.value()?
        } else {
            Argument::Flag(true)
        };
        cursor.parameters()?;
        member(key, argument);
        members += 1;

        cursor.skip(b" \t");
        if cursor.rest.is_empty() {
            break;
        }
        cursor.expect(b',')?;
        cursor.skip(b" \t");
        if cursor.rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct StructuredCursor<'a> {
    rest: &'a [u8],
}

impl<'a> StructuredCursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    fn skip(&mut self, blanks: &[u8]) {
        self.take_while(|byte| blanks.contains(&byte));
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !wanted(byte));
        let (taken, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// `( lcalpha / "*" ) *( lcalpha / DIGIT / "_" / "-" / "." / "*" )`
    fn key(&mut self) -> Option<&'a [u8]> {
        if !matches!(self.peek()?, b'a'..=b'z' | b'*') {
            return None;
        }
        let key = self.take_while(
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'),
        );
        Some(key)
    }

    fn value(&mut self) -> Option<Argument> {
        if self.eat(b'(') {
            self.inner_list()?;
            return Some(Argument::Text);
        }
        self.bare_item()
    }

    /// After the opening bracket: items separated by spaces. Lists cannot be nested.
    fn inner_list(&mut self) -> Option<()> {
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(());
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.peek()?, b' ' | b')') {
                return None;
            }
        }
    }

    /// `*( ";" *SP key [ "=" bare-item ] )`. Parameters of directives are ignored (RFC 9213 §2.1).
    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn bare_item(&mut self) -> Option<Argument> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => self.boolean(),
            b':' => self.byte_sequence(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                self.take_while(is_token);
                Some(Argument::Text)
            }
            _ => None,
        }
    }

    /// An integer of at most 15 digits, or a decimal (12 digits, a point, 1 to 3 digits). A decimal
    /// is not a number of seconds: RFC 9213 §2.1 forbids the conversion.
    fn number(&mut self) -> Option<Argument> {
        let negative = self.eat(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 {
            return None;
        }
        if self.eat(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            let sound = whole.len() <= 12 && matches!(fraction.len(), 1..=3);
            return sound.then_some(Argument::Text);
        }
        if negative {
            return Some(Argument::Text);
        }
        let count = whole
            .iter()
            .fold(0_u64, |count, digit| count * 10 + u64::from(digit - b'0'));
        Some(Argument::Seconds(Duration::from_secs(
            count.min(SECONDS_MAX),
        )))
    }

    fn string(&mut self) -> Option<Argument> {
        self.expect(b'"')?;
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(Argument::Text),
                b'\\' => {
                    let (&escaped, rest) = self.rest.split_first()?;
                    if !matches!(escaped, b'"' | b'\\') {
                        return None;
                    }
                    self.rest = rest;
                }
                0x20..=0x7e => {}
                _ => return None,
            }
        }
    }

    fn boolean(&mut self) -> Option<Argument> {
        self.expect(b'?')?;
        if self.eat(b'1') {
            return Some(Argument::Flag(true));
        }
        self.expect(b'0')?;
        Some(Argument::Flag(false))
    }

    fn byte_sequence(&mut self) -> Option<Argument> {
        self.expect(b':')?;
        self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
        self.expect(b':')?;
        Some(Argument::Text)
    }
}

/// `tchar`, `:` and `/`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(line: &str) -> Option<usize> {
        dictionary(line.as_bytes(), |_, _| {})
    }

    // RFC 8941 §3.2, and the item types of §3.3.
    #[test]
    fn well_formed_lines() {
        for (line, count) in [
            ("", 0),
            ("max-age=60", 1),
            ("max-age=60, no-store", 2),
            ("a=1;x;y=?0 \t,\tb=(1 \"2\" c;d=1), c=:aGk=:", 3),
            ("a=-1, b=1.125, c=\"q\\\"\\\\\", d=Tok*en/1:2, *e=?1", 5),
            ("a=( )", 1),
        ] {
            assert_eq!(members(line), Some(count), "{line}");
        }
    }

    // RFC 8941 §4.2: when parsing fails the entire field is ignored.
    #[test]
    fn malformed_lines() {
        for line in [
            "max-age=60,",
            ",max-age=60",
            "max-age=60 no-store",
            "Max-Age=60",
            "max-age=",
            "max-age = 60",
            "a=1.",
            "a=1.2345",
            "a=1234567890123456",
            "a=--1",
            "a=\"open",
            "a=\"\\n\"",
            "a=?2",
            "a=:aGk",
            "a=(1",
            "a=(1\"2\")",
            "a=1;",
            "a=é",
            "&=1",
        ] {
            assert_eq!(members(line), None, "{line}");
        }
    }
}
