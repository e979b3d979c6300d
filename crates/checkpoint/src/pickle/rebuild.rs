//! Storages, tensors and the few calls whose result is known.

use super::{Machine, VALUE, name_of};
use crate::dtype::Dtype;
use crate::error::{Problem, Result};
use crate::short::short;
use crate::value::{Node, Storage, TensorView, Value};
use std::rc::Rc;

/// Storages are numbered.
const MOST_KEY: usize = 256;

/// The result of a call.
enum Rebuilt {
    Dict(Vec<(Value, Value)>),
    Tensor(TensorView),
    Value(Value),
    Opaque(Rc<str>),
}

type Known<T> = std::result::Result<T, Problem>;

impl Machine<'_, '_> {
    fn items(&self, value: &Value) -> Option<&[Value]> {
        match value {
            Value::Node(i) => match self.nodes.get(*i)? {
                Node::Tuple(items) | Node::List(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// `('storage', class, key, location, numel)`, in legacy files with `None` or `(key, first, numel)` of a view behind.
    pub(super) fn storage(&mut self, id: &Value) -> Result<Value> {
        match self.find_storage(id) {
            Ok(storage) => {
                self.hold(size_of::<Storage>() + 32)?;
                Ok(self.add(Node::Storage(Rc::new(storage))))
            }
            Err(Problem(problem)) => self.bad(&problem),
        }
    }

    fn find_storage(&self, id: &Value) -> Known<Storage> {
        let Some(
            [
                Value::Text(kind),
                Value::Global(class),
                Value::Text(key),
                _,
                Value::Int(numel),
                view @ ..,
            ],
        ) = self.items(id)
        else {
            return Err("a persistent identifier that is not a storage".into());
        };
        if &**kind != "storage" {
            return Err("a persistent identifier that is not a storage".into());
        }
        if key.len() > MOST_KEY {
            return Err(Problem(format!("a storage called {}", short(key))));
        }
        let first = match view.first() {
            None | Some(Value::None) => Some(0),
            Some(view) => match self.items(view) {
                Some([_, Value::Int(first), _]) => u64::try_from(*first).ok(),
                _ => None,
            },
        };
        Ok(Storage {
            key: key.clone(),
            dtype: Dtype::of_storage(class),
            numel: u64::try_from(*numel)
                .map_err(|_| Problem(format!("a storage of {numel} elements")))?,
            first: first.ok_or("a view of a storage that is not (key, first, size)")?,
        })
    }

    /// The few calls whose result is known; everything else stays opaque and is never created.
    pub(super) fn call(&mut self, function: &Value, arguments: &Value) -> Result<Value> {
        if let (Value::Global(name), Some([Value::Bytes { start, len }])) =
            (function, self.items(arguments))
            && self.inside.is_some()
            && &**name == "torch.storage._load_from_bytes"
        {
            return self.storage_in_bytes(*start, *len);
        }
        let result = match function {
            Value::Global(name) => self.make(name, arguments),
            _ => Ok(Rebuilt::Opaque(name_of(function))),
        };
        match result {
            Ok(Rebuilt::Dict(entries)) => {
                self.hold(2 * VALUE * entries.len())?;
                Ok(self.add(Node::Dict(entries)))
            }
            Ok(Rebuilt::Tensor(view)) => {
                self.hold(size_of::<TensorView>() + 32 + 16 * view.shape.len())?;
                Ok(self.add(Node::Tensor(Rc::new(view))))
            }
            Ok(Rebuilt::Value(value)) => Ok(value),
            Ok(Rebuilt::Opaque(name)) => self.object(name, arguments.clone()),
            Err(Problem(problem)) => self.bad(&problem),
        }
    }

    /// An instance of a class. Only the dictionary whose items are also attributes is created.
    pub(super) fn new_object(&mut self, class: &Value, arguments: Value) -> Result<Value> {
        match name_of(class) {
            name if &*name == "dnnlib.util.EasyDict" => Ok(self.add(Node::Dict(Vec::new()))),
            name => self.object(name, arguments),
        }
    }

    /// A storage that was saved as a file of its own, whose bytes are in the pickle. Each is read once, however often it is named.
    fn storage_in_bytes(&mut self, start: u64, len: u64) -> Result<Value> {
        let known = self.inside.as_ref().and_then(|known| known.get(&start));
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let back = self.input.position();
        let (storage, entry) = crate::torch::storage_in(self.input, start, len)?;
        self.input.seek(back)?;
        let key: Rc<str> = format!("at {start}").into();
        self.hold(size_of::<Storage>() + 256)?;
        self.storages.insert(key.to_string(), entry);
        let value = self.add(Node::Storage(Rc::new(Storage { key, ..storage })));
        if let Some(known) = &mut self.inside {
            known.insert(start, value.clone());
        }
        Ok(value)
    }

    fn make(&self, name: &Rc<str>, arguments: &Value) -> Known<Rebuilt> {
        let items = self.items(arguments).unwrap_or_default();
        match &**name {
            "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_tensor"
            | "torch._utils._rebuild_tensor_v3" => self.tensor(items).map(Rebuilt::Tensor),
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                let data = items.first().ok_or("a parameter without data")?;
                Ok(Rebuilt::Value(data.clone()))
            }
            "torch._tensor._rebuild_from_type_v2" => match items {
                [Value::Global(inner), _, arguments, ..]
                    if !inner.contains("_rebuild_from_type") =>
                {
                    self.make(inner, arguments)
                }
                _ => Err("a tensor of a class without arguments".into()),
            },
            "collections.OrderedDict" | "builtins.dict" | "collections.defaultdict" => {
                let pairs = items.last().and_then(|list| self.items(list));
                let pairs = pairs.unwrap_or_default();
                // The list may be given to any number of calls, each of which copies it.
                let room = self.room() / (2 * VALUE);
                if pairs.len() > room {
                    return Err("its dictionaries take far more memory than the file".into());
                }
                // An item that is skipped would cost time on every call and no memory.
                let entry = |pair| match self.items(pair) {
                    Some([key, value]) => Ok((key.clone(), value.clone())),
                    _ => Err("a dictionary of items that are not pairs".into()),
                };
                let entries: Known<Vec<_>> = pairs.iter().map(entry).collect();
                entries.map(Rebuilt::Dict)
            }
            "builtins.set" | "__builtin__.set" | "torch.Size" => Ok(Rebuilt::Value(
                items.first().cloned().unwrap_or(Value::None),
            )),
            _ => Ok(Rebuilt::Opaque(name.clone())),
        }
    }

    /// `(storage, offset, size, stride, requires_grad, hooks)`, and behind them the type where the storage is one of bytes.
    fn tensor(&self, items: &[Value]) -> Known<TensorView> {
        let odd = || Problem::from("a tensor that cannot be rebuilt");
        let numbers = |value: &Value| -> Option<Vec<u64>> {
            let items = self.items(value).filter(|items| items.len() <= 16)?;
            let number = |value: &Value| match value {
                Value::Int(i) => u64::try_from(*i).ok(),
                _ => None,
            };
            items.iter().map(number).collect()
        };
        let [
            Value::Node(storage),
            Value::Int(offset),
            shape,
            strides,
            rest @ ..,
        ] = items
        else {
            return Err(odd());
        };
        let Some(Node::Storage(storage)) = self.nodes.get(*storage) else {
            return Err(odd());
        };
        let storage = match rest.get(2) {
            Some(Value::Global(dtype)) => {
                let dtype = Dtype::of_torch(dtype);
                Rc::new(Storage {
                    key: storage.key.clone(),
                    dtype,
                    numel: storage.numel / dtype.size(),
                    first: storage.first,
                })
            }
            _ => storage.clone(),
        };
        let offset = u64::try_from(*offset).map_err(|_| odd())?;
        let (shape, strides) = (numbers(shape), numbers(strides));
        let (shape, strides) = shape.zip(strides).ok_or_else(odd)?;
        let shape: Option<Vec<usize>> = shape.into_iter().map(|n| n.try_into().ok()).collect();
        let shape = shape.ok_or_else(odd)?;
        if shape.len() != strides.len() {
            return Err(Problem(format!(
                "a tensor of {} sizes and {} strides in the storage {}",
                shape.len(),
                strides.len(),
                short(&storage.key)
            )));
        }
        Ok(TensorView {
            offset: offset.checked_add(storage.first).ok_or_else(odd)?,
            storage,
            shape,
            strides,
        })
    }
}
