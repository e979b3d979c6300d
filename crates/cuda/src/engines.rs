//! The engines that cuDNN recommends for a convolution.

use crate::choice::{Choice, Order};
use crate::cudnn::Key;
use crate::descriptor::{Descriptor, check};
use crate::graph::graph;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Attr, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptor_t, cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t as Mode,
    cudnnBackendNumericalNote_t as Note, cudnnHandle_t,
};
use candle_core::{Error, Result};
use std::collections::HashMap;

/// Settings of one engine that are tried: cuDNN recommends dozens, which differ little.
const VARIANTS: usize = 2;
/// The engine that cuDNN has for every shape, and that is slow for all of them.
const REFERENCE: i64 = 0;

/// An engine with the settings that cuDNN recommends for a shape.
pub(crate) struct Engine {
    config: Descriptor,
    pub(crate) choice: Choice,
}

impl Engine {
    pub(crate) fn is_reference(&self) -> bool {
        self.choice.engine == REFERENCE
    }
}

/// The engines that compute as exactly as the key demands, in the order in which cuDNN recommends them, the reference engine last:
/// the deterministic ones, or, if there are none and exact f32 is not needed, the others.
pub(crate) fn engines(handle: cudnnHandle_t, key: &Key, order: Order) -> Vec<Engine> {
    let Ok(graph) = graph(handle, key, order) else {
        return Vec::new();
    };
    let (mut deterministic, mut other) = (Vec::new(), Vec::new());
    for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
        // A list may be empty or fail for some shapes; the other may not.
        for config in advice(&graph, mode).unwrap_or_default() {
            let Ok((index, notes)) = describe(&config) else {
                continue;
            };
            if !allowed(&notes, key) {
                continue;
            }
            if notes.contains(&(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC as u32)) {
                other.push((index, config));
            } else {
                deterministic.push((index, config));
            }
        }
    }
    let found = match deterministic.is_empty() && !key.is_exact() {
        true => other,
        false => deterministic,
    };
    let mut seen: HashMap<i64, usize> = HashMap::new();
    let mut engines = Vec::new();
    for (index, config) in found {
        let count = seen.entry(index).or_default();
        if *count < VARIANTS {
            let choice = Choice {
                order,
                engine: index,
                variant: *count,
            };
            engines.push(Engine { config, choice });
        }
        *count += 1;
    }
    engines.sort_by_key(Engine::is_reference);
    engines
}

/// Whether an engine computes in the precision of the key.
fn allowed(notes: &[u32], key: &Key) -> bool {
    let has = |note: Note| notes.contains(&(note as u32));
    // Inputs that are converted may become half precision, whose range is smaller than that of TF32.
    if has(Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
        || has(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)
    {
        return false;
    }
    let exact = !has(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE)
        && !has(Note::CUDNN_NUMERICAL_NOTE_FFT)
        && !has(Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13);
    !key.is_exact() || exact
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

/// The number of an engine, and its numerical notes as numbers: a newer cuDNN may have notes that this build does not know.
fn describe(config: &Descriptor) -> Result<(i64, Vec<u32>)> {
    let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    let mut raw = [engine.0];
    config.get(
        Attr::CUDNN_ATTR_ENGINECFG_ENGINE,
        Type::CUDNN_TYPE_BACKEND_DESCRIPTOR,
        &mut raw,
    )?;
    let mut index = [0i64];
    engine.get(
        Attr::CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
        Type::CUDNN_TYPE_INT64,
        &mut index,
    )?;
    let mut notes = [0u32; 16];
    let count = engine.get(
        Attr::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
        Type::CUDNN_TYPE_NUMERICAL_NOTE,
        &mut notes,
    )?;
    Ok((index[0], notes[..count.min(notes.len())].to_vec()))
}

/// An engine, prepared for one shape.
pub(crate) struct Plan {
    plan: Descriptor,
    pub(crate) choice: Choice,
    /// Bytes of scratch memory.
    pub(crate) workspace: usize,
}

impl Plan {
    /// Prepares an engine that needs at most this much scratch memory.
    pub(crate) fn new(handle: cudnnHandle_t, engine: &Engine, most: usize) -> Result<Self> {
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        plan.set(
            Attr::CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
            Type::CUDNN_TYPE_HANDLE,
            &[handle],
        )?;
        let config = Attr::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG;
        plan.link(config, &[&engine.config])?;
        let plan = plan.done()?;
        let mut workspace = [0i64];
        plan.get(
            Attr::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
            Type::CUDNN_TYPE_INT64,
            &mut workspace,
        )?;
        let workspace = usize::try_from(workspace[0]).unwrap_or(0);
        if workspace > most {
            return Err(Error::Msg(format!(
                "an engine needs {workspace} bytes of scratch memory"
            )));
        }
        Ok(Self {
            plan,
            choice: engine.choice,
            workspace,
        })
    }

    pub(crate) fn execute(
        &self,
        handle: cudnnHandle_t,
        at: [u64; 3],
        workspace: u64,
    ) -> Result<()> {
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
