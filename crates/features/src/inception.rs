//! The Inception-V3 of FID.

use crate::conv_norm::{ConvNorm, ConvSpec};
use candle_core::{DType, Result, Tensor, bail};
use sdft_autograd::{pool, relu};
use sdft_kernels::PoolKind;
use sdft_nn::{ParamSource, ParamSpec, Scope, specs_of};

/// Side of the images that the network was trained on.
pub const INCEPTION_SIDE: usize = 299;
/// Length of a feature vector.
pub const INCEPTION_FEATURES: usize = 2048;
const EPS: f64 = 1e-3;

/// The Inception-V3 of FID: the weights of 2015, average pools that do not count padding, and a max pool in the last block.
///
/// Source: pytorch-fid `inception.py`; the keys are torchvision's.
#[derive(Clone, Debug)]
pub struct Inception {
    stem: [Unit; 5],
    blocks: Vec<Block>,
    compute_dtype: DType,
}

/// A convolution, a normalisation, ReLU.
#[derive(Clone, Debug)]
struct Unit(ConvNorm);

impl Unit {
    fn load(scope: &Scope<'_>, spec: ConvSpec) -> Result<Self> {
        ConvNorm::load(&scope.pp("conv"), &scope.pp("bn"), spec, EPS).map(Self)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        relu(&self.0.forward(x)?)
    }
}

/// Parallel branches whose outputs are concatenated.
#[derive(Clone, Debug)]
struct Block(Vec<Branch>);

/// Pooling, then convolutions in sequence, then optionally two in parallel.
#[derive(Clone, Debug)]
struct Branch {
    pool: Option<(PoolKind, usize, usize)>,
    units: Vec<Unit>,
    fork: Vec<Unit>,
}

impl Branch {
    fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let mut h = match self.pool {
            Some((kind, stride, pad)) => pool(x, kind, 3, stride, pad)?,
            None => x.clone(),
        };
        for unit in &self.units {
            h = unit.forward(&h)?;
        }
        if self.fork.is_empty() {
            return Ok(vec![h]);
        }
        self.fork.iter().map(|unit| unit.forward(&h)).collect()
    }
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut parts = Vec::with_capacity(6);
        for branch in &self.0 {
            parts.extend(branch.forward(x)?);
        }
        Tensor::cat(&parts, 1)
    }
}

/// Builds the branches of one block.
struct Builder<'a> {
    scope: Scope<'a>,
    c_in: usize,
}

/// Name, output channels, kernel, stride and padding of a unit.
type Row = (&'static str, usize, [usize; 2], usize, [usize; 2]);

const ONE: [usize; 2] = [1, 1];
const NONE: [usize; 2] = [0, 0];

impl Builder<'_> {
    fn units(&self, c_in: usize, rows: &[Row]) -> Result<(Vec<Unit>, usize)> {
        let mut c = c_in;
        let mut units = Vec::with_capacity(rows.len());
        for &(name, c_out, k, stride, pad) in rows {
            let spec = ConvSpec {
                c_in: c,
                c_out,
                k,
                stride,
                pad,
            };
            units.push(Unit::load(&self.scope.pp(name), spec)?);
            c = c_out;
        }
        Ok((units, c))
    }

    fn row(&self, rows: &[Row]) -> Result<Branch> {
        Ok(Branch {
            pool: None,
            units: self.units(self.c_in, rows)?.0,
            fork: Vec::new(),
        })
    }

    fn pooled(&self, kind: PoolKind, stride: usize, pad: usize, rows: &[Row]) -> Result<Branch> {
        Ok(Branch {
            pool: Some((kind, stride, pad)),
            ..self.row(rows)?
        })
    }

    fn forked(&self, rows: &[Row], fork: &[Row; 2]) -> Result<Branch> {
        let (units, c) = self.units(self.c_in, rows)?;
        let fork = fork
            .iter()
            .map(|row| Ok(self.units(c, std::slice::from_ref(row))?.0))
            .collect::<Result<Vec<_>>>()?;
        Ok(Branch {
            pool: None,
            units,
            fork: fork.into_iter().flatten().collect(),
        })
    }

    /// 35 x 35.
    fn a(&self, pool_features: usize) -> Result<Block> {
        Ok(Block(vec![
            self.row(&[("branch1x1", 64, ONE, 1, NONE)])?,
            self.row(&[
                ("branch5x5_1", 48, ONE, 1, NONE),
                ("branch5x5_2", 64, [5, 5], 1, [2, 2]),
            ])?,
            self.row(&[
                ("branch3x3dbl_1", 64, ONE, 1, NONE),
                ("branch3x3dbl_2", 96, [3, 3], 1, [1, 1]),
                ("branch3x3dbl_3", 96, [3, 3], 1, [1, 1]),
            ])?,
            self.pooled(
                PoolKind::Average,
                1,
                1,
                &[("branch_pool", pool_features, ONE, 1, NONE)],
            )?,
        ]))
    }

    /// 35 x 35 to 17 x 17.
    fn b(&self) -> Result<Block> {
        Ok(Block(vec![
            self.row(&[("branch3x3", 384, [3, 3], 2, NONE)])?,
            self.row(&[
                ("branch3x3dbl_1", 64, ONE, 1, NONE),
                ("branch3x3dbl_2", 96, [3, 3], 1, [1, 1]),
                ("branch3x3dbl_3", 96, [3, 3], 2, NONE),
            ])?,
            self.pooled(PoolKind::Max, 2, 0, &[])?,
        ]))
    }

    /// 17 x 17, with `c` channels inside.
    fn c(&self, c: usize) -> Result<Block> {
        let (wide, tall) = (([1, 7], [0, 3]), ([7, 1], [3, 0]));
        Ok(Block(vec![
            self.row(&[("branch1x1", 192, ONE, 1, NONE)])?,
            self.row(&[
                ("branch7x7_1", c, ONE, 1, NONE),
                ("branch7x7_2", c, wide.0, 1, wide.1),
                ("branch7x7_3", 192, tall.0, 1, tall.1),
            ])?,
            self.row(&[
                ("branch7x7dbl_1", c, ONE, 1, NONE),
                ("branch7x7dbl_2", c, tall.0, 1, tall.1),
                ("branch7x7dbl_3", c, wide.0, 1, wide.1),
                ("branch7x7dbl_4", c, tall.0, 1, tall.1),
                ("branch7x7dbl_5", 192, wide.0, 1, wide.1),
            ])?,
            self.pooled(
                PoolKind::Average,
                1,
                1,
                &[("branch_pool", 192, ONE, 1, NONE)],
            )?,
        ]))
    }

    /// 17 x 17 to 8 x 8.
    fn d(&self) -> Result<Block> {
        Ok(Block(vec![
            self.row(&[
                ("branch3x3_1", 192, ONE, 1, NONE),
                ("branch3x3_2", 320, [3, 3], 2, NONE),
            ])?,
            self.row(&[
                ("branch7x7x3_1", 192, ONE, 1, NONE),
                ("branch7x7x3_2", 192, [1, 7], 1, [0, 3]),
                ("branch7x7x3_3", 192, [7, 1], 1, [3, 0]),
                ("branch7x7x3_4", 192, [3, 3], 2, NONE),
            ])?,
            self.pooled(PoolKind::Max, 2, 0, &[])?,
        ]))
    }

    /// 8 x 8; the two blocks differ in the pool.
    fn e(&self, kind: PoolKind) -> Result<Block> {
        let (wide, tall) = (([1, 3], [0, 1]), ([3, 1], [1, 0]));
        Ok(Block(vec![
            self.row(&[("branch1x1", 320, ONE, 1, NONE)])?,
            self.forked(
                &[("branch3x3_1", 384, ONE, 1, NONE)],
                &[
                    ("branch3x3_2a", 384, wide.0, 1, wide.1),
                    ("branch3x3_2b", 384, tall.0, 1, tall.1),
                ],
            )?,
            self.forked(
                &[
                    ("branch3x3dbl_1", 448, ONE, 1, NONE),
                    ("branch3x3dbl_2", 384, [3, 3], 1, [1, 1]),
                ],
                &[
                    ("branch3x3dbl_3a", 384, wide.0, 1, wide.1),
                    ("branch3x3dbl_3b", 384, tall.0, 1, tall.1),
                ],
            )?,
            self.pooled(kind, 1, 1, &[("branch_pool", 192, ONE, 1, NONE)])?,
        ]))
    }
}

impl Inception {
    /// The network with the parameters of `source`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn load(source: &dyn ParamSource) -> Result<Self> {
        Self::build(&Scope::root(source))
    }

    /// The names, shapes and initial values of all parameters.
    ///
    /// # Errors
    /// None in practice.
    pub fn specs() -> Result<Vec<ParamSpec>> {
        specs_of(Self::build)
    }

    fn build(scope: &Scope<'_>) -> Result<Self> {
        let unit = |name: &str, c_in, c_out, k, stride, pad| {
            let spec = ConvSpec {
                c_in,
                c_out,
                k: [k; 2],
                stride,
                pad: [pad; 2],
            };
            Unit::load(&scope.pp(name), spec)
        };
        let at = |name: &str, c_in| Builder {
            scope: scope.pp(name),
            c_in,
        };
        Ok(Self {
            stem: [
                unit("Conv2d_1a_3x3", 3, 32, 3, 2, 0)?,
                unit("Conv2d_2a_3x3", 32, 32, 3, 1, 0)?,
                unit("Conv2d_2b_3x3", 32, 64, 3, 1, 1)?,
                unit("Conv2d_3b_1x1", 64, 80, 1, 1, 0)?,
                unit("Conv2d_4a_3x3", 80, 192, 3, 1, 0)?,
            ],
            blocks: vec![
                at("Mixed_5b", 192).a(32)?,
                at("Mixed_5c", 256).a(64)?,
                at("Mixed_5d", 288).a(64)?,
                at("Mixed_6a", 288).b()?,
                at("Mixed_6b", 768).c(128)?,
                at("Mixed_6c", 768).c(160)?,
                at("Mixed_6d", 768).c(160)?,
                at("Mixed_6e", 768).c(192)?,
                at("Mixed_7a", 768).d()?,
                at("Mixed_7b", 1280).e(PoolKind::Average)?,
                at("Mixed_7c", 2048).e(PoolKind::Max)?,
            ],
            compute_dtype: DType::F32,
        })
    }

    /// The network with feature maps of this type. Weights stay f32, as are the results of [`Self::features`].
    #[must_use]
    pub fn with_compute_dtype(self, compute_dtype: DType) -> Self {
        Self {
            compute_dtype,
            ..self
        }
    }

    /// The feature maps of 64, 192, 768 and 2048 channels that FID and its variants use, in the type of [`Self::with_compute_dtype`].
    ///
    /// # Shapes
    /// - `x`: `[B, 3, H, W]` about [-1, 1], sides of at least 75 pixels; 299 in training
    ///
    /// # Errors
    /// Images with other channels, or smaller ones.
    pub fn maps(&self, x: &Tensor) -> Result<[Tensor; 4]> {
        let (_, c, h, w) = x.dims4()?;
        if c != 3 || h.min(w) < 75 {
            bail!(
                "Inception: expected images of 3 channels and at least 75x75 pixels, found {c}x{h}x{w}"
            );
        }
        let shrink = |x: &Tensor| pool(x, PoolKind::Max, 3, 2, 0);
        let mut h = x.to_dtype(self.compute_dtype)?;
        for unit in &self.stem[..3] {
            h = unit.forward(&h)?;
        }
        let first = shrink(&h)?;
        h = first.clone();
        for unit in &self.stem[3..] {
            h = unit.forward(&h)?;
        }
        let second = shrink(&h)?;
        let run = |from: &Tensor, blocks: &[Block]| -> Result<Tensor> {
            let mut h = from.clone();
            for block in blocks {
                h = block.forward(&h)?;
            }
            Ok(h)
        };
        let third = run(&second, &self.blocks[..8])?;
        let last = run(&third, &self.blocks[8..])?;
        Ok([first, second, third, last])
    }

    /// The features of FID and KID: the spatial mean of the last feature map, `[B, 2048]`.
    ///
    /// # Errors
    /// Those of [`Self::maps`].
    pub fn features(&self, x: &Tensor) -> Result<Tensor> {
        let [.., last] = self.maps(x)?;
        last.to_dtype(x.dtype())?.flatten_from(2)?.mean(2)
    }
}
