//! The values of a pickle.

use crate::dtype::Dtype;
use std::rc::Rc;

/// A value. Containers are in an arena and referred to by index, so that values neither nest nor recurse, and are cheap to copy.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A value that is not needed: a fraction, bytes.
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
    Opaque,
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
}

impl Pickle {
    pub(crate) fn node(&self, value: &Value) -> Option<&Node> {
        match value {
            Value::Node(i) => self.nodes.get(*i),
            _ => None,
        }
    }
}
