//! The demo: a lab from manifests, what is in it, whether it works.
//!
//! ```text
//! run -> Lab::builder -> show (topology, pods, Services)
//!                   '--> checks -> rows, each with its time -> summary
//! ```

mod checks;
mod moving;
mod row;
mod screen;
mod show;
mod signals;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use self::row::Row;
use self::screen::Screen;
use crate::Lab;
use crate::ground::record;
use crate::lab::Event;

/// The demo's own manifest, for when none is given.
const EXAMPLE: &str = include_str!("../../examples/shop.yaml");
const EXAMPLE_NAME: &str = "tests/lab/examples/shop.yaml";
/// Lines of each log that are shown after a failure.
const TAIL: usize = 15;

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// Manifests; the own example if there are none.
    pub manifests: Vec<PathBuf>,
    /// Nodes.
    pub nodes: usize,
    /// Whether to leave the lab running until Ctrl-C.
    pub keep: bool,
}

/// Runs the demo. The exit code tells whether every check succeeded.
///
/// # Errors
/// If the lab cannot be built.
pub fn run(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    let signals = signals::Signals::catch()?;
    let screen = Arc::new(Screen::new(started));
    match record::sweep() {
        Ok(swept) => swept
            .iter()
            .for_each(|name| screen.note(&format!("removed what lab {name} had left"))),
        Err(error) => screen.warning(&format!("{error:#}")),
    }
    let listener = Arc::clone(&screen);
    let mut builder = Lab::builder()
        .nodes(options.nodes)
        .vms(1)
        .manifests(&options.manifests)
        .on_event(move |event| match event {
            Event::Progress(what) => listener.step(&what),
            Event::Warning(what) => listener.warning(&what),
        });
    if options.manifests.is_empty() {
        screen.note(&format!("no manifest was given: this is {EXAMPLE_NAME}"));
        builder = builder.yaml(EXAMPLE_NAME, EXAMPLE);
    }
    let lab = builder.start()?;
    screen.done(&format!("{} pods run", lab.pods().len()));

    let mut out = std::io::stdout().lock();
    show::all(&mut out, &lab)?;
    screen.step("checking");
    let mut rows = checks::all(&lab);
    screen.step("moving a StatefulSet's pod to another node");
    rows.extend(moving::check(&lab));
    screen.end();
    row::show(&mut out, &rows)?;
    told_by_programs(&mut out, &lab)?;
    let failed = rows.iter().filter(|row| row.has_failed()).count();
    if failed > 0 {
        write!(out, "\n{}", lab.log_tails(TAIL))?;
    }
    summary(&mut out, &rows, failed, started)?;
    let code = u8::from(failed > 0);
    if options.keep {
        show::commands(&mut out, &lab)?;
        drop(out);
        signals.wait_for_end(code)
    }
    drop(out);
    screen.step("removing the lab");
    drop(lab);
    screen.end();
    Ok(ExitCode::from(code))
}

/// What agents and DNS servers refused, each once.
fn told_by_programs(out: &mut impl Write, lab: &Lab) -> Result<()> {
    let warnings = lab.program_warnings();
    if !warnings.is_empty() {
        writeln!(out, "\nWhat the agents and DNS servers warned about")?;
        for warning in warnings {
            writeln!(out, "  ! {warning}")?;
        }
    }
    Ok(())
}

fn summary(out: &mut impl Write, rows: &[Row], failed: usize, started: Instant) -> Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    let skipped = rows.iter().filter(|row| row.is_skipped()).count();
    let count = rows.len() - skipped;
    let left_out = match skipped {
        0 => String::new(),
        n => format!(", {n} left out"),
    };
    if failed == 0 {
        writeln!(
            out,
            "\nAll {count} checks succeeded{left_out}; {seconds:.1} s in all."
        )?;
    } else {
        writeln!(
            out,
            "\n{failed} of {count} checks FAILED{left_out}; {seconds:.1} s in all:"
        )?;
        for row in rows.iter().filter(|row| row.has_failed()) {
            writeln!(out, "  {row}")?;
        }
    }
    out.flush().context("write to the terminal")
}
