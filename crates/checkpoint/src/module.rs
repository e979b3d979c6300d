//! Networks that were pickled as objects: their tensors by name, and the arguments of their constructors.

// PyTorch's `Module` keeps its parameters, buffers and modules in dictionaries of its state. NVIDIA's persistence class pickles a module as
// a call with one dictionary: the name of the class, its source (never read), and that state, which has the arguments, too.

use crate::error::Problem;
use crate::inventory::{Entry, join};
use crate::pickle::{Node, Pickle, Value};
use crate::short::short;
use serde_json::{Map, Value as Json, json};
use std::collections::HashSet;

/// The key in a [`Summary`](crate::Summary)'s metadata under which the constructor of a pickled network is, as JSON:
/// `{"class_name": "EDMPrecond", "args": [], "kwargs": {..}, "modules": {"model": {"class_name": "SongUNet", ..}}}`.
///
/// `modules` has the modules of the network itself, without those inside them. Infinite numbers are the texts `"inf"`, `"-inf"` and `"nan"`,
/// tuples are lists, and an object that is not created is `{"object": "NAME OF ITS CLASS"}`.
pub const CONSTRUCTOR_KEY: &str = "constructor";

/// The function that NVIDIA's pickles call.
const PERSISTENT: &str = "torch_utils.persistence._reconstruct_persistent_obj";
/// The deepest level of modules, and of arguments.
const DEEPEST: usize = 32;

type Known<T> = std::result::Result<T, Problem>;
type State<'a> = &'a [(Value, Value)];

/// The class of an object of NVIDIA's persistence class, and its state.
fn persistent<'a>(pickle: &'a Pickle, value: &Value) -> Option<(&'a str, State<'a>)> {
    let Some(Node::Object(object)) = pickle.node(value) else {
        return None;
    };
    let meta = pickle.dict(pickle.items(&object.arguments)?.first()?)?;
    let is_class = matches!(field(meta, "type"), Some(Value::Text(kind)) if &**kind == "class");
    match field(meta, "class_name") {
        Some(Value::Text(name)) if is_class && &*object.class == PERSISTENT => {
            Some((name, pickle.dict(field(meta, "state")?)?))
        }
        _ => None,
    }
}

/// The state of a PyTorch module, pickled in either way.
fn state<'a>(pickle: &'a Pickle, value: &Value) -> Option<State<'a>> {
    let state = match persistent(pickle, value) {
        Some((_, state)) => state,
        None => match pickle.node(value)? {
            Node::Object(object) => pickle.dict(&object.state)?,
            _ => return None,
        },
    };
    let has = |name: &str| field(state, name).is_some_and(|value| pickle.dict(value).is_some());
    (has("_parameters") && has("_modules")).then_some(state)
}

/// The last entry of this name, which is the one that Python would keep.
fn field<'a>(entries: State<'a>, name: &str) -> Option<&'a Value> {
    let named = |(key, _): &&(Value, Value)| matches!(key, Value::Text(key) if &**key == name);
    entries.iter().rfind(named).map(|(_, value)| value)
}

/// The entries of a dictionary in a module's state whose keys are text.
fn named<'a>(
    pickle: &'a Pickle,
    state: State<'a>,
    name: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let entries = field(state, name).and_then(|value| pickle.dict(value));
    let entries = entries.unwrap_or_default().iter();
    entries.filter_map(|(key, value)| match key {
        Value::Text(key) => Some((&**key, value)),
        _ => None,
    })
}

/// Parameters and persistent buffers of a module by name, as its `state_dict()` has them; none if the value is not a module.
///
/// # Errors
/// The modules are nested too deeply, or contain each other so often that there are far more than the file could hold.
pub(crate) fn tensors(pickle: &Pickle, value: &Value, file_len: u64) -> Known<Option<Vec<Entry>>> {
    let Some(state) = state(pickle, value) else {
        return Ok(None);
    };
    let len = usize::try_from(file_len).unwrap_or(usize::MAX);
    let mut walk = Walk {
        pickle,
        found: Vec::new(),
        steps: len.saturating_mul(4).saturating_add(1 << 20),
        bytes: len.saturating_mul(2).saturating_add(8 << 20),
    };
    walk.visit(state, "", 0)?;
    Ok(Some(walk.found))
}

struct Walk<'a> {
    pickle: &'a Pickle,
    found: Vec<Entry>,
    /// Entries that may still be read, and bytes of names that may still be made.
    steps: usize,
    bytes: usize,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, state: State<'a>, prefix: &str, depth: usize) -> Known<()> {
        let pickle = self.pickle;
        if depth > DEEPEST {
            return Err("its modules are nested too deeply".into());
        }
        let skipped = field(state, "_non_persistent_buffers_set");
        let skipped = skipped.and_then(|value| pickle.items(value));
        let skipped = skipped.unwrap_or_default();
        self.take_steps(state.len() + skipped.len())?;
        let skipped: HashSet<&str> = skipped
            .iter()
            .filter_map(|value| match value {
                Value::Text(name) => Some(&**name),
                _ => None,
            })
            .collect();
        for (kind, is_buffer) in [("_parameters", false), ("_buffers", true)] {
            for (name, value) in named(pickle, state, kind) {
                self.take_steps(1)?;
                let is_tensor = matches!(pickle.node(value), Some(Node::Tensor(_)));
                let Value::Node(tensor) = value else { continue };
                if is_tensor && !(is_buffer && skipped.contains(name)) {
                    let name = self.name(prefix, name)?.into();
                    self.found.push(Entry {
                        name,
                        tensor: *tensor,
                    });
                }
            }
        }
        for (name, value) in named(pickle, state, "_modules") {
            self.take_steps(1)?;
            if let Some(inner) = crate::module::state(pickle, value) {
                let name = self.name(prefix, name)?;
                self.visit(inner, &name, depth + 1)?;
            }
        }
        Ok(())
    }

    fn take_steps(&mut self, n: usize) -> Known<()> {
        let left = self.steps.checked_sub(n);
        self.steps = left.ok_or("its modules contain each other too often")?;
        Ok(())
    }

    fn name(&mut self, prefix: &str, name: &str) -> Known<String> {
        let left = self
            .bytes
            .checked_sub(prefix.len().saturating_add(name.len()) + 128);
        self.bytes = left.ok_or("the names of its tensors take more than the file")?;
        Ok(join(prefix, name))
    }
}

/// The constructor of a network as JSON, as [`CONSTRUCTOR_KEY`] describes it; none unless NVIDIA's persistence class pickled it.
///
/// # Errors
/// The arguments are larger than those of any network.
pub(crate) fn constructor(pickle: &Pickle, value: &Value) -> Known<Option<String>> {
    let Some((class, state)) = persistent(pickle, value) else {
        return Ok(None);
    };
    let mut arguments = Arguments {
        pickle,
        room: 1 << 20,
    };
    let mut modules = Map::new();
    for (name, value) in named(pickle, state, "_modules") {
        if let Some((class, state)) = persistent(pickle, value) {
            modules.insert(name.to_owned(), arguments.of(class, state)?);
        }
    }
    let mut all = arguments.of(class, state)?;
    all["modules"] = Json::Object(modules);
    Ok(Some(all.to_string()))
}

struct Arguments<'a> {
    pickle: &'a Pickle,
    /// Bytes that may still be made.
    room: usize,
}

impl Arguments<'_> {
    fn of(&mut self, class: &str, state: State<'_>) -> Known<Json> {
        self.take(class.len() + 256)?;
        let mut read = |name: &str, default: Json| match field(state, name) {
            Some(value) => self.json(value, 0),
            None => Ok(default),
        };
        let (args, kwargs) = (
            read("_init_args", json!([]))?,
            read("_init_kwargs", json!({}))?,
        );
        Ok(json!({"class_name": class, "args": args, "kwargs": kwargs}))
    }

    fn take(&mut self, n: usize) -> Known<()> {
        let left = self.room.checked_sub(n);
        self.room = left.ok_or("the arguments of its constructor take more than 1 MB")?;
        Ok(())
    }

    fn json(&mut self, value: &Value, depth: usize) -> Known<Json> {
        self.take(64)?;
        if depth > DEEPEST {
            return Err("the arguments of its constructor are nested too deeply".into());
        }
        let object = |name: &str| json!({"object": short(name)});
        Ok(match value {
            Value::None => Json::Null,
            Value::Bool(value) => json!(value),
            Value::Int(value) => json!(value),
            Value::Float(value) if value.is_finite() => json!(value),
            Value::Float(value) if value.is_nan() => json!("nan"),
            Value::Float(value) => json!(if *value > 0.0 { "inf" } else { "-inf" }),
            Value::Text(text) => {
                self.take(text.len())?;
                json!(&**text)
            }
            Value::Global(name) => object(name),
            Value::Bytes { .. } => object("bytes"),
            Value::Unused => object("int"),
            Value::Node(_) => match self.pickle.node(value) {
                Some(Node::List(items) | Node::Tuple(items)) => {
                    let items = items.iter().map(|item| self.json(item, depth + 1));
                    Json::Array(items.collect::<Known<_>>()?)
                }
                Some(Node::Dict(entries)) => {
                    let mut out = Map::new();
                    for (key, value) in entries {
                        let Value::Text(key) = key else {
                            return Err(
                                "an argument of its constructor has keys that are not text".into(),
                            );
                        };
                        self.take(key.len())?;
                        out.insert(key.to_string(), self.json(value, depth + 1)?);
                    }
                    Json::Object(out)
                }
                Some(Node::Object(found)) => object(&found.class),
                Some(Node::Tensor(_)) => object("torch.Tensor"),
                Some(Node::Storage(_)) => object("torch.Storage"),
                None => Json::Null,
            },
        })
    }
}
