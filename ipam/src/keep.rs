//! How long an address stays claimed after its pod has gone.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What becomes of a claim when its sandbox has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It ends with the pod.
    Pod,
    /// It lasts as long as the workload: a StatefulSet's ordinal, a
    /// Deployment, a bare pod's name.
    App,
    /// It lasts this long after the pod has gone.
    For(Duration),
    /// Until an admin releases it.
    Forever,
}

/// Why a text is not a keep policy, or not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeepError {
    /// Not one of the policies.
    #[error("{0:?} is not a keep policy; write pod, app, forever or a duration such as 24h")]
    Policy(String),
    /// Not a duration.
    #[error("{0:?} is not a duration; write whole numbers with s, m, h or d, such as 30s or 1h30m")]
    Duration(String),
}

impl FromStr for Keep {
    type Err = ParseKeepError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "pod" => Ok(Self::Pod),
            "app" => Ok(Self::App),
            "forever" => Ok(Self::Forever),
            other => parse_duration(other)
                .map(Self::For)
                .map_err(|_| ParseKeepError::Policy(other.to_owned())),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod => f.write_str("pod"),
            Self::App => f.write_str("app"),
            Self::For(time) => write!(f, "{}s", time.as_secs()),
            Self::Forever => f.write_str("forever"),
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Reads `30s`, `24h`, `7d` or `1h30m`, to the second.
///
/// # Errors
/// If the text is anything else, or longer than `u64::MAX` seconds.
pub fn parse_duration(text: &str) -> Result<Duration, ParseKeepError> {
    let bad = || ParseKeepError::Duration(text.to_owned());
    let mut rest = text.trim();
    let mut seconds = 0_u64;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|n| *n > 0)
            .ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return Err(bad()),
        };
        seconds = number
            .checked_mul(unit)
            .and_then(|part| seconds.checked_add(part))
            .ok_or_else(bad)?;
        rest = &rest[digits + 1..];
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_policies_and_durations() {
        assert_eq!("pod".parse(), Ok(Keep::Pod));
        assert_eq!("app".parse(), Ok(Keep::App));
        assert_eq!("forever".parse(), Ok(Keep::Forever));
        assert_eq!("24h".parse(), Ok(Keep::For(Duration::from_secs(86_400))));
        assert_eq!(parse_duration("1d2h3m4s"), Ok(Duration::from_secs(93_784)));
        for bad in [
            "",
            "24",
            "h",
            "1.5h",
            "-1h",
            "1w",
            "1hé",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
            assert!(bad.parse::<Keep>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for keep in [
            Keep::Pod,
            Keep::App,
            Keep::Forever,
            Keep::For(Duration::from_secs(90)),
        ] {
            assert_eq!(keep.to_string().parse(), Ok(keep));
        }
    }
}
