//! The networks that say how far an edit got.

use crate::weights::Weights;
use crate::{judge, usage};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use sdft_asyrp::{ClipInput, Embed, Goal, GoalWeights, TextDirection, cosine_of_texts};
use sdft_eval::{class_features, hash_of, read_clip, text_as_it_stands, texts_through_templates};
use sdft_features::{Clip, ClipConfig, DigitsJudge, IDENTITY_SIDE, IdentityNet, Network};
use sdft_metrics::Features;
use sdft_train::GoalPlan;
use std::path::{Path, PathBuf};

/// Digits of a class that its place in the judge's space is the mean of.
const DIGITS_OF_A_CLASS: usize = 100;

/// What `goal.network` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eye {
    /// CLIP with patches of this side.
    Clip(usize),
    Digits,
}

impl Eye {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "digits" => Self::Digits,
            "clip-b32" => Self::Clip(32),
            _ => Self::Clip(16),
        }
    }
}

/// Finds the files of the goal's networks, and writes down which they are.
pub(super) fn locate(goal: &mut GoalPlan, given: &[String]) -> Result<()> {
    let weights = Weights::parse(given)?;
    let Eye::Clip(patch) = Eye::of(&goal.network) else {
        return Ok(());
    };
    let network = Network::Clip(patch);
    if goal.weights.is_empty() {
        let otherwise = format!("give --weights {}=FILE", network.name());
        let found = weights.of(network, &otherwise)?;
        let all = found.weights.iter().chain(&found.tokenizer);
        goal.weights = all.map(|path| whole(path)).collect::<Result<_>>()?;
    }
    let (files, _) = parts(goal)?;
    goal.weights_sha256 = hash_of(&files)?;
    if goal.identity > 0.0 && goal.identity_weights.is_empty() {
        let otherwise = "give --weights irse50=FILE, or leave it out with --set goal.identity=0";
        let found = weights.of(Network::Identity, otherwise)?;
        goal.identity_weights = found
            .weights
            .iter()
            .map(|p| whole(p))
            .collect::<Result<_>>()?;
    }
    Ok(())
}

fn whole(path: &Path) -> Result<String> {
    let full = std::path::absolute(path)
        .with_context(|| format!("cannot make sense of the path {}", path.display()))?;
    Ok(full.display().to_string())
}

/// Weights and tokenizer.
fn parts(goal: &GoalPlan) -> Result<(Vec<PathBuf>, PathBuf)> {
    let (mut tokenizer, weights) = goal
        .weights
        .iter()
        .map(PathBuf::from)
        .partition::<Vec<_>, _>(|path| path.extension().is_some_and(|e| e == "json"));
    match (tokenizer.pop(), weights.is_empty()) {
        (Some(tokenizer), false) => Ok((weights, tokenizer)),
        _ => Err(usage(format!(
            "goal.weights: texts need the weights of {name} and its tokenizer.json, found {:?}; give --weights {name}=model.safetensors --weights {name}=tokenizer.json",
            goal.weights,
            name = goal.network
        ))),
    }
}

/// The goal of a plan, for images of `side` pixels.
pub(super) fn open(goal: &GoalPlan, side: usize) -> Result<Goal> {
    let words = read_words(goal)?;
    let weights = GoalWeights {
        clip: goal.clip,
        l1: goal.l1,
        identity: goal.identity,
    };
    let embed = words.eye.embed(side, goal.antialias)?;
    let made = Goal::new(embed, words.direction, words.cosine, weights);
    if goal.identity == 0.0 {
        return Ok(made);
    }
    if side != IDENTITY_SIDE {
        return Err(usage(format!(
            "goal.identity: IR-SE50 looks at images of {IDENTITY_SIDE}x{IDENTITY_SIDE}, the model makes {side}x{side}"
        )));
    }
    let files: Vec<PathBuf> = goal.identity_weights.iter().map(PathBuf::from).collect();
    let params = Network::Identity.read(&files).map_err(anyhow::Error::msg)?;
    let net = IdentityNet::load(&params)?;
    Ok(made.keeping(Box::new(move |x| net.embed(x))))
}

/// The cosine of both texts as they stand.
pub(super) fn cosine(goal: &GoalPlan) -> Result<f64> {
    Ok(read_words(goal)?.cosine)
}

/// A network, and the two texts in its space.
struct Words {
    eye: Opened,
    direction: TextDirection,
    cosine: f64,
}

enum Opened {
    Clip(Clip, usize),
    Digits(DigitsJudge),
}

impl Opened {
    fn embed(self, side: usize, antialias: bool) -> Result<Box<Embed>> {
        Ok(match self {
            Self::Digits(judge) => Box::new(move |x| Ok(judge.look(x)?.features)),
            Self::Clip(clip, patch) => {
                let seen = ClipConfig::vit_b(patch).side;
                let input = ClipInput::new(side, seen, antialias, &Device::Cpu)?;
                Box::new(move |x| clip.image_features(&input.forward(x)?))
            }
        })
    }
}

fn read_words(goal: &GoalPlan) -> Result<Words> {
    let Eye::Clip(patch) = Eye::of(&goal.network) else {
        return digits(goal);
    };
    let (files, tokenizer) = parts(goal)?;
    let found = hash_of(&files)?;
    if found != goal.weights_sha256 {
        bail!(
            "{}: other weights than the run began with: their SHA-256 was {}, now it is {found}",
            goal.weights.join(", "),
            goal.weights_sha256
        );
    }
    let clip = read_clip(patch, &files)?;
    let texts = [goal.from.as_str(), goal.to.as_str()];
    let wrong = |e: sdft_eval::EvalError| usage(format!("goal: {e}"));
    let [from, to] = texts_through_templates(&clip, patch, &tokenizer, texts).map_err(wrong)?;
    let plain = |text| text_as_it_stands(&clip, patch, &tokenizer, text);
    let cosine = cosine_of_texts(&plain(texts[0])?, &plain(texts[1])?);
    let direction = TextDirection::between(&tensor(&from)?, &tensor(&to)?)
        .with_context(|| format!("goal: from {:?} to {:?}", goal.from, goal.to))?;
    Ok(Words {
        eye: Opened::Clip(clip, patch),
        direction,
        cosine,
    })
}

fn tensor(features: &Features) -> Result<Tensor> {
    let shape = (features.n(), features.dim());
    Ok(Tensor::from_slice(
        features.as_slice(),
        shape,
        &Device::Cpu,
    )?)
}

/// Classes in the place of texts: each stands where its digits are.
fn digits(goal: &GoalPlan) -> Result<Words> {
    let judge = judge::load()?;
    let class = |text: &str| text.parse().map_err(|_| usage(format!("{text}: no digit")));
    let place = |text: &str| -> Result<Tensor> {
        Ok(class_features(&judge, class(text)?, DIGITS_OF_A_CLASS)?)
    };
    let (from, to) = (place(&goal.from)?, place(&goal.to)?);
    let mean = |x: &Tensor| x.mean(0)?.to_vec1::<f32>();
    Ok(Words {
        cosine: cosine_of_texts(&mean(&from)?, &mean(&to)?),
        direction: TextDirection::between(&from, &to)?,
        eye: Opened::Digits(judge),
    })
}
