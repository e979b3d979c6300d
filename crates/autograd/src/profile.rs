//! What the operations of a function cost on the CPU.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

/// All calls of one kind of operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// Number of calls.
    pub calls: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Multiplications and additions, of the direct sum where an algorithm needs fewer; 0 where an operation is not a product.
    pub flops: f64,
    /// Those that the algorithm in use leaves, without its transforms.
    pub flops_of_products: f64,
    /// Bytes of inputs and results, each counted once.
    pub bytes: f64,
}

thread_local! {
    static PARTS: RefCell<Option<BTreeMap<&'static str, Part>>> = const { RefCell::new(None) };
}

/// Runs `f` and returns its result with the cost of its operations by name: those that the calling thread starts on the CPU, on as many
/// threads as they use. candle's own operations are not counted.
pub fn profile<T>(f: impl FnOnce() -> T) -> (T, BTreeMap<&'static str, Part>) {
    /// Continues what was measured outside, also after a panic.
    struct Outer(Option<BTreeMap<&'static str, Part>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            PARTS.set(self.0.take());
        }
    }
    let _outer = Outer(PARTS.replace(Some(BTreeMap::new())));
    let result = f();
    (result, PARTS.take().unwrap_or_default())
}

/// Runs `f`, which is no operation of this crate, as a part of this name that moves `bytes` through memory.
pub fn profile_part<T>(name: &'static str, bytes: f64, f: impl FnOnce() -> T) -> T {
    if !is_profiling() {
        return f();
    }
    let started = Instant::now();
    let result = f();
    let call = Part {
        calls: 1,
        seconds: started.elapsed().as_secs_f64(),
        bytes,
        ..Part::default()
    };
    record(name, call);
    result
}

/// Whether this thread is inside [`profile`].
pub(crate) fn is_profiling() -> bool {
    PARTS.with_borrow(Option::is_some)
}

/// Adds a call to the parts of the innermost [`profile`].
pub(crate) fn record(name: &'static str, call: Part) {
    PARTS.with_borrow_mut(|parts| {
        if let Some(parts) = parts {
            let part = parts.entry(name).or_default();
            part.calls += call.calls;
            part.seconds += call.seconds;
            part.flops += call.flops;
            part.flops_of_products += call.flops_of_products;
            part.bytes += call.bytes;
        }
    });
}
