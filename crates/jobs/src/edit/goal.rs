//! The networks that measure an edit, as named by the plan of a direction.

use crate::error::{Result, ResultExt as _, failed, usage};
use crate::judge::{load_emoji_judge, load_judge, training_judge};
use crate::weights::{Files, Weights};
use candle_core::{DType, Device, Tensor};
use sdft_assets::{DIGITS_JUDGE_WEIGHTS, EMOJI_JUDGE_WEIGHTS};
use sdft_asyrp::{ClipInput, Embed, Goal, GoalWeights, TextDirection, as_rgb, cosine_of_texts};
use sdft_autoencoder::Space;
use sdft_directions::GoalPlan;
use sdft_eval::{
    EmojiValues, class_features, features_of_values, hash_of, read_clip, text_as_it_stands,
    texts_through_templates,
};
use sdft_features::{
    AttributeJudge, Clip, ClipConfig, IDENTITY_SIDE, IdentityNet, LpipsNet, Network,
};
use sdft_metrics::Features;
use std::path::{Path, PathBuf};

/// Digits per class, whose mean features stand for the class.
const DIGITS_OF_A_CLASS: usize = 100;

/// The network that a goal is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoalNetwork {
    /// CLIP with patches of this side.
    Clip(usize),
    /// The embedded judge of digits.
    Digits,
    /// The embedded judge of emoji.
    Emoji,
}

impl GoalNetwork {
    /// The network that `goal.network` names.
    pub fn of(name: &str) -> Self {
        match name {
            "digits" => Self::Digits,
            "emoji" => Self::Emoji,
            "clip-b32" => Self::Clip(32),
            _ => Self::Clip(16),
        }
    }
}

/// The networks whose weights a goal needs; with `range` also LPIPS, which finds its steps.
pub(crate) fn goal_networks(goal: &GoalPlan, range: bool) -> Vec<Network> {
    let GoalNetwork::Clip(patch) = GoalNetwork::of(&goal.network) else {
        return Vec::new();
    };
    let mut all = vec![Network::Clip(patch)];
    if goal.identity > 0.0 {
        all.push(Network::Identity);
    }
    if range {
        all.push(Network::Lpips(LpipsNet::Alex));
    }
    all
}

/// Finds the files of the goal's networks and records them in the goal: given now, named by the plan, or from the cache. A plan that has
/// their hashes, as that of a run that is continued, takes no other files. Of an embedded judge the hash is recorded.
///
/// # Errors
/// A file is missing, or differs from the recorded hash.
pub(crate) fn locate_goal(goal: &mut GoalPlan, weights: &Weights) -> Result<()> {
    let embedded = match GoalNetwork::of(&goal.network) {
        GoalNetwork::Digits => Some(DIGITS_JUDGE_WEIGHTS),
        GoalNetwork::Emoji => Some(EMOJI_JUDGE_WEIGHTS),
        GoalNetwork::Clip(_) => None,
    };
    if let Some(bytes) = embedded {
        let found = sdft_files::sha256_bytes(bytes);
        if !goal.weights_sha256.is_empty() && goal.weights_sha256 != found {
            return Err(failed(format!(
                "goal.network = {:?}: this version has another judge than the one that the run began with; train the direction again",
                goal.network
            )));
        }
        goal.weights_sha256 = found;
        return Ok(());
    }
    for network in goal_networks(goal, false) {
        let (otherwise, known, hash) = match network {
            Network::Identity => (
                "give --weights irse50=FILE, or omit it with --set goal.identity=0".to_owned(),
                &mut goal.identity_weights,
                &mut goal.identity_sha256,
            ),
            _ => (
                format!("give --weights {}=FILE", network.name()),
                &mut goal.weights,
                &mut goal.weights_sha256,
            ),
        };
        let files = if weights.given(network).is_some() || known.is_empty() {
            let found = weights.of(network, &otherwise)?;
            found.weights.into_iter().chain(found.tokenizer).collect()
        } else {
            known.iter().map(PathBuf::from).collect::<Vec<_>>()
        };
        *known = files
            .iter()
            .map(|path| whole(path))
            .collect::<Result<_>>()?;
        let found = hash_of(&files)?;
        if !hash.is_empty() && *hash != found {
            return Err(failed(format!(
                "{}: other files than the run began with: their SHA-256 was {hash}, now it is {found}; give those with --weights {}=FILE",
                known.join(", "),
                network.name()
            )));
        }
        *hash = found;
    }
    Ok(())
}

fn whole(path: &Path) -> Result<String> {
    let full = std::path::absolute(path)
        .with_context(|| format!("cannot resolve the path {}", path.display()))?;
    Ok(full.display().to_string())
}

/// Weights and tokenizer.
fn parts(goal: &GoalPlan) -> Result<(Vec<PathBuf>, PathBuf)> {
    let files = Files::of(goal.weights.iter().map(PathBuf::from).collect());
    match files.tokenizer {
        Some(tokenizer) if !files.weights.is_empty() => Ok((files.weights, tokenizer)),
        _ => Err(usage(format!(
            "goal.weights: texts need the weights of {name} and its tokenizer.json, found {:?}; give --weights {name}=model.safetensors --weights {name}=tokenizer.json",
            goal.weights,
            name = goal.network
        ))),
    }
}

/// The goal of a plan, for states of this space on `device`. The networks see their images as [`as_rgb`] shows them.
///
/// # Errors
/// A network cannot be read, or does not take images of this form.
pub(crate) fn open_goal(goal: &GoalPlan, space: &Space, device: &Device) -> Result<Goal> {
    let form = space.image();
    if form.channels > 4 {
        return Err(usage(format!(
            "goal: {} compares colours, and the model's images have {} channels; expected 1 to 4",
            goal.network, form.channels
        )));
    }
    let (height, width) = (form.height, form.width);

    let words = read_words(goal, device)?;
    let weights = GoalWeights {
        clip: goal.clip,
        l1: goal.l1,
        identity: goal.identity,
    };
    let embed = seen_through(
        space,
        words.eye.embed([height, width], goal.antialias, device)?,
    );
    let made = Goal::new(embed, words.direction, words.cosine, weights);
    if goal.identity == 0.0 {
        return Ok(made);
    }
    if [height, width] != [IDENTITY_SIDE; 2] {
        return Err(usage(format!(
            "goal.identity: IR-SE50 takes images of {IDENTITY_SIDE}x{IDENTITY_SIDE}, the model makes {height}x{width}"
        )));
    }
    let files: Vec<PathBuf> = goal.identity_weights.iter().map(PathBuf::from).collect();
    let params = Network::Identity
        .read(&files)
        .map_err(|e| failed(e.to_string()))?;
    let net = IdentityNet::load(&params.to(DType::F32, device)?)?;
    let embed = Box::new(move |x: &Tensor| net.embed(&as_rgb(x)?));
    Ok(made.with_identity(seen_through(space, embed)))
}

/// The embedding of the images of states.
fn seen_through(space: &Space, embed: Box<Embed>) -> Box<Embed> {
    let space = space.clone();
    Box::new(move |x| embed(&space.decode(x)?))
}

/// A network, and the two texts in its space.
struct Words {
    eye: Opened,
    direction: TextDirection,
    cosine: f64,
}

enum Opened {
    Clip(Clip, usize),
    Judge(AttributeJudge),
}

impl Opened {
    fn embed(self, size: [usize; 2], antialias: bool, device: &Device) -> Result<Box<Embed>> {
        Ok(match self {
            Self::Judge(judge) => Box::new(move |x| Ok(judge.classify(&as_rgb(x)?)?.features)),
            Self::Clip(clip, patch) => {
                let seen = ClipConfig::vit_b(patch).side;
                let input = ClipInput::new(size, seen, antialias, device)?;
                Box::new(move |x| clip.image_features(&input.forward(&as_rgb(x)?)?))
            }
        })
    }
}

fn read_words(goal: &GoalPlan, device: &Device) -> Result<Words> {
    let patch = match GoalNetwork::of(&goal.network) {
        GoalNetwork::Clip(patch) => patch,
        GoalNetwork::Digits => return digits(goal, device),
        GoalNetwork::Emoji => return emoji(goal, device),
    };
    let (files, tokenizer) = parts(goal)?;
    let clip = read_clip(patch, &files, device)?;
    let texts = [goal.from.as_str(), goal.to.as_str()];
    let wrong = |e: sdft_eval::EvalError| usage(format!("goal: {e}"));
    let [from, to] = texts_through_templates(&clip, patch, &tokenizer, texts).map_err(wrong)?;
    let plain = |text| text_as_it_stands(&clip, patch, &tokenizer, text);
    let cosine = cosine_of_texts(&plain(texts[0])?, &plain(texts[1])?);
    let direction = TextDirection::between(&tensor(&from, device)?, &tensor(&to, device)?)
        .with_context(|| format!("goal: from {:?} to {:?}", goal.from, goal.to))?;
    Ok(Words {
        eye: Opened::Clip(clip, patch),
        direction,
        cosine,
    })
}

fn tensor(features: &Features, device: &Device) -> Result<Tensor> {
    let shape = (features.n(), features.dim());
    Ok(Tensor::from_slice(features.as_slice(), shape, device)?)
}

/// Classes instead of texts: each is the mean of its digits.
fn digits(goal: &GoalPlan, device: &Device) -> Result<Words> {
    let judge = load_judge()?;
    let class = |text: &str| {
        text.parse()
            .map_err(|_| usage(format!("{text}: expected a digit")))
    };
    let place = |text: &str| -> Result<Tensor> {
        Ok(class_features(&judge, class(text)?, DIGITS_OF_A_CLASS)?)
    };
    let eye = training_judge(false, device)?.0;
    between(&place(&goal.from)?, &place(&goal.to)?, eye, device)
}

/// Values of an attribute instead of texts: each is the mean of the Fluent portraits that have it and agree otherwise.
fn emoji(goal: &GoalPlan, device: &Device) -> Result<Words> {
    let judge = load_emoji_judge()?;
    let values = |key: &str, text: &str| -> Result<EmojiValues> {
        text.parse()
            .map_err(|error| usage(format!("goal.{key}: {error}")))
    };
    let (from, to) = (values("from", &goal.from)?, values("to", &goal.to)?);
    let [from, to] =
        features_of_values(&judge, &from, &to).map_err(|error| usage(format!("goal: {error}")))?;
    between(&from, &to, training_judge(true, device)?.0, device)
}

/// The direction between paired features of a judge, `[N, F]` each, for its copy `eye` on `device`.
fn between(from: &Tensor, to: &Tensor, eye: AttributeJudge, device: &Device) -> Result<Words> {
    let mean = |x: &Tensor| x.mean(0)?.to_vec1::<f32>();
    Ok(Words {
        cosine: cosine_of_texts(&mean(from)?, &mean(to)?),
        direction: TextDirection::between(&from.to_device(device)?, &to.to_device(device)?)?,
        eye: Opened::Judge(eye),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_imaging::ImageSpec;

    #[test]
    fn a_run_takes_no_other_files_than_it_began_with() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let given = |files: &[&String]| {
            let all = files.iter().map(|file| format!("clip-b16={file}"));
            Weights::parse(&all.collect::<Vec<_>>()).unwrap()
        };
        let (weights, tokenizer) = (write("w.safetensors", "w"), write("t.json", "t"));
        let mut goal = GoalPlan::default();
        locate_goal(&mut goal, &given(&[&weights, &tokenizer])).unwrap();
        assert_eq!(goal.weights, [weights.clone(), tokenizer.clone()]);
        let none = Weights::parse(&[]).unwrap();
        locate_goal(&mut goal, &none).unwrap();

        // Moved files, given by their new paths.
        let moved = write("moved.safetensors", "w");
        std::fs::remove_file(&weights).unwrap();
        assert!(locate_goal(&mut goal.clone(), &none).is_err());
        locate_goal(&mut goal, &given(&[&moved, &tokenizer])).unwrap();
        assert_eq!(goal.weights[0], moved);
        // Another tokenizer gives another direction.
        write("t.json", "u");
        let error = locate_goal(&mut goal, &none).unwrap_err().to_string();
        assert!(
            error.contains("other files than the run began with"),
            "{error}"
        );
        assert!(goal.identity_weights.is_empty());
    }

    #[test]
    fn a_run_takes_no_other_embedded_judge_than_it_began_with() {
        let none = Weights::parse(&[]).unwrap();
        let hash_of = |network: &str| {
            let mut goal = GoalPlan {
                network: network.into(),
                ..GoalPlan::default()
            };
            locate_goal(&mut goal, &none).unwrap();
            locate_goal(&mut goal, &none).unwrap();
            goal.weights_sha256
        };
        let hashes = ["digits", "emoji"].map(hash_of);
        assert!(hashes[0] != hashes[1] && hashes.iter().all(|hash| hash.len() == 64));
        let mut goal = GoalPlan {
            network: "emoji".into(),
            weights_sha256: hashes[0].clone(),
            ..GoalPlan::default()
        };
        let error = locate_goal(&mut goal, &none).unwrap_err().to_string();
        assert!(error.contains("another judge"), "{error}");
    }

    #[test]
    fn only_networks_that_are_used_are_needed() {
        let mut goal = GoalPlan::default();
        let lpips = Network::Lpips(LpipsNet::Alex);
        assert_eq!(goal_networks(&goal, false), [Network::Clip(16)]);
        goal.identity = 1.0;
        goal.network = "clip-b32".into();
        let all = [Network::Clip(32), Network::Identity, lpips];
        assert_eq!(goal_networks(&goal, true), all);
        for judged in ["digits", "emoji"] {
            goal.network = judged.into();
            assert_eq!(goal_networks(&goal, true), []);
        }
    }

    #[test]
    fn the_goals_of_emoji_are_values_of_an_attribute() {
        let space = Space::images(ImageSpec::rgb8(32, 32));
        for (from, to, wrong) in [
            ("gender=man", "gender=woman", ""),
            ("tone=light,medium-light", "tone=medium-dark,dark", ""),
            ("glasses=no", "glasses=yes", ""),
            ("man", "gender=woman", "goal.from: expected ATTRIBUTE=VALUE"),
            (
                "gender=man",
                "gender=wizard",
                "none, man, woman, person, mixed",
            ),
            ("gender=man", "tone=dark", "goal: expected different values"),
        ] {
            let goal = GoalPlan {
                network: "emoji".into(),
                from: from.into(),
                to: to.into(),
                ..GoalPlan::default()
            };
            match open_goal(&goal, &space, &Device::Cpu) {
                Ok(_) => assert_eq!(wrong, "", "{from} {to}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!wrong.is_empty() && error.contains(wrong), "{error}");
                }
            }
        }
    }
}
