//! Domain names as they stand in a message: length-prefixed labels, lower
//! case, ending in the root (RFC 1035 section 3.1).
//!
//! Knows nothing of records, zones or Kubernetes.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Longest name in wire form, with the root (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;
/// Longest label (RFC 1035 section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// A domain name in wire form, lower case, uncompressed. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

/// Why a text is not a domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between two dots, or nothing at all.
    #[error("{0:?} has an empty label; write labels of 1 to 63 characters between single dots")]
    EmptyLabel(String),
    /// A label of more than 63 octets.
    #[error("the label {0:?} has {len} characters; shorten it to 63", len = .0.len())]
    LongLabel(String),
    /// More than 255 octets in all.
    #[error("{0:?} is longer than 253 characters; shorten it")]
    LongName(String),
    /// A character that a host name cannot have.
    #[error(
        "the label {0:?} is not valid; use letters, digits and inner hyphens (RFC 1123 section 2.1)"
    )]
    BadLabel(String),
}

impl Name {
    /// The root, `.`.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from([0_u8].as_slice()))
    }

    /// Reads `shop.corp.example`, with or without the last dot, in any case.
    ///
    /// # Errors
    /// If it is not a name of letters, digits, underscores and inner hyphens.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            if label.is_empty() {
                return Err(NameError::EmptyLabel(text.to_owned()));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(NameError::BadLabel(label.to_owned()));
            }
            push_label(&mut wire, label)?;
        }
        wire.push(0);
        if wire.len() > MAX_NAME {
            return Err(NameError::LongName(text.to_owned()));
        }
        Ok(Self(wire.into()))
    }

    /// `label` in front of this name. Hyphens may stand anywhere: an IPv6
    /// address written with dashes can begin with one.
    ///
    /// # Errors
    /// If the label or the whole becomes too long, or has other characters.
    pub fn child(&self, label: &str) -> Result<Self, NameError> {
        if label.is_empty() {
            return Err(NameError::EmptyLabel(format!(".{self}")));
        }
        let mut wire = Vec::with_capacity(self.0.len() + label.len() + 1);
        push_label(&mut wire, label)?;
        wire.extend_from_slice(&self.0);
        if wire.len() > MAX_NAME {
            return Err(NameError::LongName(format!("{label}.{self}")));
        }
        Ok(Self(wire.into()))
    }

    /// The name without its first label; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match self.0[0] {
            0 => None,
            len => Some(Self(self.0[1 + usize::from(len)..].into())),
        }
    }

    /// Whether this name is `apex` or lies below it.
    #[must_use]
    pub fn is_within(&self, apex: &Self) -> bool {
        suffixes(&self.0).any(|suffix| *suffix == *apex.0)
    }

    /// The name that a PTR record of `address` has: `57.0.20.10.in-addr.arpa`
    /// (RFC 1035 section 3.5), or nibbles under `ip6.arpa` (RFC 3596).
    #[must_use]
    pub fn reverse(address: IpAddr) -> Self {
        let text = match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().rev();
                let mut text: String = nibbles
                    .map(|octet| format!("{:x}.{:x}.", octet & 0xf, octet >> 4))
                    .collect();
                text.push_str("ip6.arpa");
                text
            }
        };
        Self::parse(&text).expect("digits and two fixed labels, under 80 characters")
    }

    /// The octets as they stand in a message, with the root's zero.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }
}

/// Every suffix of a well-formed wire name, the whole first and the root last.
pub(crate) fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(wire);
    std::iter::from_fn(move || {
        let current = rest?;
        let len = usize::from(*current.first()?);
        rest = if len == 0 {
            None
        } else {
            current.get(1 + len..)
        };
        Some(current)
    })
}

fn push_label(wire: &mut Vec<u8>, label: &str) -> Result<(), NameError> {
    if label.len() > MAX_LABEL {
        return Err(NameError::LongLabel(label.to_owned()));
    }
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if !label.bytes().all(plain) {
        return Err(NameError::BadLabel(label.to_owned()));
    }
    wire.push(u8::try_from(label.len()).expect("at most 63, checked above"));
    wire.extend(label.bytes().map(|c| c.to_ascii_lowercase()));
    Ok(())
}

/// Whether `text` is one label that a host may have (RFC 1123 section 2.1).
#[must_use]
pub fn is_host_label(text: &str) -> bool {
    !text.contains(['.', '_']) && Name::parse(text).is_ok()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == [0] {
            return f.write_str(".");
        }
        for (i, suffix) in suffixes(&self.0).enumerate() {
            let len = usize::from(suffix[0]);
            if len > 0 {
                let dot = if i == 0 { "" } else { "." };
                write!(f, "{dot}{}", suffix[1..=len].escape_ascii())?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lowers_and_writes() {
        let name = Name::parse("Shop.Corp.Example.").unwrap();
        assert_eq!(name.as_wire(), b"\x04shop\x04corp\x07example\x00");
        assert_eq!(name.to_string(), "shop.corp.example");
        assert_eq!(
            name.child("_TCP").unwrap().to_string(),
            "_tcp.shop.corp.example"
        );
        assert_eq!(name.parent().unwrap().to_string(), "corp.example");
        assert_eq!(Name::root().to_string(), ".");
        assert_eq!(Name::root().parent(), None);
    }

    #[test]
    fn suffix_means_whole_labels() {
        let apex = Name::parse("corp.example").unwrap();
        assert!(apex.is_within(&apex));
        assert!(Name::parse("a.corp.example").unwrap().is_within(&apex));
        assert!(!Name::parse("acorp.example").unwrap().is_within(&apex));
        assert!(!Name::parse("example").unwrap().is_within(&apex));
        assert!(apex.is_within(&Name::root()));
    }

    #[test]
    fn reverses_both_families() {
        let v4 = Name::reverse("10.20.0.57".parse().unwrap());
        assert_eq!(v4.to_string(), "57.0.20.10.in-addr.arpa");
        let v6 = Name::reverse("fd00::57".parse().unwrap()).to_string();
        assert!(v6.starts_with("7.5.0.0.") && v6.ends_with(".0.0.d.f.ip6.arpa"));
    }

    #[test]
    fn refuses_with_the_mend() {
        let long = "a".repeat(64);
        let wide = vec!["a".repeat(63); 4].join(".");
        for (text, mend) in [
            ("", "empty label"),
            ("a..b", "empty label"),
            (long.as_str(), "shorten it to 63"),
            (wide.as_str(), "longer than 253"),
            ("a b", "letters, digits"),
            ("-a.b", "inner hyphens"),
        ] {
            let told = Name::parse(text).unwrap_err().to_string();
            assert!(told.contains(mend), "{text}: {told}");
        }
        let widest = format!("{}.{}", vec!["a".repeat(63); 3].join("."), "a".repeat(61));
        assert_eq!(Name::parse(&widest).unwrap().as_wire().len(), MAX_NAME);
    }
}
