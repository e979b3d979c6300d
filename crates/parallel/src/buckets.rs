//! Sums of gradients in buckets: NCCL adds those that are ready while the others are computed.

use crate::error::Result;
use crate::process_group::ProcessGroup;
use crate::sum::Sum;
use candle_core::{Tensor, bail};
use std::ops::Range;
use std::sync::Arc;

/// The most bytes of the first bucket, with which sums begin early, and of the others, unless a single gradient is larger.
///
/// Source: PyTorch `DistributedDataParallel`, its defaults.
const FIRST: usize = 1 << 20;
const OTHERS: usize = 25 << 20;

/// The sum of gradients over all processes, made of gradients that come one at a time in any order.
///
/// Buckets are consecutive parameters, those of the last layers first, because their gradients are the first that a backward pass has. On
/// every rank they are summed in this order, whenever their gradients come. On a CPU, and on GPUs without NCCL, [`Self::finish`] does it.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use sdft_parallel::{BucketedSum, ProcessGroup};
/// use std::sync::Arc;
///
/// let parameters = [Tensor::new(&[1f32], &Device::Cpu)?, Tensor::new(&[2f32], &Device::Cpu)?];
/// let mut sum = BucketedSum::new(Arc::new(ProcessGroup::single()), parameters.to_vec());
/// sum.add(1, Tensor::new(&[0.5f32], &Device::Cpu)?)?;
/// let sums = sum.finish()?;
/// assert_eq!((sums[0].to_vec1::<f32>()?, sums[1].to_vec1::<f32>()?), (vec![0.0], vec![0.5]));
/// # Ok::<(), sdft_parallel::Error>(())
/// ```
pub struct BucketedSum {
    group: Arc<ProcessGroup>,
    parameters: Vec<Tensor>,
    gradients: Vec<Gradient>,
    buckets: Vec<Range<usize>>,
    /// Those of the first buckets.
    started: Vec<Sum>,
}

#[derive(Clone)]
enum Gradient {
    Missing,
    Here(Tensor),
    Started,
}

impl BucketedSum {
    /// A sum without gradients yet. `parameters` are the same on every rank, of one type, f32 or f64, on one device.
    pub fn new(group: Arc<ProcessGroup>, parameters: Vec<Tensor>) -> Self {
        Self::limited(group, parameters, [FIRST, OTHERS])
    }

    fn limited(group: Arc<ProcessGroup>, parameters: Vec<Tensor>, limits: [usize; 2]) -> Self {
        let sizes = parameters.iter();
        let sizes = sizes.map(|x| x.elem_count() * x.dtype().size_in_bytes());
        Self {
            group,
            gradients: vec![Gradient::Missing; parameters.len()],
            buckets: buckets(sizes, limits),
            started: Vec::new(),
            parameters,
        }
    }

    /// Takes the gradient of the parameter with this index.
    ///
    /// # Errors
    /// A parameter that has its gradient already or does not exist, a gradient of another shape, or NCCL fails.
    pub fn add(&mut self, index: usize, gradient: Tensor) -> candle_core::Result<()> {
        let Some((Gradient::Missing, parameter)) =
            self.gradients.get(index).zip(self.parameters.get(index))
        else {
            bail!("the gradient of parameter {index} was not expected");
        };
        if parameter.shape() != gradient.shape() {
            let (expected, found) = (parameter.shape(), gradient.shape());
            bail!("gradient of parameter {index}: expected {expected:?}, found {found:?}");
        }
        // NCCL's sums wait on the GPU. Those of hosts would wait here, and for the slowest process each time.
        let is_early = self.group.has_nccl() && gradient.device().is_cuda();
        self.gradients[index] = Gradient::Here(gradient);
        match is_early {
            true => self.start_ready().map_err(candle_core::Error::wrap),
            false => Ok(()),
        }
    }

    fn start_ready(&mut self) -> Result<()> {
        while self.next_is_ready() {
            self.start_next()?;
        }
        Ok(())
    }

    fn next_is_ready(&self) -> bool {
        let bucket = self.buckets.get(self.started.len());
        bucket.is_some_and(|bucket| {
            let mut gradients = self.gradients[bucket.clone()].iter();
            gradients.all(|gradient| matches!(gradient, Gradient::Here(_)))
        })
    }

    /// Begins the sum of the next bucket, with zeros for gradients that have not come.
    fn start_next(&mut self) -> Result<()> {
        let Some(bucket) = self.buckets.get(self.started.len()) else {
            return Ok(());
        };
        let gradients = self.gradients[bucket.clone()].iter_mut();
        let parts = gradients.zip(&self.parameters[bucket.clone()]);
        let parts = parts.map(|(gradient, parameter)| {
            match std::mem::replace(gradient, Gradient::Started) {
                Gradient::Here(gradient) => Ok(gradient),
                _ => parameter.zeros_like(),
            }
        });
        let parts = parts.collect::<candle_core::Result<Vec<_>>>()?;
        self.started.push(self.group.start_sum(&parts)?);
        Ok(())
    }

    /// The sums, in the order of the parameters. A gradient that has not come counts as zeros, since another process may have it.
    ///
    /// # Errors
    /// Fails if a process has failed, is disconnected, or adds gradients of other shapes.
    pub fn finish(mut self) -> Result<Vec<Tensor>> {
        while self.started.len() < self.buckets.len() {
            self.start_next()?;
        }
        let mut sums = Vec::with_capacity(self.parameters.len());
        // The last bucket has the first parameters.
        for sum in self.started.into_iter().rev() {
            sums.extend(sum.finish()?);
        }
        Ok(sums)
    }
}

/// Ranges of parameters, from the last to the first. A range ends before it would have more bytes than `first`, or `others`.
fn buckets(
    sizes: impl DoubleEndedIterator<Item = usize> + ExactSizeIterator,
    [first, others]: [usize; 2],
) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    let mut filled = 0;
    for (i, size) in sizes.enumerate().rev() {
        let limit = if all.len() > 1 { others } else { first };
        match all.last_mut() {
            Some(bucket) if filled + size <= limit => {
                bucket.start = i;
                filled += size;
            }
            _ => {
                all.push(i..i + 1);
                filled = size;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_group::tests::arcs_in_world;
    use candle_core::{DType, Device};

    /// Four buckets.
    const SIZES: [usize; 8] = [7000, 6, 301, 6500, 10, 100, 0, 143];
    const LIMITS: [usize; 2] = [1 << 10, 25 << 10];

    fn parameters() -> Vec<Tensor> {
        let zeros = |n: usize| Tensor::zeros((n, 1), DType::F32, &Device::Cpu).unwrap();
        SIZES.map(zeros).to_vec()
    }

    fn gradient(rank: usize, index: usize) -> Tensor {
        let n = SIZES[index];
        let values =
            (0..n).map(|i| ((i % 1000) as f32 * 0.37 + index as f32).sin() * (rank as f32 + 0.1));
        Tensor::from_iter(values, &Device::Cpu)
            .unwrap()
            .reshape((n, 1))
            .unwrap()
    }

    fn bits(sums: &[Tensor]) -> Vec<Vec<u32>> {
        let numbers = |sum: &Tensor| sum.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bits = |sum| numbers(sum).into_iter().map(f32::to_bits).collect();
        sums.iter().map(bits).collect()
    }

    #[test]
    fn buckets_end_before_they_are_too_large() {
        let of = |sizes: &[usize]| buckets(sizes.iter().copied(), [4, 10]);
        assert!(of(&[]).is_empty());
        assert_eq!(of(&[2, 9]), [1..2, 0..1]);
        assert_eq!(of(&[1, 3, 6, 1, 2, 1, 1]), [4..7, 1..4, 0..1]);
        assert_eq!(of(&[5, 30, 0, 5]), [3..4, 2..3, 1..2, 0..1]);
        let sizes = SIZES.map(|n| 4 * n);
        let all = buckets(sizes.into_iter(), LIMITS);
        assert_eq!(all, [4..8, 3..4, 1..3, 0..1]);
    }

    #[test]
    fn buckets_have_the_bits_of_one_sum_whenever_gradients_come() {
        let seen = arcs_in_world(3, |group| {
            let rank = group.rank();
            // Two parameters have a gradient on some ranks only, one on none of them.
            let has = |index: usize| match index {
                2 => rank == 1,
                5 => rank != 2,
                4 => false,
                _ => true,
            };
            let all = (0..SIZES.len()).map(|index| match has(index) {
                true => gradient(rank, index),
                false => parameters()[index].clone(),
            });
            let at_once = bits(&group.all_reduce_sum(&all.collect::<Vec<_>>()).unwrap());
            let mut order: Vec<usize> = (0..SIZES.len()).filter(|index| has(*index)).collect();
            for early in [false, true] {
                let mut sum = BucketedSum::limited(Arc::clone(&group), parameters(), LIMITS);
                order.rotate_left(rank + 1);
                for index in &order {
                    sum.add(*index, gradient(rank, *index)).unwrap();
                    if early {
                        sum.start_ready().unwrap();
                    }
                }
                assert_eq!(bits(&sum.finish().unwrap()), at_once);
            }
            at_once
        });
        assert!(seen.iter().all(|other| *other == seen[0]));
        assert!(seen[0][4].iter().all(|bits| *bits == 0));
        let of_one = gradient(1, 2)
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert!(
            seen[0][2]
                .iter()
                .zip(of_one)
                .all(|(sum, own)| f32::from_bits(*sum) == own)
        );
    }

    #[test]
    fn a_bucket_starts_when_it_and_all_before_it_are_complete() {
        let mut sum = BucketedSum::limited(Arc::new(ProcessGroup::single()), parameters(), LIMITS);
        let mut started = Vec::new();
        for index in [0, 3, 7, 5, 6, 4, 1, 2] {
            sum.add(index, gradient(0, index)).unwrap();
            sum.start_ready().unwrap();
            started.push(sum.started.len());
        }
        assert_eq!(started, [0, 0, 0, 0, 0, 2, 2, 4]);
        let own: Vec<Tensor> = (0..SIZES.len()).map(|index| gradient(0, index)).collect();
        assert_eq!(bits(&sum.finish().unwrap()), bits(&own));
    }

    #[test]
    fn gradients_that_come_twice_or_do_not_fit_are_errors() {
        let mut sum = BucketedSum::limited(Arc::new(ProcessGroup::single()), parameters(), LIMITS);
        let mut error = |index, gradient| sum.add(index, gradient).map_err(|e| e.to_string()).err();
        assert_eq!(error(1, gradient(0, 1)), None);
        assert!(
            error(1, gradient(0, 1))
                .unwrap()
                .contains("parameter 1 was not expected")
        );
        assert!(error(8, gradient(0, 1)).unwrap().contains("not expected"));
        assert!(
            error(4, gradient(0, 1))
                .unwrap()
                .contains("expected [10, 1], found [6, 1]")
        );
    }
}
