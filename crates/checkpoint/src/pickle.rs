//! A reader of pickles that executes nothing: it rebuilds containers and tensors and keeps everything else as an opaque name.

use crate::dtype::Dtype;
use crate::error::Result;
use crate::input::Input;
use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

pub(crate) use crate::value::{Node, Pickle, Storage, TensorView, Value};

/// More operations than any real checkpoint has.
const MOST_OPERATIONS: u64 = 50_000_000;

struct Machine<'a, 'b> {
    input: &'a mut Input<'b>,
    nodes: Vec<Node>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    opaque: Vec<Rc<str>>,
}

/// Reads one pickle from the current position.
pub(crate) fn read(input: &mut Input<'_>) -> Result<Pickle> {
    let mut machine = Machine {
        input,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        opaque: Vec::new(),
    };
    for _ in 0..MOST_OPERATIONS {
        if machine.step()? {
            let root = machine.pop()?;
            return Ok(Pickle {
                nodes: machine.nodes,
                root,
                opaque: machine.opaque,
            });
        }
    }
    Err(machine.input.bad("the pickle has no end"))
}

impl Machine<'_, '_> {
    fn bad<T>(&self, problem: &str) -> Result<T> {
        Err(self.input.bad(format!("damaged pickle: {problem}")))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.input.fill(&mut out)?;
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// `len` bytes; the length comes from the file, so it is checked against what is left of it.
    fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let position = self.input.position()?;
        if len > self.input.len.saturating_sub(position) {
            return self.bad("a string is longer than the file");
        }
        let mut out = Vec::new();
        let got = self.input.by_ref().take(len).read_to_end(&mut out);
        match got {
            Ok(n) if n as u64 == len => Ok(out),
            _ => self.bad("a string is cut off"),
        }
    }

    fn text(&mut self, len: u64) -> Result<Value> {
        let bytes = self.bytes(len)?;
        Ok(Value::Text(String::from_utf8_lossy(&bytes).into()))
    }

    fn line(&mut self) -> Result<String> {
        let mut out = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(String::from_utf8_lossy(&out).into_owned()),
                byte if out.len() < 4096 => out.push(byte),
                _ => return self.bad("a line without end"),
            }
        }
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn add(&mut self, node: Node) -> Value {
        self.nodes.push(node);
        Value::Node(self.nodes.len() - 1)
    }

    fn push_node(&mut self, node: Node) {
        let value = self.add(node);
        self.push(value);
    }

    fn pop(&mut self) -> Result<Value> {
        // Values below the last mark belong to an unfinished container.
        if self
            .marks
            .last()
            .is_some_and(|mark| self.stack.len() <= *mark)
        {
            return self.bad("the stack is empty above a mark");
        }
        match self.stack.pop() {
            Some(value) => Ok(value),
            None => self.bad("the stack is empty"),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => self.bad("there is no mark"),
        }
    }

    fn opaque(&mut self, name: Rc<str>) -> Value {
        if !self.opaque.contains(&name) && self.opaque.len() < 64 {
            self.opaque.push(name.clone());
        }
        self.add(Node::Opaque)
    }

    fn get(&mut self, key: u64) -> Result<()> {
        match self.memo.get(&key) {
            Some(value) => {
                let value = value.clone();
                self.push(value);
                Ok(())
            }
            None => self.bad("a reference to nothing"),
        }
    }

    fn put(&mut self, key: u64) -> Result<()> {
        match self.stack.last() {
            Some(value) => {
                self.memo.insert(key, value.clone());
                Ok(())
            }
            None => self.bad("nothing to remember"),
        }
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<()> {
        let target = match self.stack.last() {
            Some(Value::Node(i)) => self.nodes.get_mut(*i),
            _ => None,
        };
        let mut items = items.into_iter();
        match target {
            Some(Node::Dict(entries)) => {
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    entries.push((key, value));
                }
                Ok(())
            }
            // Items of something unknown are as unknown as it is.
            Some(Node::Opaque) => Ok(()),
            _ => self.bad("items for something that is no dictionary"),
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        let target = match self.stack.last() {
            Some(Value::Node(i)) => self.nodes.get_mut(*i),
            _ => None,
        };
        match target {
            Some(Node::List(list)) => {
                list.extend(items);
                Ok(())
            }
            Some(Node::Opaque) => Ok(()),
            _ => self.bad("elements for something that is no list"),
        }
    }

    /// One operation; true at the end.
    fn step(&mut self) -> Result<bool> {
        match self.byte()? {
            b'.' => return Ok(true),
            0x80 => {
                let version = self.byte()?;
                if version > 5 {
                    return self.bad(&format!("protocol {version}"));
                }
            }
            0x95 => drop(self.array::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => match self.stack.last().cloned() {
                Some(value) => self.push(value),
                None => return self.bad("nothing to repeat"),
            },
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => {
                let v = self.byte()?;
                self.push(Value::Int(v.into()));
            }
            b'M' => {
                let v = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(v.into()));
            }
            b'J' => {
                let v = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(v.into()));
            }
            0x8a => {
                let n = self.byte()?;
                let bytes = self.bytes(n.into())?;
                self.push(long(&bytes));
            }
            0x8b => {
                let n = u32::from_le_bytes(self.array()?);
                let bytes = self.bytes(n.into())?;
                self.push(long(&bytes));
            }
            b'I' | b'L' => {
                let line = self.line()?;
                self.push(
                    line.trim_end_matches('L')
                        .parse()
                        .map_or(Value::Float, Value::Int),
                );
            }
            b'F' => {
                self.line()?;
                self.push(Value::Float);
            }
            b'G' => {
                self.array::<8>()?;
                self.push(Value::Float);
            }
            b'X' | b'T' | b'B' => {
                let n = u32::from_le_bytes(self.array()?);
                let text = self.text(n.into())?;
                self.push(text);
            }
            b'U' | b'C' | 0x8c => {
                let n = self.byte()?;
                let text = self.text(n.into())?;
                self.push(text);
            }
            0x8d | 0x8e | 0x96 => {
                let n = u64::from_le_bytes(self.array()?);
                let text = self.text(n)?;
                self.push(text);
            }
            b'V' | b'S' => {
                let line = self.line()?;
                self.push(Value::Text(line.trim_matches(['\'', '"']).into()));
            }
            b'}' | 0x8f => self.push_node(Node::Dict(Vec::new())),
            b']' => self.push_node(Node::List(Vec::new())),
            b')' => self.push_node(Node::Tuple(Vec::new())),
            code @ 0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=code {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push_node(Node::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Tuple(items));
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Dict(Vec::new()));
                self.set_items(items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(items)?;
            }
            0x90 => drop(self.pop_to_mark()?),
            0x91 => {
                self.pop_to_mark()?;
                let value = self.opaque("frozenset".into());
                self.push(value);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module}.{name}").into()));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module, name) {
                    (Value::Text(module), Value::Text(name)) => {
                        self.push(Value::Global(format!("{module}.{name}").into()))
                    }
                    _ => return self.bad("a name that is no text"),
                }
            }
            b'q' => {
                let key = self.byte()?;
                self.put(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.put(key.into())?;
            }
            b'p' => {
                let line = self.line()?;
                self.put(line.parse().unwrap_or(u64::MAX))?;
            }
            0x94 => self.put(self.memo.len() as u64)?,
            b'h' => {
                let key = self.byte()?;
                self.get(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.get(key.into())?;
            }
            b'g' => {
                let line = self.line()?;
                self.get(line.parse().unwrap_or(u64::MAX))?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(&id)?;
                self.push(storage);
            }
            b'P' => return self.bad("a persistent identifier in text"),
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let value = self.call(&function, &arguments)?;
                self.push(value);
            }
            0x81 => {
                let (_, class) = (self.pop()?, self.pop()?);
                let value = self.opaque(name_of(&class));
                self.push(value);
            }
            0x92 => {
                let (_, _, class) = (self.pop()?, self.pop()?, self.pop()?);
                let value = self.opaque(name_of(&class));
                self.push(value);
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                let value = self.opaque(items.first().map_or_else(|| "object".into(), name_of));
                self.push(value);
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.pop_to_mark()?;
                let value = self.opaque(format!("{module}.{name}").into());
                self.push(value);
            }
            // State for the object below: attributes of a dictionary, or the inside of something opaque.
            b'b' => drop(self.pop()?),
            code => return self.bad(&format!("unknown operation {code:#04x}")),
        }
        Ok(false)
    }

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
    fn storage(&mut self, id: &Value) -> Result<Value> {
        let found = match self.items(id) {
            Some(
                [
                    Value::Text(kind),
                    Value::Global(class),
                    Value::Text(key),
                    _,
                    Value::Int(numel),
                    view @ ..,
                ],
            ) if &**kind == "storage" => {
                let first = match view.first() {
                    None | Some(Value::None) => Some(0),
                    Some(view) => match self.items(view) {
                        Some([_, Value::Int(first), _]) => u64::try_from(*first).ok(),
                        _ => None,
                    },
                };
                match (Dtype::of_storage(class), u64::try_from(*numel), first) {
                    (Some(dtype), Ok(numel), Some(first)) => Ok(Storage {
                        key: key.to_string(),
                        dtype,
                        numel,
                        first,
                    }),
                    (None, ..) => Err(format!("a storage of the unknown type {class}")),
                    (_, Err(_), _) => Err(format!("a storage of {numel} elements")),
                    (.., None) => Err("a view of a storage that is not (key, first, size)".into()),
                }
            }
            _ => Err("a persistent identifier that is no storage".to_owned()),
        };
        match found {
            Ok(storage) => Ok(self.add(Node::Storage(Rc::new(storage)))),
            Err(problem) => self.bad(&problem),
        }
    }

    /// The few calls whose result is known; everything else stays opaque and is never made.
    fn call(&mut self, function: &Value, arguments: &Value) -> Result<Value> {
        let Value::Global(name) = function else {
            return Ok(self.opaque(name_of(function)));
        };
        let items = self.items(arguments).unwrap_or(&[]).to_vec();
        match &**name {
            "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor" => {
                self.tensor(&items)
            }
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                match items.first() {
                    Some(value) => Ok(value.clone()),
                    None => self.bad("a parameter without data"),
                }
            }
            "torch._tensor._rebuild_from_type_v2" => match items.as_slice() {
                [function, _, arguments, ..] if !matches!(function, Value::Global(n) if n.contains("_rebuild_from_type")) => {
                    self.call(function, arguments)
                }
                _ => self.bad("a tensor of a class without arguments"),
            },
            "collections.OrderedDict" | "builtins.dict" | "collections.defaultdict" => {
                let mut entries = Vec::new();
                for pair in items
                    .last()
                    .and_then(|list| self.items(list))
                    .unwrap_or(&[])
                {
                    if let Some([key, value]) = self.items(pair) {
                        entries.push((key.clone(), value.clone()));
                    }
                }
                Ok(self.add(Node::Dict(entries)))
            }
            "torch.Size" => Ok(items.first().cloned().unwrap_or(Value::None)),
            _ => Ok(self.opaque(name.clone())),
        }
    }

    /// `(storage, offset, size, stride, ..)`.
    fn tensor(&mut self, items: &[Value]) -> Result<Value> {
        let numbers = |value: &Value| -> Option<Vec<u64>> {
            self.items(value)?
                .iter()
                .map(|v| {
                    if let Value::Int(i) = v {
                        u64::try_from(*i).ok()
                    } else {
                        None
                    }
                })
                .collect()
        };
        let view = match items {
            [Value::Node(storage), Value::Int(offset), shape, strides, ..] => {
                match self.nodes.get(*storage) {
                    Some(Node::Storage(storage)) => {
                        let offset = u64::try_from(*offset).ok();
                        let offset = offset.and_then(|o| o.checked_add(storage.first));
                        match (offset, numbers(shape), numbers(strides)) {
                            (Some(offset), Some(shape), Some(strides))
                                if shape.len() == strides.len() && shape.len() <= 16 =>
                            {
                                let shape = shape
                                    .into_iter()
                                    .map(|n| usize::try_from(n).ok())
                                    .collect::<Option<Vec<_>>>();
                                shape.map(|shape| TensorView {
                                    storage: storage.clone(),
                                    offset,
                                    shape,
                                    strides,
                                })
                            }
                            _ => None,
                        }
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        match view {
            Some(view) => Ok(self.add(Node::Tensor(view))),
            None => self.bad("a tensor that cannot be rebuilt"),
        }
    }
}

fn name_of(value: &Value) -> Rc<str> {
    match value {
        Value::Global(name) => name.clone(),
        _ => "object".into(),
    }
}

/// Little-endian two's complement of up to eight bytes; longer numbers count for nothing here.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Float;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}
