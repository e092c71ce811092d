//! The network configuration on stdin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{CniError, Code};

/// The versions whose results and verbs this program speaks.
pub(crate) const VERSIONS: &[&str] = &["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The version of an error that was found before stdin could be read.
pub(crate) const SPOKEN_FIRST: &str = "1.1.0";

/// What is needed to say which version to answer in.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Versioned {
    pub(crate) cni_version: String,
}

/// Berth's part of a network configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    /// The network's name.
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) cni_version: String,
    /// `embedded`, the default: the folder and the database below.
    #[serde(default)]
    mode: Option<String>,
    /// The folder of Kubernetes YAML.
    #[serde(default = "default_folder")]
    pub(crate) folder: PathBuf,
    /// The SQLite file of allocations.
    #[serde(default = "default_database")]
    pub(crate) database: PathBuf,
    /// The folder of on-disk records.
    #[serde(default = "default_state_dir")]
    pub(crate) state_dir: PathBuf,
    /// This node's name, for people who ask who holds an address.
    #[serde(default)]
    pub(crate) node_name: String,
    #[serde(default)]
    pub(crate) runtime_config: RuntimeConfig,
    #[serde(default)]
    pub(crate) args: ConfigArgs,
    /// `cni.dev/valid-attachments`, GC's input.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub(crate) valid_attachments: Option<Vec<ValidAttachment>>,
    /// The name that it had before.
    #[serde(default, rename = "cni.dev/attachments")]
    pub(crate) attachments: Option<Vec<ValidAttachment>>,
    /// Another IPAM plugin, or as `berth-ipam` this one's own settings.
    #[serde(default)]
    ipam: Option<serde_json::Value>,
    /// `ipam.type`, if another plugin gives the addresses.
    #[serde(skip)]
    pub(crate) delegate: Option<String>,
    /// With another plugin's addresses: the node's interface, as the reference
    /// macvlan has it. Without it, the one that the default route takes.
    #[serde(default)]
    pub(crate) master: Option<String>,
    /// With another plugin's addresses: the MTU.
    #[serde(default)]
    pub(crate) mtu: Option<u32>,
    /// What the plugins before this one made; at CHECK and DEL what all made.
    #[serde(default)]
    pub(crate) prev_result: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RuntimeConfig {
    /// The pod's annotations, by containerd's capability of that name.
    #[serde(default, rename = "io.kubernetes.cri.pod-annotations")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    /// Fixed addresses, by the capability `ips`.
    #[serde(default)]
    pub(crate) ips: Option<Vec<String>>,
    /// A fixed MAC, by the capability `mac`.
    #[serde(default)]
    pub(crate) mac: Option<String>,
}

/// `args` of the configuration: `args.cni.ips` and `args.cni.mac`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ConfigArgs {
    #[serde(default)]
    pub(crate) cni: CniArgs,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct CniArgs {
    #[serde(default)]
    pub(crate) ips: Vec<String>,
    #[serde(default)]
    pub(crate) mac: Option<String>,
}

/// One attachment that GC must leave alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

fn default_folder() -> PathBuf {
    "/etc/berth/objects".into()
}

fn default_database() -> PathBuf {
    "/var/lib/berth/ipam.db".into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/berth/cni".into()
}

fn decode(error: &serde_json::Error) -> CniError {
    CniError::new(
        Code::Decode,
        format!("the network configuration cannot be read: {error}"),
    )
}

/// The plugin that `ipam` names. Empty means none, as under other plugins.
fn delegate(ipam: Option<&serde_json::Value>) -> Result<Option<String>, CniError> {
    let refuse = |code, problem: &str| Err(CniError::new(code, format!("ipam: {problem}")));
    match ipam {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::Object(fields)) if fields.is_empty() => Ok(None),
        Some(ipam) => match ipam["type"].as_str() {
            None | Some("") => refuse(
                Code::InvalidConfig,
                "type is missing; name a plugin, or leave ipam out for Berth's own addresses",
            ),
            Some("berth" | "berth-cni" | "berth-ipam") => refuse(
                Code::UnsupportedField,
                "type berth brings its own addresses; leave ipam out, or use ipam type berth-ipam under another plugin",
            ),
            Some(name) if name.contains('/') || name.starts_with('.') => refuse(
                Code::InvalidConfig,
                &format!("type {name:?} is not a plugin's name; it has no path in it"),
            ),
            Some(name) => Ok(Some(name.to_owned())),
        },
    }
}

impl Versioned {
    /// Reads the version alone.
    pub(crate) fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        // serde would take an array for a struct whose fields have defaults.
        if stdin.trim_ascii_start().first() != Some(&b'{') {
            return Err(CniError::new(
                Code::Decode,
                "the network configuration is not a JSON object",
            ));
        }
        serde_json::from_slice(stdin).map_err(|e| decode(&e))
    }

    /// Refuses a version that is not spoken.
    pub(crate) fn check(&self) -> Result<(), CniError> {
        if VERSIONS.contains(&self.cni_version.as_str()) {
            Ok(())
        } else {
            Err(CniError::new(
                Code::IncompatibleVersion,
                format!(
                    "cniVersion {:?} is not spoken; use one of {}",
                    self.cni_version,
                    VERSIONS.join(", ")
                ),
            ))
        }
    }
}

impl Config {
    /// Reads the configuration of the plugin itself.
    pub(crate) fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let mut config: Self = serde_json::from_slice(stdin).map_err(|e| decode(&e))?;
        config.delegate = delegate(config.ipam.as_ref())?;
        config.checked()
    }

    /// Reads the configuration of a plugin that delegates to `berth-ipam`: the
    /// settings stand under `ipam`, the rest beside it.
    pub(crate) fn parse_delegated(stdin: &[u8]) -> Result<Self, CniError> {
        let mut outer: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(stdin).map_err(|e| decode(&e))?;
        let Some(serde_json::Value::Object(mut inner)) = outer.remove("ipam") else {
            return Err(CniError::new(
                Code::InvalidConfig,
                "ipam: is missing; berth-ipam reads folder, database and nodeName there",
            ));
        };
        for key in [
            "name",
            "cniVersion",
            "runtimeConfig",
            "args",
            "cni.dev/valid-attachments",
            "cni.dev/attachments",
        ] {
            if let Some(value) = outer.remove(key) {
                inner.insert(key.to_owned(), value);
            }
        }
        serde_json::from_value::<Self>(inner.into())
            .map_err(|e| decode(&e))?
            .checked()
    }

    fn checked(self) -> Result<Self, CniError> {
        match self.mode.as_deref() {
            None | Some("embedded") => {}
            Some(other) => {
                return Err(CniError::new(
                    Code::InvalidConfig,
                    format!("mode: {other:?} is not known; use embedded"),
                ));
            }
        }
        for (field, path) in [
            ("folder", &self.folder),
            ("database", &self.database),
            ("stateDir", &self.state_dir),
        ] {
            if !path.is_absolute() {
                return Err(CniError::new(
                    Code::InvalidConfig,
                    format!("{field}: {} is not an absolute path", path.display()),
                ));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_berths_own_and_a_delegated_configuration() {
        let own = br#"{"cniVersion":"1.0.0","name":"n","type":"berth","mode":"embedded","folder":"/a",
            "database":"/b","stateDir":"/c","nodeName":"n1","capabilities":{"ips":true},
            "runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"berth.dev/pool":"p"},"portMappings":[]}}"#;
        let config = Config::parse(own).unwrap();
        assert_eq!(config.database, PathBuf::from("/b"));
        assert_eq!(
            config.runtime_config.annotations.unwrap()["berth.dev/pool"],
            "p"
        );
        let delegated = br#"{"cniVersion":"1.0.0","name":"n","type":"macvlan","master":"eth0",
            "ipam":{"type":"berth-ipam","database":"/b"},"runtimeConfig":{}}"#;
        let config = Config::parse_delegated(delegated).unwrap();
        assert_eq!((&*config.name, config.database), ("n", PathBuf::from("/b")));
    }

    #[test]
    fn each_refusal_has_its_code() {
        let code = |text: &[u8]| Config::parse(text).unwrap_err().code;
        assert_eq!(code(b""), Code::Decode);
        for text in [&b"[]"[..], b"", b"null"] {
            assert_eq!(Versioned::parse(text).unwrap_err().code, Code::Decode);
        }
        assert_eq!(code(&[b'['; 100_000]), Code::Decode);
        assert_eq!(code(br#"{"folder":1}"#), Code::Decode);
        assert_eq!(code(br#"{"folder":"here"}"#), Code::InvalidConfig);
        assert_eq!(code(br#"{"mode":"cluster"}"#), Code::InvalidConfig);
        assert_eq!(
            code(br#"{"ipam":{"type":"berth-ipam"}}"#),
            Code::UnsupportedField
        );
        for ipam in [
            r#"{"ranges":[]}"#,
            r#"{"type":""}"#,
            r#"{"type":"../x"}"#,
            "[]",
        ] {
            assert_eq!(
                code(format!(r#"{{"ipam":{ipam}}}"#).as_bytes()),
                Code::InvalidConfig,
                "{ipam}"
            );
        }
        for (ipam, delegate) in [
            ("null", None),
            ("{}", None),
            (r#"{"type":"static"}"#, Some("static")),
        ] {
            let config = Config::parse(format!(r#"{{"ipam":{ipam}}}"#).as_bytes()).unwrap();
            assert_eq!(config.delegate.as_deref(), delegate);
        }
        assert_eq!(
            Config::parse_delegated(b"{}").unwrap_err().code,
            Code::InvalidConfig
        );
        for version in ["", "0.1.0", "0.2.0", "2.0.0"] {
            let asked = Versioned {
                cni_version: version.to_owned(),
            };
            assert_eq!(asked.check().unwrap_err().code, Code::IncompatibleVersion);
        }
    }
}
