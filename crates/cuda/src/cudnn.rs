//! Convolutions by cuDNN: an engine is chosen once for a shape, and kept for later processes.

use crate::choice::{Choice, Order, class, file_name};
use crate::conv::Conv;
use crate::descriptor::check;
use crate::device::{is_out_of_memory, is_tf32_allowed};
use crate::engines::{Engine, Plan, engines};
use crate::kernel_cache;
use crate::planes::on_planes;
use crate::recording::is_recording;
use candle_core::cuda_backend::cudarc::cudnn::sys::{self, cudnnHandle_t};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, sys::CUevent_flags};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{DType, Result, bail};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The forward pass or one of the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

/// Engines that need more scratch memory than this, or a sixteenth of the device's, are skipped. Free memory does not count: the choice
/// must not depend on it.
const MOST_WORKSPACE: usize = 2 << 30;

/// The number of engines that are timed with channels last, and on copies in PyTorch's order.
const TRIED: [(Order, usize); 2] = [(Order::ChannelsLast, 8), (Order::Planes, 2)];

/// A convolution as cuDNN computes it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) device: DeviceId,
    pub(crate) pass: Pass,
    pub(crate) conv: Conv,
    pub(crate) dtype: DType,
    pub(crate) tf32: bool,
}

impl Key {
    /// Whether factors may not be rounded, and every run must give the same bits.
    pub(crate) fn is_exact(&self) -> bool {
        self.dtype == DType::F32 && !self.tf32
    }

    /// The key of all batches that share a choice.
    fn of_class(&self) -> Self {
        let mut key = self.clone();
        key.conv.batch = class(self.conv.batch);
        key
    }

    /// The orders of tensors that are tried. Half types are fast with channels last only.
    fn orders(&self) -> &'static [(Order, usize)] {
        match self.dtype {
            DType::F32 => &TRIED,
            _ => &TRIED[..1],
        }
    }

    fn precision(&self) -> &'static str {
        if self.tf32 && self.dtype == DType::F32 {
            "tf32"
        } else {
            self.dtype.as_str()
        }
    }

    /// All that a choice depends on, except device and library.
    fn name(&self) -> String {
        let c = &self.conv;
        let ([k_h, k_w], [top, left, bottom, right]) = (c.k, c.pad);
        let pass = match self.pass {
            Pass::Forward => "forward",
            Pass::InputGradient => "input-gradient",
            Pass::WeightGradient => "weight-gradient",
        };
        format!(
            "{pass}-{}-{}x{}x{}x{}-{}-k{k_h}x{k_w}-s{}-p{top}.{left}.{bottom}.{right}",
            self.precision(),
            c.batch,
            c.c_in,
            c.h,
            c.w,
            c.c_out,
            c.stride
        )
    }
}

/// Handles, plans and scratch memory of all devices.
struct State {
    handles: HashMap<DeviceId, cudnnHandle_t>,
    /// The plan of each shape; `None` where cuDNN has no engine.
    plans: HashMap<Key, Option<Plan>>,
    /// The choices that were made by timing, for classes of batches.
    choices: HashMap<Key, Choice>,
    /// Scratch memory, shared by all work: there is one stream.
    workspaces: HashMap<DeviceId, CudaSlice<u8>>,
}

// SAFETY: handles and descriptors may be used from any thread, one at a time, which the lock guarantees.
unsafe impl Send for State {}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// Computes one pass by cuDNN, and returns `false` if it has no engine. Addresses are those of `x`, `w` and `y` or their gradients with
/// channels last, aligned to 16 bytes.
pub(crate) fn run(
    device: &CudaDevice,
    pass: Pass,
    conv: &Conv,
    dtype: DType,
    at: [u64; 3],
) -> Result<bool> {
    device.cuda_stream().context().bind_to_thread().w()?;
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let state = state.get_or_insert_with(|| State {
        handles: HashMap::new(),
        plans: HashMap::new(),
        choices: HashMap::new(),
        workspaces: HashMap::new(),
    });
    let (major, _) = device.cuda_stream().context().compute_capability().w()?;
    let key = Key {
        device: device.id(),
        pass,
        conv: *conv,
        dtype,
        // Older GPUs have no TF32.
        tf32: is_tf32_allowed() && major >= 8,
    };
    let work = Work {
        device,
        handle: state.handle(device)?,
        key: &key,
        at,
    };
    if !state.plans.contains_key(&key) {
        if is_recording() {
            bail!("a recording cannot choose engines");
        }
        let plan = state.plan(&work)?;
        if std::env::var_os("SDFT_CUDA_LOG").is_some() {
            let time = plan.as_ref();
            let time = time.and_then(|plan| work.time(plan, &mut state.workspaces).ok());
            log(&key, plan.as_ref(), time);
        }
        // Trials may have allocated more scratch memory than the chosen plan needs.
        state.workspaces.remove(&device.id());
        state.plans.insert(key.clone(), plan);
    }
    let Some(plan) = state.plans.get(&key).and_then(Option::as_ref) else {
        return Ok(false);
    };
    work.compute(plan, &mut state.workspaces)?;
    Ok(true)
}

impl State {
    fn handle(&mut self, device: &CudaDevice) -> Result<cudnnHandle_t> {
        if let Some(handle) = self.handles.get(&device.id()) {
            return Ok(*handle);
        }
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is written before it is read; the stream lives as long as the device, which is never closed.
        unsafe {
            check("cudnnCreate", sys::cudnnCreate(&raw mut handle))?;
            let stream = device.cuda_stream().cu_stream().cast();
            check("cudnnSetStream", sys::cudnnSetStream(handle, stream))?;
        }
        self.handles.insert(device.id(), handle);
        Ok(handle)
    }

    /// The plan of a shape; `None` if no engine runs. Exact f32 takes the first that runs, so that the choice is the same everywhere.
    /// Other precisions take the fastest, which is measured once for a class of batches: by this process or by an earlier one.
    fn plan(&mut self, work: &Work<'_>) -> Result<Option<Plan>> {
        if work.key.is_exact() {
            return self.first(work);
        }
        let class = work.key.of_class();
        let file = file_of(work.device, &class);
        let known = self.choices.get(&class).copied();
        let known = known.or_else(|| Choice::read(file.as_ref()?));
        let choice = match known {
            Some(choice) => choice,
            None => {
                let Some((fastest, all)) = self.fastest(work)? else {
                    return Ok(None);
                };
                // A choice that lacks memory, or cannot be written, holds for this process.
                file.filter(|_| all)
                    .and_then(|file| fastest.keep(&file).ok())
                    .unwrap_or(fastest)
            }
        };
        self.choices.insert(class, choice);
        match self.chosen(work, choice)? {
            Some(plan) => Ok(Some(plan)),
            // The engine does not compute this batch.
            None => self.first(work),
        }
    }

    /// The plan of an engine that was chosen, if it runs. For another batch cuDNN may recommend fewer settings of it.
    fn chosen(&mut self, work: &Work<'_>, choice: Choice) -> Result<Option<Plan>> {
        let engines = engines(work.handle, work.key, choice.order);
        let same = |engine: &&Engine| engine.choice == choice;
        let alike = |engine: &&Engine| engine.choice.engine == choice.engine;
        let engine = engines.iter().find(same);
        match engine.or_else(|| engines.iter().find(alike)) {
            Some(engine) => self.tried(work, engine),
            None => Ok(None),
        }
    }

    /// The first plan that runs. The reference engine is slower than copies in another order.
    fn first(&mut self, work: &Work<'_>) -> Result<Option<Plan>> {
        let orders = work.key.orders().iter();
        let mut all: Vec<Engine> = orders
            .flat_map(|&(order, _)| engines(work.handle, work.key, order))
            .collect();
        all.sort_by_key(Engine::is_reference);
        for engine in &all {
            if let Some(plan) = self.tried(work, engine)? {
                return Ok(Some(plan));
            }
        }
        Ok(None)
    }

    /// The plan of an engine; `None` if it cannot be prepared or does not run. Only a lack of memory is an error, because the choice must
    /// not depend on how much is free.
    fn tried(&mut self, work: &Work<'_>, engine: &Engine) -> Result<Option<Plan>> {
        let Ok(plan) = Plan::new(work.handle, engine, most_workspace(work.device)) else {
            return Ok(None);
        };
        workspace(&mut self.workspaces, work.device, plan.workspace)?;
        let runs = work.compute(&plan, &mut self.workspaces).is_ok();
        Ok(runs.then_some(plan))
    }

    /// The fastest engine of this device, of those that can be tried in the memory that is free, and whether that was enough for all.
    fn fastest(&mut self, work: &Work<'_>) -> Result<Option<(Choice, bool)>> {
        let mut best: Option<(f32, Choice)> = None;
        let mut lack = None;
        for &(order, most) in work.key.orders() {
            let mut tried = 0;
            for engine in engines(work.handle, work.key, order) {
                if tried == most || (engine.is_reference() && best.is_some()) {
                    break;
                }
                let Ok(plan) = Plan::new(work.handle, &engine, most_workspace(work.device)) else {
                    continue;
                };
                let time = match work.time(&plan, &mut self.workspaces) {
                    Ok(time) => time,
                    Err(error) => {
                        if is_out_of_memory(&error.to_string()) {
                            lack = Some(error);
                        }
                        continue;
                    }
                };
                tried += 1;
                if best.is_none_or(|(least, _)| time < least) {
                    best = Some((time, engine.choice));
                }
            }
        }
        match (best, lack) {
            // Without this, a slow kernel would compute the shape from now on.
            (None, Some(error)) => Err(error),
            (best, lack) => Ok(best.map(|(_, choice)| (choice, lack.is_none()))),
        }
    }
}

/// A convolution and its tensors.
struct Work<'a> {
    device: &'a CudaDevice,
    handle: cudnnHandle_t,
    key: &'a Key,
    at: [u64; 3],
}

impl Work<'_> {
    fn compute(
        &self,
        plan: &Plan,
        workspaces: &mut HashMap<DeviceId, CudaSlice<u8>>,
    ) -> Result<()> {
        // A larger one replaces the shared scratch memory at any time, so a recording has its own.
        let own = match is_recording() && plan.workspace > 0 {
            // SAFETY: engines write their scratch memory before they read it.
            true => Some(unsafe { self.device.alloc::<u8>(plan.workspace) }?),
            false => None,
        };
        let scratch = match &own {
            Some(own) => own.device_ptr(&self.device.cuda_stream()).0,
            None => workspace(workspaces, self.device, plan.workspace)?,
        };
        let execute = |at| plan.execute(self.handle, at, scratch);
        match plan.choice.order {
            Order::ChannelsLast => execute(self.at),
            Order::Planes => {
                let Key {
                    pass, conv, dtype, ..
                } = self.key;
                on_planes(self.device, (*pass, conv, *dtype), self.at, execute)
            }
        }
    }

    /// The milliseconds of three runs, after a first one that loads code.
    fn time(&self, plan: &Plan, workspaces: &mut HashMap<DeviceId, CudaSlice<u8>>) -> Result<f32> {
        self.compute(plan, workspaces)?;
        let stream = self.device.cuda_stream();
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let start = stream.record_event(timed).w()?;
        for _ in 0..3 {
            self.compute(plan, workspaces)?;
        }
        let end = stream.record_event(timed).w()?;
        start.elapsed_ms(&end).w()
    }
}

/// The file of a choice; `None` if the user has no cache folder.
fn file_of(device: &CudaDevice, class: &Key) -> Option<PathBuf> {
    let name = device.cuda_stream().context().name().ok()?;
    // SAFETY: a constant of the library.
    let version = unsafe { sys::cudnnGetVersion() };
    let folder = file_name(&format!("{name}-cudnn-{version}"));
    let engines = kernel_cache::folder()?.join("engines");
    Some(engines.join(folder).join(class.name()))
}

fn most_workspace(device: &CudaDevice) -> usize {
    let memory = device.cuda_stream().context().total_mem();
    memory.map_or(MOST_WORKSPACE, |bytes| MOST_WORKSPACE.min(bytes / 16))
}

/// Prints the engine of a shape and the time of one run.
#[expect(clippy::print_stderr, reason = "asked for by a variable")]
fn log(key: &Key, plan: Option<&Plan>, time: Option<f32>) {
    let choice = match (plan, time) {
        (Some(plan), Some(time)) => format!(
            "engine {}.{} {:?}, {:.3} ms, {} KiB of scratch memory",
            plan.choice.engine,
            plan.choice.variant,
            plan.choice.order,
            time / 3.0,
            plan.workspace / 1024
        ),
        _ => "no engine".to_owned(),
    };
    eprintln!("cudnn: {}: {choice}", key.name());
}

/// The address of scratch memory of at least this size.
fn workspace(
    all: &mut HashMap<DeviceId, CudaSlice<u8>>,
    device: &CudaDevice,
    bytes: usize,
) -> Result<u64> {
    if bytes == 0 {
        return Ok(0);
    }
    if all
        .get(&device.id())
        .is_none_or(|slice| slice.len() < bytes)
    {
        // The smaller one is freed first; work that still uses it is earlier on the stream.
        all.remove(&device.id());
        // SAFETY: engines write their scratch memory before they read it.
        all.insert(device.id(), unsafe { device.alloc::<u8>(bytes) }?);
    }
    let stream = device.cuda_stream();
    Ok(all
        .get(&device.id())
        .map_or(0, |slice| slice.device_ptr(&stream).0))
}
