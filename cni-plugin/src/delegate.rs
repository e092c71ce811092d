//! Another project's IPAM plugin, called as the specification says (section 4):
//! found in CNI_PATH, with the same environment and the whole of stdin.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{panic, thread};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::env::Environment;
use crate::error::{CniError, Code};

/// What ended an attachment needs to be told to the plugin that gave its
/// addresses: on disk, so that DEL does not depend on a configuration that
/// may have been edited since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delegated {
    /// `ipam.type`.
    pub(crate) plugin: String,
    /// stdin of the ADD.
    pub(crate) config: Value,
    /// CNI_ARGS of the ADD.
    pub(crate) args: String,
}

/// The runtime's call, to be passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) stdin: &'a [u8],
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl Caller<'_> {
    /// Passes the call on as it is.
    pub(crate) fn pass_on(&self, plugin: &str) -> Result<Vec<u8>, CniError> {
        self.run(plugin, &[], self.stdin)
    }

    /// Passes it on as another verb.
    pub(crate) fn pass_on_as(&self, verb: &str, plugin: &str) -> Result<Vec<u8>, CniError> {
        self.run(plugin, &[("CNI_COMMAND", verb.into())], self.stdin)
    }

    /// DEL for an attachment that the runtime's call is not about, or whose
    /// configuration has changed since its ADD.
    pub(crate) fn del_recorded(
        &self,
        delegated: &Delegated,
        container_id: &str,
        ifname: &str,
        netns: OsString,
    ) -> Result<(), CniError> {
        let stdin = delegated.config.to_string();
        let variables = [
            ("CNI_COMMAND", "DEL".into()),
            ("CNI_CONTAINERID", container_id.into()),
            ("CNI_IFNAME", ifname.into()),
            ("CNI_NETNS", netns),
            ("CNI_ARGS", delegated.args.clone().into()),
        ];
        self.run(&delegated.plugin, &variables, stdin.as_bytes())
            .map(drop)
    }

    fn run(
        &self,
        plugin: &str,
        variables: &[(&str, OsString)],
        stdin: &[u8],
    ) -> Result<Vec<u8>, CniError> {
        let program = self.find(plugin)?;
        let failed = |error: io::Error| {
            CniError::new(
                Code::Delegate,
                format!(
                    "ipam plugin {}: {error}; make it an executable program",
                    program.display()
                ),
            )
        };
        let mut child = Command::new(&program)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut pipe = child.stdin.take().expect("it was asked for");
        // Beside reading: a plugin that answers before it has read everything
        // would wait for us as we wait for it.
        let (written, output) = thread::scope(|scope| {
            let writer = scope.spawn(move || pipe.write_all(stdin));
            let output = child.wait_with_output();
            (writer.join(), output)
        });
        let written = written.unwrap_or_else(|cause| panic::resume_unwind(cause));
        let output = output.map_err(failed)?;
        if output.status.success() {
            return match written {
                // One that exits early does not read it all.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
                _ => Ok(output.stdout),
            };
        }
        Err(refusal(plugin, &output.stdout, &output.status.to_string()))
    }

    fn find(&self, plugin: &str) -> Result<PathBuf, CniError> {
        let path = self.environment.path();
        std::env::split_paths(&path)
            .map(|folder| folder.join(plugin))
            .find(|program| program.is_file())
            .ok_or_else(|| {
                CniError::new(
                    Code::Delegate,
                    format!(
                        "ipam plugin {plugin} is not in CNI_PATH {}; install it there, or correct ipam.type",
                        path.display()
                    ),
                )
            })
    }
}

/// What the plugin said, under its name. The codes on which a runtime acts
/// stay what they are.
fn refusal(plugin: &str, stdout: &[u8], status: &str) -> CniError {
    match serde_json::from_slice::<Refusal>(stdout) {
        Ok(Refusal { code, msg, details }) => CniError::new(
            match code {
                11 => Code::TryAgain,
                50 => Code::Unavailable,
                _ => Code::Delegate,
            },
            format!("ipam plugin {plugin} (code {code}): {msg}"),
        )
        .with_details(details),
        Err(_) => CniError::new(
            Code::Delegate,
            format!(
                "ipam plugin {plugin}: {status}, and no reason given; look at its standard error in the runtime's log"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn plugin(script: &str) -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("peer");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let environment = Environment::with_path(dir.path());
        (dir, environment)
    }

    #[test]
    fn the_plugin_gets_all_of_stdin_and_its_answer_comes_back() {
        let (_dir, environment) = plugin("printf '%s:' \"$CNI_COMMAND\"; cat");
        let stdin = vec![b'x'; 300_000];
        let caller = Caller {
            environment: &environment,
            stdin: &stdin,
        };
        let answer = caller.pass_on_as("DEL", "peer").unwrap();
        assert_eq!(answer[..4], *b"DEL:");
        assert_eq!(answer[4..], stdin);
    }

    #[test]
    fn each_failure_names_the_plugin() {
        for (script, code, told) in [
            (
                "echo '{\"code\":11,\"msg\":\"full\"}'; exit 1",
                Code::TryAgain,
                "ipam plugin peer (code 11): full",
            ),
            (
                "echo '{\"code\":100,\"msg\":\"no\",\"details\":\"d\"}'; exit 1",
                Code::Delegate,
                "ipam plugin peer (code 100): no",
            ),
            ("exit 3", Code::Delegate, "exit status: 3, and no reason"),
        ] {
            let (_dir, environment) = plugin(script);
            let caller = Caller {
                environment: &environment,
                stdin: b"{}",
            };
            let error = caller.pass_on_as("ADD", "peer").unwrap_err();
            assert_eq!(error.code, code);
            assert!(error.message.contains(told), "{}", error.message);
            let error = caller.pass_on_as("ADD", "other").unwrap_err();
            assert!(
                error
                    .message
                    .contains("ipam plugin other is not in CNI_PATH")
            );
        }
    }
}
