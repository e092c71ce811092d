//! What a runtime says in the environment, checked: these strings become file
//! and interface names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use berth_ipam::pool::is_interface_name;

use crate::error::{CniError, Code};

/// The environment as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// The name that the program was called by.
    pub(crate) program: String,
    variables: BTreeMap<String, OsString>,
}

/// What DEL needs, and ADD needs too.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    /// Empty if the sandbox's namespace has gone.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) args: Args,
}

/// `CNI_ARGS`, as far as Berth knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) pod_namespace: String,
    pub(crate) pod_name: String,
    pub(crate) pod_uid: String,
    pub(crate) ip: Option<String>,
    pub(crate) mac: Option<String>,
}

fn invalid(message: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidEnvironment, message)
}

impl Environment {
    pub(crate) fn from_process() -> Self {
        let program = std::env::args_os().next().unwrap_or_default();
        let program = PathBuf::from(program)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("CNI_"))
            .collect();
        Self { program, variables }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, CniError> {
        self.variables
            .get(name)
            .filter(|value| !value.is_empty())
            .map(|value| {
                value
                    .to_str()
                    .ok_or_else(|| invalid(format!("{name} is not UTF-8")))
            })
            .transpose()
    }

    fn required(&self, name: &str) -> Result<&str, CniError> {
        self.text(name)?
            .ok_or_else(|| invalid(format!("{name} is missing; the runtime sets it")))
    }

    /// CNI_PATH: where plugins are.
    pub(crate) fn path(&self) -> OsString {
        self.variables.get("CNI_PATH").cloned().unwrap_or_default()
    }

    /// CNI_ARGS as it came.
    pub(crate) fn raw_args(&self) -> Result<&str, CniError> {
        Ok(self.text("CNI_ARGS")?.unwrap_or_default())
    }

    #[cfg(test)]
    pub(crate) fn with_path(folder: &std::path::Path) -> Self {
        Self {
            variables: BTreeMap::from([("CNI_PATH".to_owned(), folder.into())]),
            ..Self::default()
        }
    }

    pub(crate) fn command(&self) -> Result<&str, CniError> {
        self.required("CNI_COMMAND")
    }

    /// Reads and checks what names the attachment.
    pub(crate) fn attachment(&self) -> Result<Attachment, CniError> {
        let container_id = self.required("CNI_CONTAINERID")?;
        let starts_well = container_id
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        let fits = container_id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        // It is a part of file names, which have at most 255 bytes.
        if !starts_well || !fits || container_id.len() > 200 {
            return Err(invalid(format!(
                "CNI_CONTAINERID {container_id:?} is not a container ID; \
                 it has letters, digits, '_', '.' and '-', and at most 200 of them"
            )));
        }
        let ifname = self.required("CNI_IFNAME")?;
        if !is_interface_name(ifname) {
            return Err(invalid(format!(
                "CNI_IFNAME {ifname:?} is not an interface name; \
                 it has 1 to 15 bytes without spaces, slashes and colons"
            )));
        }
        Ok(Attachment {
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
            netns: self
                .variables
                .get("CNI_NETNS")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            args: Args::parse(self.raw_args()?)?,
        })
    }
}

impl Args {
    fn parse(text: &str) -> Result<Self, CniError> {
        let mut args = Self::default();
        let mut unknown = None;
        let mut ignore = false;
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(invalid(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")));
            };
            match key {
                "IgnoreUnknown" => {
                    ignore = matches!(value, "1" | "true" | "True" | "TRUE" | "t" | "T")
                }
                "K8S_POD_NAMESPACE" => args.pod_namespace = value.to_owned(),
                "K8S_POD_NAME" => args.pod_name = value.to_owned(),
                "K8S_POD_UID" => args.pod_uid = value.to_owned(),
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => args.ip = Some(value.to_owned()),
                "MAC" => args.mac = Some(value.to_owned()),
                _ => unknown = unknown.or(Some(key)),
            }
        }
        match unknown {
            Some(key) if !ignore => Err(invalid(format!(
                "CNI_ARGS: {key} is not known; add IgnoreUnknown=1 to pass it over"
            ))),
            _ => Ok(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Environment {
        let mut all = vec![
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
        ];
        all.extend(pairs);
        Environment {
            program: "berth-cni".to_owned(),
            variables: all
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.into()))
                .collect(),
        }
    }

    #[test]
    fn reads_what_containerd_sends() {
        let attachment = with(&[
            ("CNI_NETNS", ""),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u;X=y",
            ),
        ])
        .attachment()
        .unwrap();
        assert_eq!(attachment.netns, None);
        let args = attachment.args;
        assert_eq!(
            (&*args.pod_namespace, &*args.pod_name, &*args.pod_uid),
            ("shop", "web-0", "u")
        );
    }

    #[test]
    fn each_malformed_variable_is_named() {
        let long = "a".repeat(201);
        for (name, value, told) in [
            ("CNI_CONTAINERID", "", "CNI_CONTAINERID is missing"),
            ("CNI_CONTAINERID", "../x", "is not a container ID"),
            ("CNI_CONTAINERID", ".hidden", "is not a container ID"),
            ("CNI_CONTAINERID", long.as_str(), "at most 200"),
            ("CNI_IFNAME", "a-name-of-16-byte", "1 to 15 bytes"),
            ("CNI_IFNAME", "a/b", "is not an interface name"),
            ("CNI_IFNAME", "..", "is not an interface name"),
            ("CNI_IFNAME", "a b", "is not an interface name"),
            (
                "CNI_ARGS",
                "K8S_POD_NAME",
                "\"K8S_POD_NAME\" is not KEY=VALUE",
            ),
            ("CNI_ARGS", "X=1", "X is not known; add IgnoreUnknown=1"),
        ] {
            let error = with(&[(name, value)]).attachment().unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment);
            assert!(error.message.contains(told), "{}", error.message);
        }
    }
}
