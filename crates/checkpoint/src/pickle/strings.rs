//! Reads strings, numbers and names, and limits their memory by the size of the file.

use super::{Machine, NODE, VALUE};
use crate::error::Result;
use crate::short::start;
use crate::value::Value;
use std::rc::Rc;

/// Longer names belong to no function or class.
const MOST_GLOBAL: usize = 512;

impl Machine<'_, '_> {
    /// Counts memory, so that a small file cannot take much.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<()> {
        if bytes >= self.room() {
            return self.bad(&format!(
                "its objects take more than {} MB, far more than the file",
                self.most >> 20
            ));
        }
        self.held += bytes;
        Ok(())
    }

    /// Bytes that may still be held.
    pub(super) fn room(&self) -> usize {
        let all = self.held + VALUE * self.stack.len() + NODE * self.nodes.len();
        self.most.saturating_sub(all)
    }

    /// Fails if less than `len` bytes are left.
    fn check_left(&self, len: u64) -> Result<()> {
        match len > self.end.saturating_sub(self.input.position()) {
            true => self.bad("a string is longer than the file"),
            false => Ok(()),
        }
    }

    pub(super) fn text(&mut self, len: u64) -> Result<Value> {
        self.check_left(len)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.input.fill(&mut bytes)?;
        let text: Rc<str> = String::from_utf8_lossy(&bytes).into();
        self.hold(text.len() + 64)?;
        Ok(Value::Text(text))
    }

    /// Skips bytes and keeps their position.
    pub(super) fn skip(&mut self, len: u64) -> Result<Value> {
        self.check_left(len)?;
        let start = self.input.position();
        self.input.seek(start + len)?;
        Ok(Value::Bytes { start, len })
    }

    pub(super) fn long(&mut self, len: u64) -> Result<Value> {
        if len > 8 {
            self.skip(len)?;
            return Ok(Value::Unused);
        }
        let mut bytes = [0; 8];
        let n = usize::try_from(len).unwrap_or(0);
        self.input.fill(&mut bytes[..n])?;
        Ok(long(&bytes[..n]))
    }

    /// The full name of a function or class.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<Value> {
        let full = format!(
            "{}.{}",
            start(module, MOST_GLOBAL),
            start(name, MOST_GLOBAL)
        );
        self.hold(full.len() + 64)?;
        Ok(Value::Global(full.into()))
    }
}

/// Little-endian two's complement of up to eight bytes; longer numbers are not needed.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Unused;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}
