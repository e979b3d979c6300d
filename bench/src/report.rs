//! The table on the terminal and the JSON file.

use crate::cases::Case;
use crate::clock::Spent;
use crate::comparison::{Measured, Runs};
use crate::parts;
use crate::peer::Peer;
use anyhow::{Context, Result};
use sdft_train::Precision;
use serde_json::{Value, json};
use std::path::Path;

pub(crate) struct Report {
    /// Operations per second of matrix products, by number of threads.
    peaks: Vec<(usize, f64)>,
    /// Bytes per second from and to memory, by number of threads.
    bandwidths: Vec<(usize, f64)>,
    /// What is compared with.
    peer: Option<String>,
    header: Value,
    rows: Vec<Value>,
}

/// Median, minimum and maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
        Self {
            median: 0.5 * (at(n.saturating_sub(1) / 2) + at(n / 2)),
            min: at(0),
            max: at(n.saturating_sub(1)),
        }
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl Report {
    /// Measures the speed of matrix products.
    pub(crate) fn new(threads: &[usize], peer: Option<&Peer>) -> Result<Self> {
        let (mut peaks, mut bandwidths) = (Vec::new(), Vec::new());
        for &n in threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build()?;
            peaks.push((n, pool.install(sdft_kernels::measure_flops)));
            bandwidths.push((n, pool.install(sdft_kernels::measure_bandwidth)));
        }
        let header = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "torch": peer.map(Peer::torch),
            "compared": peer.map(Peer::describe),
            "kernels": sdft_kernels::kernel_choice(),
            "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "peaks": peaks.iter().map(|(n, flops)| json!({ "threads": n, "flops": flops })).collect::<Vec<_>>(),
        });
        Ok(Self {
            peaks,
            bandwidths,
            peer: peer.map(Peer::describe),
            header,
            rows: Vec::new(),
        })
    }

    pub(crate) fn head(&self) -> String {
        let peaks: Vec<String> = self
            .peaks
            .iter()
            .map(|(n, flops)| format!("{:.0} GFLOP/s on {n}", flops / 1e9))
            .collect();
        format!(
            "kernels {}; products of matrices reach {} thread(s)\n{}\
             cpu and wall: milliseconds, median. GF/s: operations of the direct sum, so that fast convolutions can exceed the peak.\n\
             other: the fastest that computes in the same precision, or our own naive step for \"sdft\", \"recomputed\" and adapters. Below a network: the cpu ratio to each.\n\
             ratio: ours / other, median [smallest..largest] of neighbouring runs. busy: cpu / wall of both per thread; 1 is a quiet machine. *: too large to take turns, one after another.\n\
             memory: our allocator keeps its pages (MIMALLOC_PURGE_DELAY=0 gives them back), PyTorch has its default.\n\n\
             {:<40} {:>3} {:>9} {:>9} {:>6} {:>5} {:>7}  {:>9} {:>19} {:>19} {:>7} {:>9}",
            sdft_kernels::kernel_choice(),
            peaks.join(", "),
            self.peer
                .as_ref()
                .map_or(String::new(), |peer| format!("{peer}\n")),
            "case",
            "thr",
            "cpu",
            "wall",
            "GF/s",
            "peak",
            "MB",
            "other cpu",
            "cpu ratio",
            "wall ratio",
            "MB",
            "busy",
        )
    }

    /// The row of one case.
    pub(crate) fn row(&mut self, case: &Case, threads: usize, measured: Measured) -> String {
        let Measured {
            own,
            others,
            disagreements,
            in_turn,
        } = measured;
        let cpu = |runs: &Runs| Spread::of(runs.runs.iter().map(|run| run.cpu));
        let wall = |runs: &Runs| Spread::of(runs.runs.iter().map(|run| run.wall));
        let rate = case.flops().map(|flops| flops / wall(&own).median);
        let peak = self.peaks.iter().find(|(n, _)| *n == threads);
        let share = rate.zip(peak).map(|(rate, (_, peak))| rate / peak);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let mut line = format!(
            "{:<40} {threads:>3} {:>9.2} {:>9.2} {:>6} {:>5} {:>7}",
            case.name(),
            1e3 * cpu(&own).median,
            1e3 * wall(&own).median,
            or_dash(rate.map(|rate| format!("{:.0}", rate / 1e9))),
            or_dash(share.map(|share| format!("{share:.2}"))),
            or_dash(own.peak.map(megabytes)),
        );
        let mut row = json!({
            "case": case.name(),
            "threads": threads,
            "cpu": cpu(&own).json(),
            "wall": wall(&own).json(),
            "flops": rate,
            "share_of_peak": share,
            "peak_bytes": own.peak,
            "pairs": own.runs.len(),
            "in_turn": in_turn,
            "disagreements": disagreements,
        });
        // Each ratio is that of the fastest by its clock.
        let best = |median: &dyn Fn(&Runs) -> f64| {
            let same = others.iter().filter(|o| o.precision == own.precision);
            same.min_by(|a, b| median(a).total_cmp(&median(b)))
        };
        let fastest = best(&|runs| cpu(runs).median);
        let by_wall = best(&|runs| wall(runs).median);
        let ratio = |other: &Runs, clock: fn(&Spent) -> f64| {
            let pairs = own.runs.iter().zip(&other.runs);
            Spread::of(pairs.map(|(a, b)| clock(a) / clock(b)))
        };
        let cpu_ratio_to = |other: &Runs| ratio(other, |spent| spent.cpu);
        if let (Some(other), Some(by_wall)) = (fastest, by_wall) {
            let cpu_ratio = cpu_ratio_to(other);
            let wall_ratio = ratio(by_wall, |spent| spent.wall);
            let busy = |runs: &Runs| {
                Spread::of(
                    runs.runs
                        .iter()
                        .map(|run| run.cpu / run.wall / threads as f64),
                )
                .median
            };
            let text = |s: Spread| format!("{:.2} [{:.2}..{:.2}]", s.median, s.min, s.max);
            line += &format!(
                "  {:>9.2} {:>19} {:>19} {:>7} {:>9}",
                1e3 * cpu(other).median,
                text(cpu_ratio),
                text(wall_ratio),
                or_dash(other.peak.map(megabytes)),
                format!(
                    "{:.2}/{:.2}{}",
                    busy(&own),
                    busy(other),
                    if in_turn { "" } else { " *" }
                ),
            );
            row["other"] = json!({
                "name": other.name,
                "cpu": cpu(other).json(),
                "wall": wall(other).json(),
                "peak_bytes": other.peak,
                "cpu_ratio": cpu_ratio.json(),
                "wall_ratio": wall_ratio.json(),
                "busy": [busy(&own), busy(other)],
            });
        }
        // Where nothing else computes in the same precision, the others are all there is to compare with.
        if others.len() > 1 || fastest.is_none() && !others.is_empty() {
            let each = others.iter().map(|o| {
                let ratio = cpu_ratio_to(o).median;
                let precision = if o.precision == own.precision {
                    String::new()
                } else {
                    format!(" in {:?}", o.precision).to_lowercase()
                };
                let memory = own.peak.zip(o.peak).map(|(a, b)| a as f64 / b as f64);
                let memory = or_dash(memory.map(|ratio| format!("{ratio:.2}")));
                format!("{}{precision} {ratio:.2} (memory {memory})", o.name)
            });
            line += &format!("\n    {}", each.collect::<Vec<_>>().join(", "));
        }
        let of_threads = |table: &[(usize, f64)]| {
            let entry = table.iter().find(|(n, _)| *n == threads);
            entry.map_or(f64::NAN, |(_, value)| *value)
        };
        line += &parts::table(
            &own.parts,
            if own.precision == Precision::F32 {
                of_threads(&self.peaks)
            } else {
                f64::INFINITY
            },
            of_threads(&self.bandwidths),
        );
        row["parts"] = own.parts.clone();
        let all = others.iter().map(|o| {
            json!({
                "name": o.name,
                "precision": o.precision,
                "cpu": cpu(o).json(),
                "wall": wall(o).json(),
                "cpu_ratio": cpu_ratio_to(o).json(),
                "peak_bytes": o.peak,
            })
        });
        row["all"] = all.collect();
        self.rows.push(row);
        line
    }

    /// Writes all results so far.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut all = self.header.clone();
        all["cases"] = Value::Array(self.rows.clone());
        let text = serde_json::to_string_pretty(&all)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(
            of(&[3.0, 1.0, 2.0]),
            Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            }
        );
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
