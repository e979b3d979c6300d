//! Generation from a latent, and gradients through all of its steps.

use candle_core::{Result, Tensor, Var, bail};
use sdft_asyrp::{descent, step};
use sdft_autograd::{backward, no_grad};
use sdft_diffusion::{Condition, Denoiser, Prediction, Trainable};
use sdft_optim::collect_gradients;
use sdft_samplers::{Step, StepCallback};
use sdft_schedule::Schedule;

/// A network in training, called with the steps of its process. As a [`Denoiser`] it predicts without dropout, and its predictions have
/// gradients.
#[derive(Clone, Copy)]
pub struct Tuned<'a> {
    /// The network.
    pub net: &'a dyn Trainable,
    /// The class that it is asked for; `None` for a network without classes.
    pub class: Option<u32>,
}

impl Denoiser for Tuned<'_> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        let labels = self.class.map(|class| vec![class; t.len()]);
        let condition = Condition {
            labels: labels.as_deref(),
            ..Condition::default()
        };
        self.net.predict(xt, t, &condition)
    }
}

/// `t` for every image of the batch.
#[expect(clippy::cast_precision_loss, reason = "steps are small numbers")]
pub(crate) fn times(t: usize, x: &Tensor) -> Result<Vec<f32>> {
    Ok(vec![t as f32; x.dim(0)?])
}

/// The image that `latent`, a state at the last of `steps`, becomes: DDIM without noise and without clamping. Nothing has a gradient.
///
/// # Shapes
/// - `latent`, and what is returned: `[B, C, H, W]`
///
/// Source: DiffusionCLIP `diffusionclip.py`, generative process; `steps` are those of [`sdft_asyrp::sequence`].
///
/// # Errors
/// Steps that do not ascend or are not of the process; as [`Denoiser::predict`]; an error of `callback`.
pub fn generate(
    net: &dyn Denoiser,
    schedule: &Schedule,
    latent: &Tensor,
    steps: &[usize],
    callback: &mut StepCallback<'_>,
) -> Result<Tensor> {
    let mut x = latent.detach();
    for (done, (t, levels)) in descent(steps, schedule)?.into_iter().enumerate() {
        let times = times(t, &x)?;
        let prediction = no_grad(|| net.predict(&x, &times))?.detach();
        let stepped = step(&x, &prediction, &prediction, levels, None)?;
        x = stepped.next.detach();
        callback(&Step {
            done: done + 1,
            total: steps.len(),
            t,
            x: &x,
            x0: &stepped.x0,
        })?;
    }
    Ok(x)
}

/// A generated image, its loss, and the gradients of the loss.
#[derive(Debug)]
pub struct Chain {
    /// The image, without a graph.
    pub image: Tensor,
    /// The loss, a scalar without a graph.
    pub loss: Tensor,
    /// The gradient of each variable, in the order of [`Trainable::vars`]; `None` where the loss does not depend on it.
    pub gradients: Vec<Option<Tensor>>,
}

/// The gradients of a loss of the image that a network in training generates from `latent`, through all steps of the generation.
///
/// The states of the generation are kept, and every step is computed a second time in the backward pass, so memory does not grow with
/// the number of steps beyond the states. `callback` is called after every step in both directions, `2 n` times in all.
///
/// Source: DiffusionCLIP `diffusionclip.py` `clip_finetune`, which keeps the graph of all steps; the gradients are the same.
///
/// # Errors
/// As [`generate`]; a loss that does not depend on the image; an error of `loss`.
pub fn chain_gradients(
    tuned: Tuned<'_>,
    schedule: &Schedule,
    latent: &Tensor,
    steps: &[usize],
    loss: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    callback: &mut dyn FnMut() -> Result<()>,
) -> Result<Chain> {
    let mut states = vec![latent.detach()];
    let image = generate(&tuned, schedule, latent, steps, &mut |done| {
        states.push(done.x.clone());
        callback()
    })?;
    states.pop();
    let leaf = Var::from_tensor(&image)?;
    let value = loss(leaf.as_tensor())?;
    let Some(mut upstream) = backward(&value)?.remove(&leaf) else {
        bail!("the loss does not depend on the generated image");
    };
    let vars = tuned.net.vars();
    let mut gradients: Vec<Option<Tensor>> = vec![None; vars.len()];
    for (t, levels) in descent(steps, schedule)?.into_iter().rev() {
        let Some(state) = states.pop() else {
            bail!("a generation has a state for each of its steps");
        };
        let state = Var::from_tensor(&state)?;
        let prediction = tuned.predict(&state, &times(t, &state)?)?;
        let next = step(&state, &prediction, &prediction, levels, None)?.next;
        // Its gradients are those of the loss, passed through this step.
        let passed = (next * upstream.detach())?.sum_all()?;
        let mut store = backward(&passed)?;
        tuned.net.pull_back(&mut store)?;
        for (sum, gradient) in gradients.iter_mut().zip(collect_gradients(&vars, &store)) {
            *sum = match (sum.take(), gradient) {
                (Some(sum), Some(gradient)) => Some((sum + gradient)?),
                (sum, gradient) => sum.or(gradient),
            };
        }
        upstream = match store.remove(&state) {
            Some(upstream) => upstream,
            None => bail!("the state of step {t} has no gradient"),
        };
        callback()?;
    }
    Ok(Chain {
        image,
        loss: value.detach(),
        gradients,
    })
}
