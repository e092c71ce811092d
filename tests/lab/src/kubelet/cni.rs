//! Calling the CNI plugin exactly as containerd does: environment, CNI_ARGS,
//! configuration on stdin (CNI specification 1.0.0; containerd's go-cni).

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::controllers::shapes::Labels;
use crate::ground::enter::Place;

/// The plugin's binary and what every call on one node shares.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// `berth-lab`, which starts it in the node.
    pub lab: PathBuf,
    /// `berth-cni`.
    pub binary: PathBuf,
    /// The node.
    pub place: Place,
    /// The plugin's own part of the network configuration.
    pub config: Value,
}

/// One pod's sandbox, as the plugin is told about it.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// 64 hexadecimal digits.
    pub container_id: String,
    /// The sandbox's namespace file.
    pub netns: PathBuf,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The pod's annotations.
    pub annotations: Labels,
}

/// What ADD gave the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The pod's first address.
    pub address: IpAddr,
    /// The MAC of its interface, as the plugin tells it.
    pub mac: Option<String>,
}

#[derive(Debug, Deserialize)]
struct AddResult {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    #[serde(default)]
    mac: Option<String>,
    #[serde(default)]
    sandbox: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Ip {
    address: IpNetwork,
    interface: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl Plugin {
    /// Gives the pod its interface.
    ///
    /// # Errors
    /// The plugin's own words, if it refuses.
    pub fn add(&self, attachment: &Attachment) -> Result<Attached> {
        let output = self.call("ADD", attachment)?;
        parse_add(&output)
    }

    /// Takes the pod's interface away.
    ///
    /// # Errors
    /// The plugin's own words, if it refuses.
    pub fn del(&self, attachment: &Attachment) -> Result<()> {
        self.call("DEL", attachment).map(drop)
    }

    fn call(&self, verb: &str, attachment: &Attachment) -> Result<Vec<u8>> {
        let what = format!("berth-cni {verb}");
        let mut child = self
            .command(verb, attachment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {what}"))?;
        let mut stdin = child.stdin.take().expect("it was asked for above");
        let config = serde_json::to_vec(&self.network(attachment))?;
        // A plugin that ends before it has read all says why on stdout.
        let _ = stdin.write_all(&config);
        drop(stdin);
        let output = child
            .wait_with_output()
            .with_context(|| format!("wait for {what}"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(refusal(&what, &output.stdout, &output.stderr))
    }

    fn command(&self, verb: &str, attachment: &Attachment) -> Command {
        let mut command = self.place.command(&self.lab, &self.binary);
        let folder = self.binary.parent().unwrap_or(Path::new("/"));
        command
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &attachment.container_id)
            .env("CNI_NETNS", &attachment.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", folder)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};\
                     K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
                    attachment.namespace, attachment.name, attachment.container_id, attachment.uid
                ),
            );
        command
    }

    /// What libcni makes of a plugin's entry in a conflist: its capabilities
    /// are taken out, and their values put into `runtimeConfig`.
    fn network(&self, attachment: &Attachment) -> Value {
        let mut network = self.config.clone();
        network["name"] = "berth".into();
        network["cniVersion"] = "1.0.0".into();
        if let Some(fields) = network.as_object_mut() {
            fields.remove("capabilities");
        }
        network["runtimeConfig"] =
            json!({"io.kubernetes.cri.pod-annotations": attachment.annotations});
        network
    }
}

fn parse_add(output: &[u8]) -> Result<Attached> {
    let text = || String::from_utf8_lossy(output).into_owned();
    let result: AddResult = serde_json::from_slice(output)
        .with_context(|| format!("read the result of berth-cni ADD: {}", text()))?;
    let Some(ip) = result.ips.first() else {
        bail!("berth-cni ADD succeeded without an address: {}", text());
    };
    let interface = match ip.interface {
        Some(index) => result.interfaces.get(index),
        None => result.interfaces.iter().find(|i| i.sandbox.is_some()),
    };
    Ok(Attached {
        address: ip.address.ip(),
        mac: interface.and_then(|interface| interface.mac.clone()),
    })
}

fn refusal(what: &str, stdout: &[u8], stderr: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<Refusal>(stdout) {
        Ok(Refusal { code, msg, details }) if details.is_empty() => {
            anyhow!("{what} refused (code {code}): {msg}")
        }
        Ok(Refusal { code, msg, details }) => {
            anyhow!("{what} refused (code {code}): {msg}; {details}")
        }
        Err(_) => anyhow!(
            "{what} failed without a CNI error: {}{}",
            String::from_utf8_lossy(stdout).trim(),
            String::from_utf8_lossy(stderr).trim()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> Plugin {
        Plugin {
            lab: "/bin/berth-lab".into(),
            binary: "/opt/cni/bin/berth-cni".into(),
            place: Place::default(),
            config: json!({"type": "berth", "mode": "embedded",
                "capabilities": {"io.kubernetes.cri.pod-annotations": true}}),
        }
    }

    fn attachment() -> Attachment {
        Attachment {
            container_id: "ab".repeat(32),
            netns: "/run/netns/x".into(),
            namespace: "default".to_owned(),
            name: "web-0".to_owned(),
            uid: "u".to_owned(),
            annotations: Labels::from([("berth.dev/ip".to_owned(), "10.20.0.57".to_owned())]),
        }
    }

    #[test]
    fn the_environment_is_containerds_and_nothing_else() {
        let command = plugin().command("ADD", &attachment());
        let names: Vec<_> = command.get_envs().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "CNI_ARGS",
                "CNI_COMMAND",
                "CNI_CONTAINERID",
                "CNI_IFNAME",
                "CNI_NETNS",
                "CNI_PATH"
            ]
        );
        let args = command
            .get_envs()
            .next()
            .unwrap()
            .1
            .unwrap()
            .to_str()
            .unwrap();
        assert_eq!(
            args,
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;\
                 K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID=u",
                "ab".repeat(32)
            )
        );
    }

    #[test]
    fn capabilities_become_runtime_config() {
        let network = plugin().network(&attachment());
        assert!(network.get("capabilities").is_none());
        assert_eq!(
            network["runtimeConfig"]["io.kubernetes.cri.pod-annotations"]["berth.dev/ip"],
            "10.20.0.57"
        );
        assert_eq!(
            (&network["name"], &network["cniVersion"]),
            (&"berth".into(), &"1.0.0".into())
        );
    }

    #[test]
    fn reads_results_and_refusals() {
        let result = br#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0",
            "mac":"02:be:0a:14:00:39","sandbox":"/run/netns/x"}],
            "ips":[{"address":"10.20.0.57/24","gateway":"10.20.0.1","interface":0}]}"#;
        let attached = parse_add(result).unwrap();
        assert_eq!(attached.address, IpAddr::from([10, 20, 0, 57]));
        assert_eq!(attached.mac.as_deref(), Some("02:be:0a:14:00:39"));
        assert!(
            parse_add(b"{}")
                .unwrap_err()
                .to_string()
                .contains("without an address")
        );
        let told = refusal(
            "berth-cni ADD",
            br#"{"code":100,"msg":"pool default: full"}"#,
            b"",
        );
        assert_eq!(
            told.to_string(),
            "berth-cni ADD refused (code 100): pool default: full"
        );
        let told = refusal("berth-cni ADD", b"", b"killed").to_string();
        assert!(told.contains("without a CNI error: killed"), "{told}");
    }
}
