//! PyTorch's files, written by hand: pickles of any protocol in either container.
#![allow(dead_code, reason = "each test file uses its part")]

/// A Python value.
#[derive(Clone)]
pub(crate) enum Py {
    None,
    Int(i64),
    Float(f64),
    Str(String),
    Dict(Vec<(Py, Py)>),
    List(Vec<Py>),
    /// Shape and values.
    Tensor(Vec<usize>, Vec<f32>),
    /// A tensor of one axis: storage class, bytes of one number, and all bytes.
    Typed(&'static str, usize, Vec<u8>),
    /// A tensor of one axis in a storage of bytes: `torch.dtype`, bytes of one number, and all bytes.
    Untyped(&'static str, usize, Vec<u8>),
}

pub(crate) fn s(text: &str) -> Py {
    Py::Str(text.to_owned())
}

/// A dictionary with text for keys.
pub(crate) fn dict<K: AsRef<str>>(entries: impl IntoIterator<Item = (K, Py)>) -> Py {
    Py::Dict(
        entries
            .into_iter()
            .map(|(k, v)| (s(k.as_ref()), v))
            .collect(),
    )
}

/// A tensor whose values count up from `first`.
pub(crate) fn t(shape: &[usize], first: f32) -> Py {
    let n: usize = shape.iter().product();
    let values = (0..n).map(|i| first + i as f32).collect();
    Py::Tensor(shape.to_vec(), values)
}

struct Pickler {
    protocol: u8,
    out: Vec<u8>,
    storages: Vec<(Vec<u8>, usize)>,
}

impl Pickler {
    fn text(&mut self, text: &str) {
        let len = text.len() as u32;
        match u8::try_from(len) {
            Ok(len) if self.protocol >= 4 => self.out.extend([0x8c, len]),
            _ => {
                self.out.push(b'X');
                self.out.extend(len.to_le_bytes());
            }
        }
        self.out.extend(text.as_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        if self.protocol >= 4 {
            self.text(module);
            self.text(name);
            self.out.push(0x93);
        } else {
            self.out.extend(format!("c{module}\n{name}\n").as_bytes());
        }
    }

    fn int(&mut self, value: i64) {
        match i32::try_from(value) {
            Ok(small) => {
                self.out.push(b'J');
                self.out.extend(small.to_le_bytes());
            }
            Err(_) => {
                self.out.extend([0x8a, 8]);
                self.out.extend(value.to_le_bytes());
            }
        }
    }

    fn ints(&mut self, values: &[usize]) {
        self.out.push(b'(');
        for value in values {
            self.int(*value as i64);
        }
        self.out.push(b't');
    }

    fn storage(&mut self, module: &str, class: &str, size: usize, bytes: &[u8]) {
        let key = self.storages.len().to_string();
        self.storages.push((bytes.to_vec(), bytes.len() / size));
        self.out.push(b'(');
        self.text("storage");
        self.global(module, class);
        self.text(&key);
        self.text("cpu");
        self.int((bytes.len() / size) as i64);
        self.out.extend(b"tQ");
    }

    fn view(&mut self, shape: &[usize]) {
        self.int(0);
        self.ints(shape);
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i];
        }
        self.ints(&strides);
        self.out.push(0x89);
        self.global("collections", "OrderedDict");
        self.out.extend(b")R");
    }

    fn put(&mut self, value: &Py) {
        match value {
            Py::None => self.out.push(b'N'),
            Py::Int(value) => self.int(*value),
            Py::Float(value) => {
                self.out.push(b'G');
                self.out.extend(value.to_be_bytes());
            }
            Py::Str(text) => self.text(text),
            Py::Dict(entries) => {
                self.out.extend(b"}(");
                for (key, value) in entries {
                    self.put(key);
                    self.put(value);
                }
                self.out.push(b'u');
            }
            Py::List(items) => {
                self.out.extend(b"](");
                for item in items {
                    self.put(item);
                }
                self.out.push(b'e');
            }
            Py::Tensor(shape, values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                self.global("torch._utils", "_rebuild_tensor_v2");
                self.out.push(b'(');
                self.storage("torch", "FloatStorage", 4, &bytes);
                self.view(shape);
                self.out.extend(b"tR");
            }
            Py::Typed(class, size, bytes) => {
                self.global("torch._utils", "_rebuild_tensor_v2");
                self.out.push(b'(');
                self.storage("torch", class, *size, bytes);
                self.view(&[bytes.len() / size]);
                self.out.extend(b"tR");
            }
            Py::Untyped(dtype, size, bytes) => {
                self.global("torch._utils", "_rebuild_tensor_v3");
                self.out.push(b'(');
                self.storage("torch.storage", "UntypedStorage", 1, bytes);
                self.view(&[bytes.len() / size]);
                self.global("torch", dtype);
                self.out.extend(b"tR");
            }
        }
    }
}

fn pickle(value: &Py, protocol: u8) -> Pickler {
    let mut pickler = Pickler {
        protocol,
        out: Vec::new(),
        storages: Vec::new(),
    };
    pickler.put(value);
    pickler.out.push(b'.');
    let body = std::mem::take(&mut pickler.out);
    pickler.out = framed(&body, protocol);
    pickler
}

/// A pickle's opcodes behind what its protocol begins with.
fn framed(body: &[u8], protocol: u8) -> Vec<u8> {
    let mut out = vec![0x80, protocol];
    if protocol >= 4 {
        out.push(0x95);
        out.extend((body.len() as u64).to_le_bytes());
    }
    out.extend(body);
    out
}

/// The container before PyTorch 1.6.
pub(crate) fn legacy(value: &Py, protocol: u8) -> Vec<u8> {
    let pickler = pickle(value, protocol);
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let mut out = framed(magic, protocol);
    out.extend(framed(b"M\xe9\x03.", protocol));
    out.extend(framed(b"}.", protocol));
    out.extend(&pickler.out);
    let keys: Vec<Py> = (0..pickler.storages.len())
        .map(|i| s(&i.to_string()))
        .collect();
    out.extend(pickle(&Py::List(keys), protocol).out);
    for (bytes, numel) in &pickler.storages {
        out.extend((*numel as u64).to_le_bytes());
        out.extend(bytes);
    }
    out
}

/// The container since.
pub(crate) fn zip(value: &Py) -> Vec<u8> {
    let pickler = pickle(value, 2);
    let mut entries = vec![("archive/data.pkl".to_owned(), pickler.out)];
    for (i, (bytes, _)) in pickler.storages.into_iter().enumerate() {
        entries.push((format!("archive/data/{i}"), bytes));
    }
    archive(&entries)
}

/// A zip archive of stored entries.
pub(crate) fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in entries {
        let crc = crc32fast::hash(bytes);
        let offset = out.len() as u32;
        let mut common = vec![0u8; 10];
        common.extend(crc.to_le_bytes());
        common.extend((bytes.len() as u32).to_le_bytes());
        common.extend((bytes.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(bytes);
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}
