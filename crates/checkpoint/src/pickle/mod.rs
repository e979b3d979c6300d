//! A reader of pickles that executes nothing: it rebuilds containers and tensors and keeps everything else as an opaque name.

use crate::error::Result;
use crate::input::Input;
use crate::zip::Entry;
use std::collections::HashMap;
use std::rc::Rc;

mod rebuild;
mod strings;

pub(crate) use crate::value::{Node, Object, Pickle, Storage, Value};

/// More operations than any real checkpoint has.
const MOST_OPERATIONS: u64 = 50_000_000;

/// Memory in bytes that the values of any pickle may take, in addition to a multiple of the file size.
const MEMORY: u64 = 24 << 20;
const MEMORY_PER_BYTE: u64 = 8;
/// The same for a pickle inside a pickle, of which there may be many.
const MEMORY_INSIDE: u64 = 64 << 10;

/// Bytes that a value takes in a vector: it may have twice the length, and half as much again while it grows.
const VALUE: usize = 3 * size_of::<Value>();
const NODE: usize = 3 * size_of::<Node>();
/// Bytes that an entry of the memo takes, likewise.
const MEMO: usize = 5 * size_of::<(u64, Value)>();

pub(super) struct Machine<'a, 'b> {
    pub(super) input: &'a mut Input<'b>,
    pub(super) nodes: Vec<Node>,
    pub(super) stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    opaque: Vec<Rc<str>>,
    /// Bytes held besides the stack and the nodes themselves.
    pub(super) held: usize,
    pub(super) most: usize,
    /// The end of the pickle, or of what it is in.
    pub(super) end: u64,
    /// Storages that are bytes inside the pickle, by position; none if the pickle may not have any.
    pub(super) inside: Option<HashMap<u64, Value>>,
    pub(super) storages: HashMap<String, Entry>,
}

/// Reads one pickle of a container from the current position.
pub(crate) fn read(input: &mut Input<'_>) -> Result<Pickle> {
    let end = input.len;
    run(input, end, memory(MEMORY, end), None)
}

/// Reads a pickle that is a file of its own: its storages are bytes inside it.
pub(crate) fn read_bare(input: &mut Input<'_>) -> Result<Pickle> {
    let end = input.len;
    run(input, end, memory(MEMORY, end), Some(HashMap::new()))
}

/// Reads a pickle that is inside another, from the current position to at most `end`.
pub(crate) fn read_inside(input: &mut Input<'_>, end: u64) -> Result<Pickle> {
    let len = end.saturating_sub(input.position());
    run(input, end, memory(MEMORY_INSIDE, len), None)
}

fn memory(least: u64, len: u64) -> usize {
    let most = least.saturating_add(len.saturating_mul(MEMORY_PER_BYTE));
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn run(
    input: &mut Input<'_>,
    end: u64,
    most: usize,
    inside: Option<HashMap<u64, Value>>,
) -> Result<Pickle> {
    let mut machine = Machine {
        input,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        opaque: Vec::new(),
        held: 0,
        most,
        end,
        inside,
        storages: HashMap::new(),
    };
    for _ in 0..MOST_OPERATIONS {
        if machine.step()? {
            let root = machine.pop()?;
            return Ok(Pickle {
                nodes: machine.nodes,
                root,
                opaque: machine.opaque,
                storages: machine.storages,
            });
        }
    }
    Err(machine.input.bad("the pickle has no end"))
}

impl Machine<'_, '_> {
    pub(super) fn bad<T>(&self, problem: &str) -> Result<T> {
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

    pub(super) fn add(&mut self, node: Node) -> Value {
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

    /// An object that is not created.
    pub(super) fn object(&mut self, class: Rc<str>, arguments: Value) -> Result<Value> {
        self.hold(size_of::<Object>() + 16)?;
        if self.opaque.len() < 64 && !self.opaque.contains(&class) {
            self.opaque.push(class.clone());
        }
        Ok(self.add(Node::Object(Box::new(Object {
            class,
            arguments,
            state: Value::None,
        }))))
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
                if self.memo.insert(key, value.clone()).is_none() {
                    self.hold(MEMO)?;
                }
                Ok(())
            }
            None => self.bad("nothing to remember"),
        }
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<()> {
        self.hold(VALUE * items.len())?;
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
            // Items of an unknown object are unknown, too.
            Some(Node::Object(_)) => Ok(()),
            _ => self.bad("items for an object that is not a dictionary"),
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        self.hold(VALUE * items.len())?;
        let target = match self.stack.last() {
            Some(Value::Node(i)) => self.nodes.get_mut(*i),
            _ => None,
        };
        match target {
            Some(Node::List(list)) => {
                list.extend(items);
                Ok(())
            }
            Some(Node::Object(_)) => Ok(()),
            _ => self.bad("elements for an object that is not a list"),
        }
    }

    /// One operation; true at the end.
    fn step(&mut self) -> Result<bool> {
        self.hold(0)?;
        if self.input.position() >= self.end {
            return Err(self.input.bad("the file is cut off"));
        }
        match self.byte()? {
            b'.' => return Ok(true),
            0x80 => {
                let version = self.byte()?;
                if version > 5 {
                    return self.bad(&format!("protocol {version}"));
                }
            }
            0x95 => drop(self.array::<8>()?),
            b'(' => {
                self.hold(3 * size_of::<usize>())?;
                self.marks.push(self.stack.len());
            }
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
                let value = self.long(n.into())?;
                self.push(value);
            }
            0x8b => {
                let n = u32::from_le_bytes(self.array()?);
                let value = self.long(n.into())?;
                self.push(value);
            }
            b'I' | b'L' => {
                let line = self.line()?;
                self.push(
                    line.trim_end_matches('L')
                        .parse()
                        .map_or(Value::Unused, Value::Int),
                );
            }
            b'F' => {
                let line = self.line()?;
                self.push(line.parse().map_or(Value::Unused, Value::Float));
            }
            b'G' => {
                let v = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(v));
            }
            b'X' | b'T' => {
                let n = u32::from_le_bytes(self.array()?);
                let text = self.text(n.into())?;
                self.push(text);
            }
            b'U' | 0x8c => {
                let n = self.byte()?;
                let text = self.text(n.into())?;
                self.push(text);
            }
            0x8d => {
                let n = u64::from_le_bytes(self.array()?);
                let text = self.text(n)?;
                self.push(text);
            }
            b'C' => {
                let n = self.byte()?;
                let bytes = self.skip(n.into())?;
                self.push(bytes);
            }
            b'B' => {
                let n = u32::from_le_bytes(self.array()?);
                let bytes = self.skip(n.into())?;
                self.push(bytes);
            }
            0x8e | 0x96 => {
                let n = u64::from_le_bytes(self.array()?);
                let bytes = self.skip(n)?;
                self.push(bytes);
            }
            b'V' | b'S' => {
                let line = self.line()?;
                self.hold(line.len() + 64)?;
                self.push(Value::Text(line.trim_matches(['\'', '"']).into()));
            }
            b'}' => self.push_node(Node::Dict(Vec::new())),
            // A set is a list here.
            b']' | 0x8f => self.push_node(Node::List(Vec::new())),
            b')' => self.push_node(Node::Tuple(Vec::new())),
            code @ 0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=code {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.hold(VALUE * items.len())?;
                self.push_node(Node::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.hold(VALUE * items.len())?;
                self.push_node(Node::Tuple(items));
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.hold(VALUE * items.len())?;
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
            b'e' | 0x90 => {
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
            0x91 => {
                self.pop_to_mark()?;
                let value = self.object("frozenset".into(), Value::None)?;
                self.push(value);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = self.global(&module, &name)?;
                self.push(global);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module, name) {
                    (Value::Text(module), Value::Text(name)) => {
                        let global = self.global(&module, &name)?;
                        self.push(global);
                    }
                    _ => return self.bad("a name that is not text"),
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
                let (arguments, class) = (self.pop()?, self.pop()?);
                let value = self.new_object(&class, arguments)?;
                self.push(value);
            }
            0x92 => {
                let (_, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                let value = self.new_object(&class, arguments)?;
                self.push(value);
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                let class = items.first().map_or_else(|| "object".into(), name_of);
                let value = self.object(class, Value::None)?;
                self.push(value);
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.pop_to_mark()?;
                let class = self.global(&module, &name)?;
                let value = self.object(name_of(&class), Value::None)?;
                self.push(value);
            }
            b'b' => {
                let state = self.pop()?;
                if let Some(Value::Node(i)) = self.stack.last()
                    && let Some(Node::Object(object)) = self.nodes.get_mut(*i)
                {
                    object.state = state;
                }
            }
            code => return self.bad(&format!("unknown operation {code:#04x}")),
        }
        Ok(false)
    }
}

pub(super) fn name_of(value: &Value) -> Rc<str> {
    match value {
        Value::Global(name) => name.clone(),
        _ => "object".into(),
    }
}
