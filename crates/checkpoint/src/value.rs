//! What a pickle holds.

use crate::dtype::Dtype;
use std::rc::Rc;

/// A value. Containers live in an arena and are referred to by number, so nothing here nests, recurses or is copied.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Something whose value is of no use here: a fraction, bytes.
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
    /// Something that would have to be executed to be known.
    Opaque,
}

/// A flat array in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) key: Rc<str>,
    pub(crate) dtype: Dtype,
    pub(crate) numel: u64,
    /// Where this view of the array begins, in numbers: legacy files may store a view of an array instead of the array.
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
    /// Names that would have to be called to know what they make.
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
