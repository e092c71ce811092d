//! What the operator says of the zones.

use std::net::IpAddr;
use std::str::FromStr;

use crate::model::Key;
use crate::name::{Name, NameError};

/// The zones to serve.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's zone, `cluster.local`.
    pub cluster: Name,
    /// The company's zones.
    pub company: Vec<CompanyZone>,
    /// Time to live of every record, in seconds. Short, because a pod that is
    /// not ready must leave the answers of caches too.
    pub ttl: u32,
    /// The addresses of this server: glue for the zones' NS record.
    pub server_addresses: Vec<IpAddr>,
}

impl Config {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If two zones have the same name.
    pub fn new(cluster: Name, company: Vec<CompanyZone>, ttl: u32) -> Result<Self, ConfigError> {
        for (i, zone) in company.iter().enumerate() {
            let earlier = company[..i].iter().map(|z| &z.apex);
            if earlier.chain([&cluster]).any(|apex| *apex == zone.apex) {
                return Err(ConfigError::Twice(zone.apex.to_string()));
            }
        }
        Ok(Self {
            cluster,
            company,
            ttl,
            server_addresses: Vec::new(),
        })
    }

    /// The innermost zone that holds `name` below its apex: its place among
    /// [`Self::apexes`].
    pub(crate) fn zone_of(&self, name: &Name) -> Option<usize> {
        self.apexes()
            .enumerate()
            .filter(|(_, apex)| name.is_within(apex) && name != *apex)
            .max_by_key(|(_, apex)| apex.as_wire().len())
            .map(|(place, _)| place)
    }

    /// Every apex, the cluster's first.
    pub(crate) fn apexes(&self) -> impl Iterator<Item = &Name> {
        std::iter::once(&self.cluster).chain(self.company.iter().map(|zone| &zone.apex))
    }
}

/// What is wrong with a zone on the command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No `=`.
    #[error(
        "company zone {0:?} has no template; write ZONE=TEMPLATE, such as apps.corp.example={{service}}-{{namespace}}"
    )]
    NoTemplate(String),
    /// `{pod}` and the like.
    #[error(
        "company zone {zone}: the template {template:?} has the unknown placeholder {{{placeholder}}}; there are {{service}} and {{namespace}}"
    )]
    UnknownPlaceholder {
        /// The zone.
        zone: String,
        /// The whole template.
        template: String,
        /// What stands between the braces.
        placeholder: String,
    },
    /// Braces that do not match.
    #[error(
        "company zone {zone}: the template {template:?} has a brace without its partner; write {{service}} and {{namespace}}"
    )]
    Brace {
        /// The zone.
        zone: String,
        /// The whole template.
        template: String,
    },
    /// All Services would have one name.
    #[error(
        "company zone {zone}: the template {template:?} has no {{service}}, so all Services would have one name; add it"
    )]
    NoService {
        /// The zone.
        zone: String,
        /// The whole template.
        template: String,
    },
    /// The fixed parts of the template, or the zone, make no valid name.
    #[error("company zone {zone}: the template {template:?} does not make a valid name: {error}")]
    BadName {
        /// The zone.
        zone: String,
        /// The whole template.
        template: String,
        /// Why not.
        #[source]
        error: NameError,
    },
    /// Two zones of one name.
    #[error("zone {0} is given twice; give each zone once")]
    Twice(String),
}

/// A zone of the company's in which Services have names by a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanyZone {
    /// The zone's own name.
    pub apex: Name,
    template: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Service,
    Namespace,
}

impl CompanyZone {
    /// The name that the template gives to a Service.
    ///
    /// # Errors
    /// If the result is not a valid name, because it is too long for example.
    pub fn name_of(&self, service: &Key) -> Result<Name, NameError> {
        let text: String = self
            .template
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Service => &service.name,
                Part::Namespace => &service.namespace,
            })
            .collect();
        Name::parse(&format!("{text}.{}", self.apex))
    }
}

impl FromStr for CompanyZone {
    type Err = ConfigError;

    /// Reads `ZONE=TEMPLATE`.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let Some((zone, template)) = text.split_once('=') else {
            return Err(ConfigError::NoTemplate(text.to_owned()));
        };
        let brace = || ConfigError::Brace {
            zone: zone.to_owned(),
            template: template.to_owned(),
        };
        let bad_name = |error| ConfigError::BadName {
            zone: zone.to_owned(),
            template: template.to_owned(),
            error,
        };
        let mut parts = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            let (text, placeholder) = match rest.split_once('{') {
                Some((text, after)) => {
                    let (placeholder, after) = after.split_once('}').ok_or_else(brace)?;
                    rest = after;
                    (text, Some(placeholder))
                }
                None => (std::mem::take(&mut rest), None),
            };
            if text.contains('}') {
                return Err(brace());
            }
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            match placeholder {
                None => {}
                Some("service") => parts.push(Part::Service),
                Some("namespace") => parts.push(Part::Namespace),
                Some(other) => {
                    return Err(ConfigError::UnknownPlaceholder {
                        zone: zone.to_owned(),
                        template: template.to_owned(),
                        placeholder: other.to_owned(),
                    });
                }
            }
        }
        if !parts.contains(&Part::Service) {
            return Err(ConfigError::NoService {
                zone: zone.to_owned(),
                template: template.to_owned(),
            });
        }
        let zone = Self {
            apex: Name::parse(zone).map_err(bad_name)?,
            template: parts,
        };
        let shortest = Key {
            namespace: "n".to_owned(),
            name: "s".to_owned(),
        };
        zone.name_of(&shortest).map_err(bad_name)?;
        Ok(zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_the_template() {
        let key = Key {
            namespace: "data".into(),
            name: "cassandra".into(),
        };
        for (template, name) in [
            ("{service}-{namespace}", "cassandra-data.apps.corp.example"),
            ("{service}.{namespace}", "cassandra.data.apps.corp.example"),
            ("k8s-{service}", "k8s-cassandra.apps.corp.example"),
        ] {
            let zone: CompanyZone = format!("apps.corp.example={template}").parse().unwrap();
            assert_eq!(zone.name_of(&key).unwrap().to_string(), name);
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_template() {
        for (text, told) in [
            ("apps.corp.example", "has no template; write ZONE=TEMPLATE"),
            (
                "a.b={service}-{pod}",
                "unknown placeholder {pod}; there are {service} and {namespace}",
            ),
            ("a.b={service", "brace without its partner"),
            ("a.b=service}", "brace without its partner"),
            ("a.b={namespace}", "has no {service}"),
            ("a.b=", "has no {service}"),
            (
                "a.b=-{service}",
                "does not make a valid name: the label \"-s\"",
            ),
            (
                "a..b={service}",
                "does not make a valid name: \"a..b\" has an empty label",
            ),
        ] {
            let error = text.parse::<CompanyZone>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_zone_is_given_once() {
        let cluster = Name::parse("cluster.local").unwrap();
        let zone: CompanyZone = "cluster.local={service}".parse().unwrap();
        let error = Config::new(cluster, vec![zone], 5).unwrap_err().to_string();
        assert!(
            error.contains("zone cluster.local is given twice"),
            "{error}"
        );
    }
}
