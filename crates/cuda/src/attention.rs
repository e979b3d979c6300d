//! Multi-head self-attention: one kernel where it fits, else batched products of all heads by cuBLAS with a softmax kernel between them.

use crate::fused_attention;
use crate::gemm::{Factor, Product};
use crate::launch::{Arg, File, blocks, launch, launch_for, long, spread};
use crate::maps::cast;
use crate::part::{Part, empty};
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// Sizes and order of a joint projection of queries, keys and values `[B, N, 3 C]`.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Images.
    pub batch: usize,
    /// `C`.
    pub channels: usize,
    /// Positions.
    pub n: usize,
    /// Heads.
    pub heads: usize,
    /// Channels ordered head by head (`q0 k0 v0 q1 ..`) if true, else as all queries, all keys, all values.
    pub head_by_head: bool,
}

/// Most memory of the scores that are computed at a time.
const MOST_BYTES: usize = 256 << 20;

impl Attention {
    pub(crate) fn width(&self) -> usize {
        self.channels / self.heads
    }

    /// Whether half-precision heads or their scores are not aligned to 16 bytes, as batched products of cuBLAS require. These are
    /// computed in f32.
    fn needs_f32(&self, dtype: DType) -> bool {
        let aligned = |elements: usize| (elements * dtype.size_in_bytes()).is_multiple_of(16);
        dtype != DType::F32 && !(aligned(self.width()) && aligned(self.n * self.n))
    }

    /// The strides from one head to the next, and from queries to keys to values.
    pub(crate) fn steps(&self) -> (usize, usize) {
        let width = self.width();
        if self.head_by_head {
            (3 * width, width)
        } else {
            (width, self.channels)
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a factor of f32 numbers")]
    pub(crate) fn scale(&self) -> Arg {
        Arg::Float((1.0 / (self.width() as f64).sqrt()) as f32)
    }

    /// The number of heads that are computed at a time.
    fn at_once(&self) -> usize {
        let one = self.n * self.n * 12;
        (MOST_BYTES / one.max(1)).clamp(1, self.batch * self.heads)
    }

    /// All heads of all images in parts: the first head and the number of heads.
    fn parts(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (all, at_once) = (self.batch * self.heads, self.at_once());
        (0..all)
            .step_by(at_once)
            .map(move |first| (first, at_once.min(all - first)))
    }
}

/// Lists of addresses on the device, one for each head of each image.
struct Lists<'a> {
    storage: CudaStorage,
    len: usize,
    filled: usize,
    on: Part<'a>,
}

impl<'a> Lists<'a> {
    /// Memory for `lists` lists of `len` addresses.
    fn new(on: Part<'a>, len: usize, lists: usize) -> Result<Self> {
        Ok(Self {
            // An address takes two f32.
            storage: empty(on.device, DType::F32, 2 * len * lists)?,
            len,
            filled: 0,
            on,
        })
    }

    /// Writes the list `base + image b + head h` for all images and heads, in bytes; returns its address.
    fn push(
        &mut self,
        base: u64,
        (b, h): (usize, usize),
        image: usize,
        head: usize,
    ) -> Result<u64> {
        let to = Part::of(&self.storage, 0)?.at + (8 * self.len * self.filled) as u64;
        self.filled += 1;
        let args = [
            Arg::At(base),
            Arg::At(to),
            b.into(),
            h.into(),
            long(image),
            long(head),
        ];
        launch(
            self.on.device,
            (File::Attention, "attention_pointers"),
            spread(b * h),
            &args,
        )?;
        Ok(to)
    }
}

/// The result `[B, N, C]`.
///
/// # Errors
/// A device error.
pub fn attention_forward(a: &Attention, (qkv, layout): Input<'_>) -> Result<(CudaStorage, Shape)> {
    let qkv = Part::map("attention", qkv, layout)?;
    let shape = (a.batch, a.n, a.channels).into();
    if fused_attention::fits(a, &[qkv])? {
        return Ok((fused_attention::forward(a, qkv)?, shape));
    }
    if !a.needs_f32(qkv.dtype) {
        return Ok((forward(a, qkv)?, shape));
    }
    let wide = to_dtype(qkv, DType::F32)?;
    let out = forward(a, Part::of(&wide, qkv.len)?)?;
    let len = a.batch * a.n * a.channels;
    Ok((to_dtype(Part::of(&out, len)?, qkv.dtype)?, shape))
}

fn forward(a: &Attention, qkv: Part<'_>) -> Result<CudaStorage> {
    let out = empty(qkv.device, qkv.dtype, a.batch * a.n * a.channels)?;
    let mut work = Work::new(a, qkv)?;
    let to = work.outputs(Part::of(&out, 0)?.at)?;
    for (first, count) in a.parts() {
        work.probabilities(first, count)?;
        let product = Product {
            m: a.n,
            n: a.width(),
            k: a.n,
            a: Factor::new(work.p_list, a.n),
            b: Factor::new(at(work.v, first), 3 * a.channels),
            out: (at(to, first), a.channels),
            dtype: qkv.dtype,
            out_dtype: qkv.dtype,
        };
        product.run_batch(qkv.device, count)?;
    }
    Ok(out)
}

fn to_dtype(x: Part<'_>, dtype: DType) -> Result<CudaStorage> {
    let y = empty(x.device, dtype, x.len)?;
    cast(x, &y, dtype)?;
    Ok(y)
}

/// The gradient of the projection, from that of the result.
///
/// # Errors
/// A device error.
pub fn attention_backward(
    a: &Attention,
    (qkv, layout): Input<'_>,
    (dout, dout_layout): Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let qkv = Part::map("attention gradient", qkv, layout)?;
    let dout = Part::map("attention gradient", dout, dout_layout)?;
    let shape = (a.batch, a.n, 3 * a.channels).into();
    if fused_attention::fits(a, &[qkv, dout])? {
        return Ok((fused_attention::backward(a, qkv, dout)?, shape));
    }
    if !a.needs_f32(qkv.dtype) {
        return Ok((backward(a, qkv, dout)?, shape));
    }
    let wide = [to_dtype(qkv, DType::F32)?, to_dtype(dout, DType::F32)?];
    let parts = [Part::of(&wide[0], qkv.len)?, Part::of(&wide[1], dout.len)?];
    let dqkv = backward(a, parts[0], parts[1])?;
    Ok((to_dtype(Part::of(&dqkv, qkv.len)?, qkv.dtype)?, shape))
}

fn backward(a: &Attention, qkv: Part<'_>, dout: Part<'_>) -> Result<CudaStorage> {
    let (device, dtype, row) = (qkv.device, qkv.dtype, 3 * a.channels);
    let dqkv = empty(device, dtype, qkv.len)?;
    let mut work = Work::new(a, qkv)?;
    let dout_list = work.outputs(dout.at)?;
    let [dq, dk, dv] = work.thirds(Part::of(&dqkv, 0)?.at)?;
    let scores = a.at_once() * a.n * a.n;
    let ds = empty(device, dtype, scores)?;
    let ds_at = Part::of(&ds, 0)?.at;
    let ds_list = work.squares(ds_at, dtype)?;
    for (first, count) in a.parts() {
        work.probabilities(first, count)?;
        let product = |m, n, k, left, right, out, out_row, out_dtype| Product {
            m,
            n,
            k,
            a: left,
            b: right,
            out: (out, out_row),
            dtype,
            out_dtype,
        };
        let (n, width) = (a.n, a.width());
        let dout = |transposed| Factor {
            at: at(dout_list, first),
            row: a.channels,
            transposed,
        };
        // dv = p^T dout
        product(
            n,
            width,
            n,
            Factor::transposed(work.p_list, n),
            dout(false),
            at(dv, first),
            row,
            dtype,
        )
        .run_batch(device, count)?;
        // dp = dout v^T overwrites the scores, which are not needed anymore
        product(
            n,
            n,
            width,
            dout(false),
            Factor::transposed(at(work.v, first), row),
            work.s_list,
            n,
            DType::F32,
        )
        .run_batch(device, count)?;
        let args = [
            Arg::At(work.p_at()?),
            Arg::At(work.s_at()?),
            Arg::At(ds_at),
            long(count * n),
            n.into(),
            a.scale(),
        ];
        launch_for(
            device,
            (File::Attention, "softmax_grad", dtype),
            rows(count * n, n),
            &args,
        )?;
        // dq = ds k, dk = ds^T q
        let (k, q) = (at(work.k, first), at(work.q, first));
        product(
            n,
            width,
            n,
            Factor::new(ds_list, n),
            Factor::new(k, row),
            at(dq, first),
            row,
            dtype,
        )
        .run_batch(device, count)?;
        product(
            n,
            width,
            n,
            Factor::transposed(ds_list, n),
            Factor::new(q, row),
            at(dk, first),
            row,
            dtype,
        )
        .run_batch(device, count)?;
    }
    Ok(dqkv)
}

/// The address of entry `first` of a list.
fn at(list: u64, first: usize) -> u64 {
    list + 8 * first as u64
}

/// The grid of the softmax kernels.
fn rows(rows: usize, n: usize) -> candle_core::cuda_backend::cudarc::driver::LaunchConfig {
    blocks(if n <= 1024 { rows.div_ceil(8) } else { rows }, 1)
}

/// Lists and memory of a forward or backward pass.
struct Work<'a> {
    a: Attention,
    lists: Lists<'a>,
    /// Lists of the queries, keys and values.
    q: u64,
    k: u64,
    v: u64,
    /// Scores in f32 and their softmax, for a part of the heads.
    s: CudaStorage,
    p: CudaStorage,
    s_list: u64,
    p_list: u64,
}

impl<'a> Work<'a> {
    fn new(a: &Attention, qkv: Part<'a>) -> Result<Self> {
        // q k v, s p, and for the backward pass out, dq dk dv, ds.
        let lists = Lists::new(qkv, a.batch * a.heads, 10)?;
        let scores = a.at_once() * a.n * a.n;
        let mut work = Self {
            a: *a,
            lists,
            q: 0,
            k: 0,
            v: 0,
            s: empty(qkv.device, DType::F32, scores)?,
            p: empty(qkv.device, qkv.dtype, scores)?,
            s_list: 0,
            p_list: 0,
        };
        [work.q, work.k, work.v] = work.thirds(qkv.at)?;
        work.s_list = work.squares(work.s_at()?, DType::F32)?;
        work.p_list = work.squares(work.p_at()?, qkv.dtype)?;
        Ok(work)
    }

    fn s_at(&self) -> Result<u64> {
        Ok(Part::of(&self.s, 0)?.at)
    }

    fn p_at(&self) -> Result<u64> {
        Ok(Part::of(&self.p, 0)?.at)
    }

    /// The lists of queries, keys and values of a projection.
    fn thirds(&mut self, base: u64) -> Result<[u64; 3]> {
        let a = self.a;
        let bytes = self.lists.on.dtype.size_in_bytes();
        let (head, third) = a.steps();
        let mut out = [0; 3];
        for (i, out) in out.iter_mut().enumerate() {
            *out = self.lists.push(
                base + (i * third * bytes) as u64,
                (a.batch, a.heads),
                a.n * 3 * a.channels * bytes,
                head * bytes,
            )?;
        }
        Ok(out)
    }

    /// The list of a result `[B, N, C]`.
    fn outputs(&mut self, base: u64) -> Result<u64> {
        let a = self.a;
        let bytes = self.lists.on.dtype.size_in_bytes();
        self.lists.push(
            base,
            (a.batch, a.heads),
            a.n * a.channels * bytes,
            a.width() * bytes,
        )
    }

    /// The list of square matrices one after the other, for a part of the heads.
    fn squares(&mut self, base: u64, dtype: DType) -> Result<u64> {
        let square = self.a.n * self.a.n * dtype.size_in_bytes();
        self.lists.push(base, (1, self.a.at_once()), 0, square)
    }

    /// Fills `p` with the softmax of the scaled scores of these heads.
    fn probabilities(&self, first: usize, count: usize) -> Result<()> {
        let a = &self.a;
        let (device, dtype, row) = (self.lists.on.device, self.lists.on.dtype, 3 * a.channels);
        let product = Product {
            m: a.n,
            n: a.n,
            k: a.width(),
            a: Factor::new(at(self.q, first), row),
            b: Factor::transposed(at(self.k, first), row),
            out: (self.s_list, a.n),
            dtype,
            out_dtype: DType::F32,
        };
        product.run_batch(device, count)?;
        let args = [
            Arg::At(self.s_at()?),
            Arg::At(self.p_at()?),
            long(count * a.n),
            a.n.into(),
            a.scale(),
        ];
        launch_for(
            device,
            (File::Attention, "softmax", dtype),
            rows(count * a.n, a.n),
            &args,
        )
    }
}
