//! Convolutions by cuDNN: the engine of each shape is chosen once, by heuristics and for half types by timing.

use crate::conv::Conv;
use crate::descriptor::{Descriptor, check};
use crate::device::tf32;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Attr, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptor_t, cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t as Mode,
    cudnnBackendNumericalNote_t as Note, cudnnConvolutionMode_t, cudnnDataType_t, cudnnHandle_t,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, sys::CUevent_flags};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{DType, Error, Result};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The forward pass or one of the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

/// Engines that need more scratch memory than this are skipped.
const MOST_WORKSPACE: i64 = 512 << 20;
/// The number of engines that are timed.
const TRIED: usize = 4;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    device: DeviceId,
    pass: Pass,
    conv: Conv,
    dtype: DType,
    order: Order,
    tf32: bool,
}

/// Handles, plans and scratch memory of all devices.
struct State {
    handles: HashMap<DeviceId, cudnnHandle_t>,
    /// The plan of each shape; `None` where cuDNN has no engine.
    plans: HashMap<Key, Option<Plan>>,
    /// Scratch memory, shared by all work: there is one stream.
    workspaces: HashMap<DeviceId, CudaSlice<u8>>,
}

// SAFETY: handles and descriptors may be used from any thread, one at a time, which the lock guarantees.
unsafe impl Send for State {}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// The memory order of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    ChannelsLast,
    /// The default of PyTorch.
    Planes,
}

/// Computes one pass by cuDNN, and returns `false` if it has no engine. Addresses are those of `x`, `w` and `y` or their gradients,
/// aligned to 16 bytes.
pub(crate) fn run(
    device: &CudaDevice,
    pass: Pass,
    conv: &Conv,
    (dtype, order): (DType, Order),
    [x, w, y]: [u64; 3],
) -> Result<bool> {
    device.cuda_stream().context().bind_to_thread().w()?;
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let state = state.get_or_insert_with(|| State {
        handles: HashMap::new(),
        plans: HashMap::new(),
        workspaces: HashMap::new(),
    });
    let handle = state.handle(device)?;
    let key = Key {
        device: device.id(),
        pass,
        conv: *conv,
        dtype,
        order,
        tf32: tf32(),
    };
    if !state.plans.contains_key(&key) {
        let plan = state.fastest(device, handle, &key, [x, w, y])?;
        // Timing may have allocated more scratch memory than the chosen plan needs.
        state.workspaces.remove(&device.id());
        state.plans.insert(key.clone(), plan);
    }
    let Some(plan) = state.plans.get(&key).and_then(Option::as_ref) else {
        return Ok(false);
    };
    let workspace = workspace(&mut state.workspaces, device, plan.workspace)?;
    plan.execute(handle, [x, w, y], workspace)?;
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

    /// The fastest plan on this device; for f32 the first that runs, so that the choice is the same in every run. `None` if there is
    /// none: an engine that fails is skipped. Only a lack of memory is an error, because the choice must not depend on how much is free.
    fn fastest(
        &mut self,
        device: &CudaDevice,
        handle: cudnnHandle_t,
        key: &Key,
        at: [u64; 3],
    ) -> Result<Option<Plan>> {
        let mut best: Option<(f32, Plan, i64)> = None;
        let mut tried = 0;
        for config in configs(handle, key) {
            let Ok(plan) = prepare(handle, &config) else {
                continue;
            };
            let workspace = workspace(&mut self.workspaces, device, plan.workspace)?;
            let Some(time) = time(device, handle, &plan, at, workspace) else {
                continue;
            };
            tried += 1;
            if best.as_ref().is_none_or(|(least, ..)| time < *least) {
                best = Some((time, plan, engine_index(&config).unwrap_or(-1)));
            }
            if tried == TRIED || key.dtype == DType::F32 {
                break;
            }
        }
        if std::env::var_os("SDFT_CUDA_LOG").is_some() {
            log(key, best.as_ref());
        }
        Ok(best.map(|(_, plan, _)| plan))
    }
}

/// Prints the engine of a shape and the time of one run.
#[expect(clippy::print_stderr, reason = "asked for by a variable")]
fn log(key: &Key, choice: Option<&(f32, Plan, i64)>) {
    let (c, precision) = (
        &key.conv,
        if key.tf32 { "tf32" } else { key.dtype.as_str() },
    );
    let shape = format!(
        "{}x{}->{} {}x{} /{} @{}x{}",
        c.batch, c.c_in, c.c_out, c.k[0], c.k[1], c.stride, c.h, c.w
    );
    let choice = match choice {
        Some((time, plan, engine)) => format!(
            "engine {engine}, {:.3} ms, {} KiB of scratch memory",
            time / 3.0,
            plan.workspace / 1024
        ),
        None => "no engine".to_owned(),
    };
    eprintln!(
        "cudnn: {:?} {shape} {precision} {:?}: {choice}",
        key.pass, key.order
    );
}

/// The milliseconds of three runs, after a first one that loads code; `None` if one fails.
fn time(
    device: &CudaDevice,
    handle: cudnnHandle_t,
    plan: &Plan,
    at: [u64; 3],
    workspace: u64,
) -> Option<f32> {
    plan.execute(handle, at, workspace).ok()?;
    let stream = device.cuda_stream();
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let start = stream.record_event(timed).ok()?;
    for _ in 0..3 {
        plan.execute(handle, at, workspace).ok()?;
    }
    let end = stream.record_event(timed).ok()?;
    start.elapsed_ms(&end).ok()
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

/// An engine, prepared for one shape.
struct Plan {
    plan: Descriptor,
    workspace: usize,
}

impl Plan {
    fn execute(&self, handle: cudnnHandle_t, at: [u64; 3], workspace: u64) -> Result<()> {
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
        pack.numbers(Attr::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &[1, 2, 3])?;
        let pointer = Type::CUDNN_TYPE_VOID_PTR;
        pack.set(Attr::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, pointer, &at)?;
        pack.set(
            Attr::CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
            pointer,
            &[workspace],
        )?;
        let pack = pack.done()?;
        // SAFETY: the plan is finalised, and the addresses are those of tensors of its shapes.
        check("execute", unsafe {
            sys::cudnnBackendExecute(handle, self.plan.0, pack.0)
        })
    }
}

/// The engines in the order in which cuDNN recommends them: the deterministic ones, or, if there are none and exact f32 is not needed,
/// the others.
fn configs(handle: cudnnHandle_t, key: &Key) -> Vec<Descriptor> {
    let Ok(graph) = graph(handle, key) else {
        return Vec::new();
    };
    let (mut deterministic, mut other) = (Vec::new(), Vec::new());
    for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
        // A list may be empty or fail for some shapes; the other may not.
        for config in advice(&graph, mode).unwrap_or_default() {
            let Ok(notes) = notes(&config) else {
                continue;
            };
            if !allowed(&notes, key) {
                continue;
            }
            if notes.contains(&(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC as u32)) {
                other.push(config);
            } else {
                deterministic.push(config);
            }
        }
    }
    if deterministic.is_empty() && (key.dtype != DType::F32 || key.tf32) {
        return other;
    }
    deterministic
}

/// Whether an engine computes in the precision of the key.
fn allowed(notes: &[u32], key: &Key) -> bool {
    let has = |note: Note| notes.contains(&(note as u32));
    if has(Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) {
        return false;
    }
    let exact = !has(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE)
        && !has(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)
        && !has(Note::CUDNN_NUMERICAL_NOTE_FFT)
        && !has(Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13);
    key.dtype != DType::F32 || key.tf32 || exact
}

fn advice(graph: &Descriptor, mode: Mode) -> Result<Vec<Descriptor>> {
    let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
    heuristics.link(Attr::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[graph])?;
    heuristics.set(
        Attr::CUDNN_ATTR_ENGINEHEUR_MODE,
        Type::CUDNN_TYPE_HEUR_MODE,
        &[mode],
    )?;
    let heuristics = heuristics.done()?;
    let results = Attr::CUDNN_ATTR_ENGINEHEUR_RESULTS;
    let kind = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
    let count = heuristics.get::<cudnnBackendDescriptor_t>(results, kind, &mut [])?;
    let configs: Vec<Descriptor> = (0..count)
        .map(|_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR))
        .collect::<Result<_>>()?;
    let mut raw: Vec<_> = configs.iter().map(|d| d.0).collect();
    let filled = heuristics.get(results, kind, &mut raw)?;
    Ok(configs.into_iter().take(filled).collect())
}

fn engine(config: &Descriptor) -> Result<Descriptor> {
    let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    let mut raw = [engine.0];
    config.get(
        Attr::CUDNN_ATTR_ENGINECFG_ENGINE,
        Type::CUDNN_TYPE_BACKEND_DESCRIPTOR,
        &mut raw,
    )?;
    Ok(engine)
}

fn engine_index(config: &Descriptor) -> Result<i64> {
    let mut index = [0i64];
    let name = Attr::CUDNN_ATTR_ENGINE_GLOBAL_INDEX;
    engine(config)?.get(name, Type::CUDNN_TYPE_INT64, &mut index)?;
    Ok(index[0])
}

/// The numerical notes of an engine, as numbers: a newer cuDNN may have notes that this build does not know.
fn notes(config: &Descriptor) -> Result<Vec<u32>> {
    let mut notes = [0u32; 16];
    let count = engine(config)?.get(
        Attr::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
        Type::CUDNN_TYPE_NUMERICAL_NOTE,
        &mut notes,
    )?;
    Ok(notes[..count.min(notes.len())].to_vec())
}

fn prepare(handle: cudnnHandle_t, config: &Descriptor) -> Result<Plan> {
    let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
    plan.set(
        Attr::CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
        Type::CUDNN_TYPE_HANDLE,
        &[handle],
    )?;
    plan.link(Attr::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[config])?;
    let plan = plan.done()?;
    let mut workspace = [0i64];
    plan.get(
        Attr::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
        Type::CUDNN_TYPE_INT64,
        &mut workspace,
    )?;
    let [workspace] = workspace;
    if workspace > MOST_WORKSPACE {
        return Err(Error::Msg(format!(
            "an engine needs {workspace} bytes of scratch memory"
        )));
    }
    Ok(Plan {
        plan,
        workspace: usize::try_from(workspace).unwrap_or(0),
    })
}

/// A single convolution, or one of its gradients.
fn graph(handle: cudnnHandle_t, key: &Key) -> Result<Descriptor> {
    let c = &key.conv;
    let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let tensor = |id: i64, dims: [usize; 4]| -> Result<Descriptor> {
        let [n, channels, h, w] = dims.map(size);
        let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
        let kind = match key.dtype {
            DType::BF16 => cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            DType::F16 => cudnnDataType_t::CUDNN_DATA_HALF,
            _ => cudnnDataType_t::CUDNN_DATA_FLOAT,
        };
        let data_type = Type::CUDNN_TYPE_DATA_TYPE;
        tensor.set(Attr::CUDNN_ATTR_TENSOR_DATA_TYPE, data_type, &[kind])?;
        tensor.numbers(Attr::CUDNN_ATTR_TENSOR_DIMENSIONS, &[n, channels, h, w])?;
        let strides = match key.order {
            Order::ChannelsLast => [h * w * channels, 1, w * channels, channels],
            Order::Planes => [h * w * channels, h * w, w, 1],
        };
        tensor.numbers(Attr::CUDNN_ATTR_TENSOR_STRIDES, &strides)?;
        tensor.numbers(Attr::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?;
        tensor.numbers(Attr::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16])?;
        tensor.done()
    };
    let x = tensor(1, [c.batch, c.c_in, c.h, c.w])?;
    let w = tensor(2, [c.c_out, c.c_in, c.k[0], c.k[1]])?;
    let y = tensor(3, [c.batch, c.c_out, c.out_h(), c.out_w()])?;

    let conv = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    let data_type = Type::CUDNN_TYPE_DATA_TYPE;
    let float = [cudnnDataType_t::CUDNN_DATA_FLOAT];
    conv.set(Attr::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, data_type, &float)?;
    conv.set(
        Attr::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
        Type::CUDNN_TYPE_CONVOLUTION_MODE,
        &[cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION],
    )?;
    let [top, left, bottom, right] = c.pad.map(size);
    conv.numbers(Attr::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2])?;
    conv.numbers(Attr::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1, 1])?;
    let stride = size(c.stride);
    conv.numbers(
        Attr::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES,
        &[stride, stride],
    )?;
    conv.numbers(Attr::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[top, left])?;
    conv.numbers(Attr::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &[bottom, right])?;
    let conv = conv.done()?;

    let (kind, names) = match key.pass {
        Pass::Forward => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Pass::InputGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Pass::WeightGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Attr::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let operation = Descriptor::new(kind)?;
    let [conv_name, x_name, w_name, y_name, alpha, beta] = names;
    operation.link(conv_name, &[&conv])?;
    operation.link(x_name, &[&x])?;
    operation.link(w_name, &[&w])?;
    operation.link(y_name, &[&y])?;
    operation.set(alpha, Type::CUDNN_TYPE_FLOAT, &[1f32])?;
    operation.set(beta, Type::CUDNN_TYPE_FLOAT, &[0f32])?;
    let operation = operation.done()?;

    let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
    graph.set(
        Attr::CUDNN_ATTR_OPERATIONGRAPH_HANDLE,
        Type::CUDNN_TYPE_HANDLE,
        &[handle],
    )?;
    graph.link(Attr::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&operation])?;
    graph.done()
}
