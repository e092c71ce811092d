//! `berth-bench`: runs the benchmarks, shows the rows, writes them as JSON.
#![forbid(unsafe_code)]

mod api;
mod cni;
mod exchange;
mod ground;
mod proxy;
mod scale;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use berth_bench::{Row, table};
use clap::{Args, Parser, Subcommand};

/// One benchmark: several of a group share a name before the dash.
struct Benchmark {
    name: &'static str,
    run: fn(&Sizes) -> Result<Vec<Row>>,
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "cni",
        run: |_| cni::cni(),
    },
    Benchmark {
        name: "proxy-connect",
        run: |_| proxy::connect(),
    },
    Benchmark {
        name: "proxy-scale",
        run: |sizes| scale::scale(sizes.services),
    },
];

/// Compare Berth's speed with its peers', both measured in the same run.
#[derive(Debug, Parser)]
#[command(name = "berth-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    /// Only this benchmark, or this group (the name's part before the dash)
    name: Option<String>,
    /// Write the rows to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    sizes: Sizes,
    #[command(subcommand)]
    part: Option<Part>,
}

/// How large, where that costs time.
#[derive(Debug, Args)]
struct Sizes {
    /// At most so many Services
    #[arg(long, default_value_t = 50_000)]
    services: u32,
}

/// The measured programs, which this one starts where they are needed.
#[derive(Debug, Subcommand)]
enum Part {
    /// Answers
    #[command(hide = true)]
    Serve,
    /// Asks
    #[command(hide = true)]
    Client,
    /// Calls VERSION of the plugin
    #[command(hide = true)]
    VersionCost,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Serve) => return exchange::serve(),
        Some(Part::Client) => return exchange::client(),
        Some(Part::VersionCost) => return cni::version_cost(),
        None => {}
    }
    let chosen = choose(cli.name.as_deref())?;
    let mut rows = Vec::new();
    for benchmark in chosen {
        eprintln!("{} ...", benchmark.name);
        rows.extend((benchmark.run)(&cli.sizes).with_context(|| benchmark.name.to_owned())?);
    }
    print!("{}", table(&rows));
    if let Some(file) = cli.json {
        let mut json = serde_json::to_vec_pretty(&rows).context("cannot write the rows as JSON")?;
        json.push(b'\n');
        fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn choose(name: Option<&str>) -> Result<Vec<&'static Benchmark>> {
    let fits = |benchmark: &&Benchmark| {
        name.is_none_or(|name| {
            let group = benchmark.name.split('-').next();
            benchmark.name == name || group == Some(name)
        })
    };
    let chosen: Vec<_> = BENCHMARKS.iter().filter(fits).collect();
    if chosen.is_empty() {
        let names: Vec<_> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        bail!(
            "no benchmark is called {}: there are {}",
            name.unwrap_or_default(),
            names.join(", ")
        );
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_is_found_by_its_name_and_its_groups() {
        for name in [None, Some("proxy"), Some("proxy-connect")] {
            let chosen = choose(name).unwrap();
            assert!(chosen.iter().any(|found| found.name == "proxy-connect"));
        }
        let error = choose(Some("prox")).err().unwrap().to_string();
        assert!(error.contains("proxy-connect"), "{error}");
    }
}
