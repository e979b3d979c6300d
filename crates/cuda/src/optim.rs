//! The optimiser step over all parameters in four launches; its decision stays on the device until it is read.

use crate::launch::{Arg, File, blocks, launch, long, spread};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Result, Shape, Storage, Tensor, bail};

/// Elements of one block.
const CHUNK: usize = 65536;
/// Entries of the state: updates, updates of the average, loss scale, good steps, gradient norm, verdict.
const STATE: usize = 8;

/// The update rule.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// AdamW, with two moments.
    AdamW,
    /// SGD, with one moment or none.
    Sgd {
        /// 0 for none.
        momentum: f64,
    },
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Learning rate.
    pub lr: f64,
    /// Largest gradient norm; 0 does not clip.
    pub max_norm: f64,
    /// Decay rates of AdamW's moments.
    pub betas: (f64, f64),
    /// AdamW's epsilon.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Weight of the old average in an update.
    pub ema_rate: f64,
    /// Whether update `n` uses `(1 + n) / (10 + n)` if that is smaller.
    pub ema_ramp: bool,
    /// Steps without overflow after which the loss scale doubles; `None` if the loss is not scaled.
    pub growth_interval: Option<u64>,
}

/// The counters before a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Updates so far.
    pub updates: u64,
    /// Updates of the average so far.
    pub ema_updates: u64,
    /// The factor of the loss; 1 if it is not scaled.
    pub loss_scale: f64,
    /// Steps since the scale last changed.
    pub good_steps: u64,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The counters after it.
    pub after: Step,
    /// Norm of the gradient before clipping, without the loss scale.
    pub grad_norm: f64,
    /// Whether the loss was finite, and whether the gradient was.
    pub finite: (bool, bool),
}

impl Decision {
    /// From the values of [`Table::step`].
    ///
    /// # Errors
    /// Another number of values.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters below 2^53"
    )]
    pub fn read(values: &[f64]) -> Result<Self> {
        let &[
            updates,
            ema_updates,
            loss_scale,
            good_steps,
            grad_norm,
            verdict,
            ..,
        ] = values
        else {
            bail!(
                "expected {STATE} values of the optimiser state, found {}",
                values.len()
            );
        };
        Ok(Self {
            after: Step {
                updates: updates as u64,
                ema_updates: ema_updates as u64,
                loss_scale,
                good_steps: good_steps as u64,
            },
            grad_norm,
            finite: (verdict != 1.0, verdict != 2.0),
        })
    }
}

/// The addresses of all parameters, moments and averages, cut into chunks.
pub struct Table {
    device: CudaDevice,
    /// Addresses of parameter, two moments and average; 0 for none.
    fixed: Vec<[u64; 4]>,
    lens: Vec<usize>,
    device_lens: CudaSlice<i64>,
    chunk_tensor: CudaSlice<i32>,
    chunk_start: CudaSlice<i64>,
    n_chunks: usize,
    partial: CudaSlice<f64>,
    norm: CudaSlice<f64>,
    scalars: CudaSlice<f32>,
    state: CudaSlice<f64>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("tensors", &self.lens.len())
            .finish_non_exhaustive()
    }
}

impl Table {
    /// The table of these parameters, each with its two moments and its average, where there are any. Each row has contiguous f32 tensors
    /// of one shape, whose memory must not move.
    ///
    /// # Errors
    /// A tensor on another device or of another type, or a device error.
    pub fn new(tensors: &[[Option<&Tensor>; 4]], start: Step) -> Result<Self> {
        let Some(first) = tensors.iter().find_map(|row| row[0]) else {
            bail!("expected parameters to optimise, found none");
        };
        let device = first.device().as_cuda_device()?.clone();
        let mut fixed = Vec::with_capacity(tensors.len());
        let mut lens = Vec::with_capacity(tensors.len());
        for row in tensors {
            let mut addresses = [0; 4];
            for (address, tensor) in addresses.iter_mut().zip(row) {
                if let Some(tensor) = tensor {
                    *address = f32_address(tensor)?;
                }
            }
            fixed.push(addresses);
            lens.push(row[0].map_or(0, Tensor::elem_count));
        }
        let (mut chunk_tensor, mut chunk_start) = (Vec::new(), Vec::new());
        for (i, &len) in lens.iter().enumerate() {
            for start in (0..len).step_by(CHUNK) {
                chunk_tensor.push(i32::try_from(i).unwrap_or(i32::MAX));
                chunk_start.push(i64::try_from(start).unwrap_or(i64::MAX));
            }
        }
        let n_chunks = chunk_tensor.len();
        let lens_i64: Vec<i64> = lens
            .iter()
            .map(|&n| i64::try_from(n).unwrap_or(0))
            .collect();
        let state = state_of(start);
        Ok(Self {
            device_lens: device.clone_htod(&lens_i64)?,
            chunk_tensor: device.clone_htod(&chunk_tensor)?,
            chunk_start: device.clone_htod(&chunk_start)?,
            n_chunks,
            partial: device.alloc_zeros(n_chunks.max(1))?,
            norm: device.alloc_zeros(1)?,
            scalars: device.alloc_zeros(16)?,
            state: device.clone_htod(&state)?,
            fixed,
            lens,
            device,
        })
    }

    /// The loss scale on the device, f64 of one element.
    ///
    /// # Errors
    /// A device error.
    pub fn loss_scale(&self) -> Result<Tensor> {
        let all = self.state_tensor()?;
        all.narrow(0, 2, 1)
    }

    /// Updates all parameters that have a gradient, and all averages, unless `loss` (f64, one element) or the gradient is not finite.
    /// Returns the state, which [`Decision::read`] decodes once it is on the host.
    ///
    /// # Errors
    /// Gradients that do not fit, or a device error.
    pub fn step(
        &mut self,
        rule: Rule,
        settings: &Settings,
        grads: &[Option<&Tensor>],
        loss: &Tensor,
    ) -> Result<Tensor> {
        if grads.len() != self.fixed.len() {
            bail!(
                "expected {} gradients, found {}",
                self.fixed.len(),
                grads.len()
            );
        }
        let mut rows = Vec::with_capacity(5 * grads.len());
        for ((grad, fixed), len) in grads.iter().zip(&self.fixed).zip(&self.lens) {
            let address = match grad {
                Some(grad) if grad.elem_count() == *len => f32_address(grad)?,
                Some(grad) => bail!(
                    "expected a gradient of {len} elements, found {:?}",
                    grad.shape()
                ),
                None => 0,
            };
            let [p, m, v, e] = *fixed;
            rows.extend([p, address, m, v, e]);
        }
        let rows = self.device.clone_htod(&rows)?;
        let numbers: [f64; 12] = [
            settings.lr,
            settings.max_norm,
            settings.betas.0,
            settings.betas.1,
            settings.eps,
            settings.weight_decay,
            settings.ema_rate,
            f64::from(u8::from(settings.ema_ramp)),
            f64::from(u8::from(settings.growth_interval.is_some())),
            settings.growth_interval.unwrap_or(0) as f64,
            0.0,
            0.0,
        ];
        let numbers = self.device.clone_htod(&numbers)?;
        let loss = f64_address(loss)?;
        let stream = self.device.cuda_stream();
        let at = |slice: u64| Arg::At(slice);
        let (rows, lens) = (
            rows.device_ptr(&stream).0,
            self.device_lens.device_ptr(&stream).0,
        );
        let tensor = self.chunk_tensor.device_ptr(&stream).0;
        let start = self.chunk_start.device_ptr(&stream).0;
        let partial = self.partial.device_ptr(&stream).0;
        let norm = self.norm.device_ptr(&stream).0;
        let (state, scalars) = (
            self.state.device_ptr(&stream).0,
            self.scalars.device_ptr(&stream).0,
        );
        let numbers_at = numbers.device_ptr(&stream).0;
        let n = Arg::from(self.n_chunks);
        let grid = blocks(self.n_chunks, 1);
        let one = |threads: u32| {
            let mut config = blocks(1, 1);
            config.block_dim.0 = threads;
            config
        };
        let table = [at(rows), at(lens), at(tensor), at(start)];
        let with = |rest: &[Arg]| [&table, rest].concat();
        let kernel = |name| (File::Optim, name);
        let device = &self.device;
        launch(
            device,
            kernel("grad_squares"),
            grid,
            &with(&[at(partial), n]),
        )?;
        launch(
            device,
            kernel("sum_double"),
            one(256),
            &[at(partial), at(norm), n],
        )?;
        let decide = [at(norm), at(loss), at(state), at(scalars), at(numbers_at)];
        launch(device, kernel("decide"), one(1), &decide)?;
        match rule {
            Rule::AdamW => launch(device, kernel("adamw"), grid, &with(&[at(scalars), n]))?,
            Rule::Sgd { momentum } => {
                #[expect(clippy::cast_possible_truncation, reason = "a factor of f32 numbers")]
                let momentum = Arg::Float(momentum as f32);
                launch(
                    device,
                    kernel("sgd"),
                    grid,
                    &with(&[at(scalars), n, momentum]),
                )?;
            }
        }
        self.state_tensor()
    }

    /// Waits for the device and reads the state.
    ///
    /// # Errors
    /// A device error.
    pub fn read(&self) -> Result<Decision> {
        Decision::read(&self.device.clone_dtoh(&self.state)?)
    }

    /// A copy of the state as a tensor.
    fn state_tensor(&self) -> Result<Tensor> {
        let copy = self.device.cuda_stream().clone_dtod(&self.state).w()?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(copy, self.device.clone()));
        Ok(Tensor::from_storage(
            storage,
            Shape::from(STATE),
            BackpropOp::none(),
            false,
        ))
    }
}

/// `dst = a dst + b src` in place, for contiguous f32 tensors of one shape; each product is rounded before the sum.
///
/// # Errors
/// Tensors of another type or device, or a device error.
pub fn blend(dst: &Tensor, src: &Tensor, a: f32, b: f32) -> Result<()> {
    if dst.shape() != src.shape() {
        bail!("blend: expected {:?}, found {:?}", dst.shape(), src.shape());
    }
    let n = dst.elem_count();
    if n == 0 {
        return Ok(());
    }
    let args = [
        Arg::At(f32_address(dst)?),
        Arg::At(f32_address(src)?),
        Arg::Float(a),
        Arg::Float(b),
        long(n),
    ];
    let device = dst.device().as_cuda_device()?;
    launch(device, (File::Elementwise, "blend"), spread(n / 4), &args)
}

fn state_of(step: Step) -> [f64; STATE] {
    [
        step.updates as f64,
        step.ema_updates as f64,
        step.loss_scale,
        step.good_steps as f64,
        0.0,
        0.0,
        0.0,
        0.0,
    ]
}

fn f32_address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cuda(storage), Some((start, _))) => match &storage.slice {
            CudaStorageSlice::F32(slice) => {
                let stream = storage.device.cuda_stream();
                Ok(slice.device_ptr(&stream).0 + 4 * start as u64)
            }
            _ => bail!(
                "the optimiser: expected f32, found {}",
                tensor.dtype().as_str()
            ),
        },
        _ => bail!("the optimiser: expected contiguous tensors on the GPU"),
    }
}

fn f64_address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cuda(storage), Some((start, _))) => match &storage.slice {
            CudaStorageSlice::F64(slice) => {
                let stream = storage.device.cuda_stream();
                Ok(slice.device_ptr(&stream).0 + 8 * start as u64)
            }
            _ => bail!("the loss: expected f64, found {}", tensor.dtype().as_str()),
        },
        _ => bail!("the loss: expected a contiguous tensor on the GPU"),
    }
}
