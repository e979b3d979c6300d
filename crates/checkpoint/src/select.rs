//! Which of the dictionaries in a pickle are the weights.

use crate::pickle::{Node, Pickle, TensorView, Value};

/// Which weights to take where a file holds both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// The moving average, which is what is sampled.
    #[default]
    Ema,
    /// The weights as trained.
    Raw,
}

/// Named tensors found under a dotted path; empty for the top of the file.
pub(crate) struct Candidate {
    pub(crate) path: String,
    pub(crate) tensors: Vec<(String, TensorView)>,
}

/// How deep weights are looked for.
const DEEPEST: usize = 4;

/// Every dictionary of tensors that is reached by names alone, the top first.
pub(crate) fn candidates(pickle: &Pickle) -> Vec<Candidate> {
    let mut out = Vec::new();
    let mut seen = vec![false; pickle.nodes.len()];
    visit(pickle, &pickle.root, String::new(), 0, &mut seen, &mut out);
    out
}

fn visit(
    pickle: &Pickle,
    value: &Value,
    path: String,
    depth: usize,
    seen: &mut [bool],
    out: &mut Vec<Candidate>,
) {
    let (Value::Node(i), Some(Node::Dict(entries))) = (value, pickle.node(value)) else {
        return;
    };
    // A dictionary is looked at once, so shared or circular ones cost nothing.
    if depth > DEEPEST || std::mem::replace(&mut seen[*i], true) {
        return;
    }
    let mut tensors: Vec<(String, TensorView)> = Vec::new();
    for (key, value) in entries {
        if let (Value::Text(key), Some(Node::Tensor(view))) = (key, pickle.node(value)) {
            tensors.push((key.to_string(), view.clone()));
        }
    }
    if !tensors.is_empty() {
        out.push(Candidate {
            path: path.clone(),
            tensors,
        });
    }
    for (key, value) in entries {
        if let Value::Text(key) = key {
            let path = if path.is_empty() {
                key.to_string()
            } else {
                format!("{path}.{key}")
            };
            visit(pickle, value, path, depth + 1, seen, out);
        }
    }
}

/// The index of the candidate to take: the top if no nested one has more tensors, else by preference.
pub(crate) fn choose(candidates: &[Candidate], prefer: Prefer) -> Option<usize> {
    // A loss or a random state that is kept as a tensor beside the weights does not make the top the weights.
    let most = candidates.iter().map(|c| c.tensors.len()).max();
    if candidates
        .first()
        .is_some_and(|c| c.path.is_empty() && Some(c.tensors.len()) == most)
    {
        return Some(0);
    }
    // Whole words, so that `semantic_encoder` is no moving average.
    let is_ema = |c: &Candidate| {
        let path = c.path.to_lowercase();
        path.split(['.', '_', '-']).any(|word| word == "ema")
    };
    let nested = |c: &Candidate| !c.path.is_empty();
    let wanted = |c: &Candidate| nested(c) && is_ema(c) == (prefer == Prefer::Ema);
    // A moving average of an optimiser, or statistics, are smaller than the weights.
    let largest = |among: &dyn Fn(&Candidate) -> bool| {
        let indices = (0..candidates.len()).filter(|&i| among(&candidates[i]));
        indices.max_by_key(|&i| (candidates[i].tensors.len(), std::cmp::Reverse(i)))
    };
    largest(&wanted).or_else(|| largest(&nested))
}
