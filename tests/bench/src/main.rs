//! `berth-bench`: runs the benchmarks, shows the rows, writes them as JSON.
#![forbid(unsafe_code)]

mod proxy;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use berth_bench::{Row, table};
use clap::Parser;

/// One benchmark: several of a group share a name before the dash.
struct Benchmark {
    name: &'static str,
    run: fn() -> Result<Vec<Row>>,
}

const BENCHMARKS: &[Benchmark] = &[Benchmark {
    name: "proxy-connect",
    run: proxy::connect,
}];

/// Compare Berth's speed with its peers', both measured in the same run.
#[derive(Debug, Parser)]
#[command(name = "berth-bench")]
struct Cli {
    /// Only this benchmark, or this group (the name's part before the dash)
    name: Option<String>,
    /// Write the rows to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let chosen = choose(cli.name.as_deref())?;
    let mut rows = Vec::new();
    for benchmark in chosen {
        eprintln!("{} ...", benchmark.name);
        rows.extend((benchmark.run)().with_context(|| benchmark.name.to_owned())?);
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
