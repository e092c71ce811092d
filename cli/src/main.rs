//! `berth`: what people ask a node's agent, through its socket.
//!
//! [`client`] speaks to the agent, [`show`] lays out what it says. Neither
//! knows how the agent came to its answer; the shapes are `berth_api::agent`.
#![forbid(unsafe_code)]

mod client;
mod ip;
mod show;
mod table;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use berth_api::addresses::{Address, Release, Released};
use berth_api::agent::{DEFAULT_SOCKET, Readiness, ServiceDetail, ServiceSummary, Trace};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use serde::de::DeserializeOwned;

use client::Client;

/// Ask the Berth agent of this node what it does and why.
#[derive(Debug, Parser)]
#[command(name = "berth", version)]
struct Cli {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Common {
    /// The agent's socket.
    #[arg(long, global = true, default_value = DEFAULT_SOCKET, env = "BERTH_SOCKET")]
    socket: PathBuf,

    /// How to print what the agent says.
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Services as this node serves them.
    #[command(subcommand)]
    Svc(Svc),
    /// Where a connection made on this node would go, and by which rule.
    Trace(TraceOptions),
    /// Addresses: who has which, and until when.
    #[command(subcommand)]
    Ip(Ip),
    /// The addresses of a workload, for a firewall.
    Whitelist(WhitelistOptions),
    /// The agent itself.
    #[command(subcommand)]
    Agent(Agent),
}

#[derive(Debug, Subcommand)]
enum Ip {
    /// Who has an address, or had it last.
    Who {
        /// The address.
        address: IpAddr,
    },
    /// Every address that a pod has or had.
    List {
        /// Of this pool alone.
        #[arg(long)]
        pool: Option<String>,
    },
    /// End the claim on an address: any pod may have it after its cool-down.
    Release {
        /// The address.
        address: IpAddr,
        /// Also if a pod uses it now, as far as is known.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
struct WhitelistOptions {
    /// A StatefulSet, Deployment or bare pod.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    workload: Namespaced,

    /// How to write it; -o json is --format json.
    #[arg(long, value_enum, default_value = "text")]
    format: ip::Format,
}

#[derive(Debug, Subcommand)]
enum Svc {
    /// Every Service, a line for each.
    List,
    /// One Service: its addresses, its endpoints and why each is used on this
    /// node or not, and what the maps hold.
    Show {
        /// The Service.
        #[arg(value_name = "NAMESPACE/NAME", value_parser = namespaced)]
        service: Namespaced,
    },
}

#[derive(Debug, Args)]
struct TraceOptions {
    /// Who connects.
    #[arg(
        long,
        value_name = "NAMESPACE/POD|ADDRESS",
        default_value = "127.0.0.1"
    )]
    from: String,

    /// The address that is connected to.
    #[arg(long, value_name = "ADDRESS:PORT[/udp]")]
    to: String,
}

#[derive(Debug, Subcommand)]
enum Agent {
    /// A stage of the agent in full.
    Dump {
        /// Which.
        #[arg(value_enum)]
        stage: Stage,
    },
    /// Whether this node can be sent traffic; exit status 1 when it cannot.
    Ready,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stage {
    /// The cluster as heard.
    Model,
    /// What the maps should say.
    Desired,
    /// What the maps say.
    Realized,
    /// What the programs counted.
    Counters,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Namespaced {
    namespace: String,
    name: String,
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
}

/// Names of Kubernetes are lower-case letters, digits, `-` and `.`, so they
/// stand in a URL as they are.
fn namespaced(text: &str) -> Result<Namespaced, String> {
    let is_name = |part: &str| !part.is_empty() && part.bytes().all(is_of_name);
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Namespaced {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        _ => Err("write namespace and name, as in kube-system/kube-dns".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("berth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let client = Client::new(&cli.common.socket);
    let output = cli.common.output;
    match &cli.command {
        Command::Svc(Svc::List) => {
            let all: Vec<ServiceSummary> = ask(&client, "/v1/services")?;
            print(output, &all, |all| show::services(all))?;
        }
        Command::Svc(Svc::Show { service }) => {
            let Namespaced { namespace, name } = service;
            let detail: ServiceDetail = ask(&client, &format!("/v1/services/{namespace}/{name}"))?;
            print(output, &detail, show::service)?;
        }
        Command::Trace(options) => {
            let trace: Trace = ask(&client, &trace_path(options)?)?;
            print(output, &trace, show::trace)?;
        }
        Command::Ip(command) => addresses(&client, output, command)?,
        Command::Whitelist(options) => {
            let Namespaced { namespace, name } = &options.workload;
            let all: Vec<Address> = ask(&client, "/v1/addresses")?;
            let own = ip::of_workload(all, namespace, name);
            anyhow::ensure!(
                !own.is_empty(),
                "{namespace}/{name} has no address; `berth ip list` shows who has"
            );
            let format = match output {
                Output::Json => ip::Format::Json,
                Output::Table => options.format,
            };
            write(ip::whitelist(format, &own, namespace, name).as_bytes())?;
        }
        Command::Agent(Agent::Dump { stage }) => dump(&client, output, *stage)?,
        Command::Agent(Agent::Ready) => {
            let readiness: Readiness = ask(&client, "/v1/ready")?;
            print(output, &readiness, show::readiness)?;
            if !readiness.ready {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn addresses(client: &Client, output: Output, command: &Ip) -> anyhow::Result<()> {
    match command {
        Ip::Who { address } => {
            let known: Address = ask(client, &format!("/v1/addresses/{address}"))?;
            print(output, &known, |known| ip::who(known, ip::now()))
        }
        Ip::List { pool } => {
            let path = match pool {
                Some(pool) if pool.bytes().all(is_of_name) => format!("/v1/addresses?pool={pool}"),
                Some(pool) => anyhow::bail!("{pool:?} is not a pool's name"),
                None => "/v1/addresses".to_owned(),
            };
            let all: Vec<Address> = ask(client, &path)?;
            print(output, &all, |all| ip::list(all))
        }
        Ip::Release { address, force } => {
            let release = Release {
                address: Some(*address),
                force: *force,
                ..Release::default()
            };
            let body = client.post("/v1/addresses/release", &serde_json::to_vec(&release)?)?;
            let released: Released = serde_json::from_slice(&body)?;
            print(output, &released, |released| match released.released[..] {
                [] => format!("{address} was not claimed by anybody\n"),
                _ => format!("{address} is free after its cool-down\n"),
            })
        }
    }
}

fn ask<T: DeserializeOwned>(client: &Client, path: &str) -> anyhow::Result<T> {
    let body = client.get(path)?;
    serde_json::from_slice(&body).context(
        "the agent's answer is not what this berth expects; use the berth of the agent's version",
    )
}

fn trace_path(options: &TraceOptions) -> anyhow::Result<String> {
    let (to, protocol) = options.to.split_once('/').unwrap_or((&options.to, "tcp"));
    let is_plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-./:[]".contains(&b))
    };
    for part in [options.from.as_str(), to, protocol] {
        anyhow::ensure!(
            is_plain(part),
            "{part:?} is neither a pod nor an address; write shop/web-0, 10.20.0.50, \
             10.96.0.10:53/udp or [fd00::10]:53"
        );
    }
    let from = &options.from;
    Ok(format!("/v1/trace?from={from}&to={to}&protocol={protocol}"))
}

fn dump(client: &Client, output: Output, stage: Stage) -> anyhow::Result<()> {
    let stage = match stage {
        Stage::Model => "model",
        Stage::Desired => "desired",
        Stage::Realized => "realized",
        Stage::Counters => "counters",
    };
    match output {
        Output::Table => write(&client.get(&format!("/v1/dump/{stage}"))?),
        Output::Json => {
            let dump: serde_json::Value = ask(client, &format!("/v1/dump/{stage}?format=json"))?;
            print(output, &dump, |_| String::new())
        }
    }
}

fn print<T: Serialize>(
    output: Output,
    what: &T,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let mut text = match output {
        Output::Table => table(what),
        Output::Json => serde_json::to_string_pretty(what)? + "\n",
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    write(text.as_bytes())
}

/// A reader that has seen enough (`| head`) is no failure.
fn write(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_its_namespace() {
        let parsed = namespaced("kube-system/kube-dns").unwrap();
        assert_eq!(
            (parsed.namespace.as_str(), parsed.name.as_str()),
            ("kube-system", "kube-dns")
        );
        for bad in [
            "web",
            "/web",
            "shop/",
            "shop/web/0",
            "shop/we b",
            "Shop/web",
        ] {
            assert!(namespaced(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trace_is_asked_with_its_protocol() {
        let path = |to: &str| {
            trace_path(&TraceOptions {
                from: "shop/web-0".to_owned(),
                to: to.to_owned(),
            })
        };
        assert_eq!(
            path("10.96.0.10:53/udp").unwrap(),
            "/v1/trace?from=shop/web-0&to=10.96.0.10:53&protocol=udp"
        );
        assert_eq!(
            path("[fd00::10]:80").unwrap(),
            "/v1/trace?from=shop/web-0&to=[fd00::10]:80&protocol=tcp"
        );
        assert!(path("10.96.0.10:53&x=y").is_err());
    }

    #[test]
    fn the_command_line_is_whole() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
