//! The values of a pickle.

use crate::dtype::Dtype;
use crate::zip::Entry;
use std::collections::HashMap;
use std::rc::Rc;

/// A value. Containers are in an arena and referred to by index, so that values neither nest nor recurse, and are cheap to copy.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Bytes, by their position in the file.
    Bytes {
        start: u64,
        len: u64,
    },
    /// A value that is not needed: a large integer.
    Unused,
    Text(Rc<str>),
    /// A function or class by its full name.
    Global(Rc<str>),
    Node(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Dict(Vec<(Value, Value)>),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Storage(Rc<Storage>),
    Tensor(Rc<TensorView>),
    /// An object that only executing code would create.
    Object(Box<Object>),
}

/// What a pickle has of an object that is not created: the function or class that would create it, its arguments, and the state that it would
/// be given.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) class: Rc<str>,
    pub(crate) arguments: Value,
    pub(crate) state: Value,
}

/// A flat array in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) key: Rc<str>,
    pub(crate) dtype: Dtype,
    pub(crate) numel: u64,
    /// The first number of this view of the array: legacy files may store a view instead of the array.
    pub(crate) first: u64,
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(crate) struct TensorView {
    pub(crate) storage: Rc<Storage>,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<u64>,
}

/// The values of one pickle.
pub(crate) struct Pickle {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: Value,
    /// Names of functions and classes that were not called.
    pub(crate) opaque: Vec<Rc<str>>,
    /// Storages that are bytes inside the pickle.
    pub(crate) storages: HashMap<String, Entry>,
}

impl Pickle {
    pub(crate) fn node(&self, value: &Value) -> Option<&Node> {
        match value {
            Value::Node(i) => self.nodes.get(*i),
            _ => None,
        }
    }

    /// The entries of a dictionary.
    pub(crate) fn dict(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list or tuple.
    pub(crate) fn items(&self, value: &Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::List(items) | Node::Tuple(items) => Some(items),
            _ => None,
        }
    }
}
