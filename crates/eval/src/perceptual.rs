//! LPIPS of pictures.

use crate::error::Result;
use crate::peers::{Peers, sizes_of};
use candle_core::Tensor;
use sdft_features::Lpips;
use sdft_imaging::{Limits, Rgb8, to_unit_range};
use sdft_parallel::{Task, TaskLimit};

/// Most pixels in a batch. A batch of large pictures would need gigabytes for its feature maps.
const BATCH_PIXELS: usize = 8 * 256 * 256;

/// LPIPS of each pair, in batches of pairs of one size.
pub(crate) fn distances(
    net: &Lpips,
    inputs: &[Rgb8],
    outputs: &[Rgb8],
    peers: Option<&Peers>,
) -> Result<Vec<f64>> {
    let pairs: Vec<(&Rgb8, &Rgb8)> = inputs.iter().zip(outputs).collect();
    let same = inputs
        .iter()
        .all(|i| (i.width, i.height) == (inputs[0].width, inputs[0].height));
    let pixels = inputs.iter().map(|i| i.width * i.height).max();
    let step = match same {
        true => (BATCH_PIXELS / pixels.unwrap_or(1)).max(1),
        false => 1,
    };
    let mut out = Vec::with_capacity(pairs.len());
    let ranks = peers.map_or(1, Peers::size);
    // With several processes each takes at most one batch at a time.
    let step = step.min(pairs.len().div_ceil(ranks)).max(1);
    let batches: Vec<_> = pairs.chunks(step).collect();
    for batches in batches.chunks(ranks) {
        match peers {
            None => {
                for batch in batches {
                    out.extend(forward(net, &task(batch, LOCAL))?);
                }
            }
            Some(peers) => {
                let tasks = batches.iter().map(|batch| task(batch, peers.kind()));
                let answers = peers.share(tasks.collect(), |task| forward(net, &task))?;
                out.extend(answers.concat());
            }
        }
    }
    Ok(out.into_iter().map(f64::from).collect())
}

/// The kind of tasks that stay in this process.
const LOCAL: u64 = 0;

/// The number, height and width of pairs, and the values of the first and then of the second pictures.
fn task(pairs: &[(&Rgb8, &Rgb8)], kind: u64) -> Task {
    let [h, w] = pairs.first().map_or([0; 2], |(a, _)| [a.height, a.width]);
    let first = pairs.iter().map(|(a, _)| *a);
    let all = first.chain(pairs.iter().map(|(_, b)| *b));
    Task {
        kind,
        numbers: [pairs.len(), h, w].map(|n| n as u64).to_vec(),
        values: all.flat_map(to_unit_range).collect(),
        answer: pairs.len(),
    }
}

/// The distances of a task's pairs.
pub(crate) fn forward(net: &Lpips, task: &Task) -> Result<Vec<f32>> {
    let [n, h, w] = sizes_of(task)?;
    let both = Tensor::from_slice(&task.values, (2, n, 3, h, w), net.device())?;
    let total = net.distance(&both.get(0)?, &both.get(1)?)?.total;
    Ok(total.to_vec1()?)
}

/// The largest task: a batch, or one pair of the largest pictures that can be read.
pub(crate) fn limit(limits: &Limits) -> TaskLimit {
    let largest = usize::try_from(limits.max_bytes).unwrap_or(usize::MAX);
    TaskLimit {
        numbers: 3,
        values: (2 * 3 * BATCH_PIXELS).max(largest.saturating_mul(2)),
    }
}
