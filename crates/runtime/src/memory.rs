//! The allocator of a program, and how much memory it may use.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `purge_delay`: milliseconds after which unused pages go back to the system, -1 for never.
const PURGE_DELAY: mi_option_t = 15;

/// Configures the allocator and candle's threads; call it first in `main`. `MIMALLOC_PURGE_DELAY` and `CANDLE_NUM_THREADS` in the
/// environment take precedence.
///
/// # Safety
/// No other thread may exist, because the environment is changed.
pub unsafe fn prepare() {
    // candle's elementwise kernels have a spinning thread pool of their own, which would compete with ours for the cores.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread exists.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    // SAFETY: a valid option of the allocator, with a valid value.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}

/// The most memory that this process can use, in bytes: the machine's memory with swap, or the limit of its container or of `ulimit -v`
/// if that is less. `None` if the system does not report it.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
    let field = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        number(value)
    };
    let machine = read("/proc/meminfo").and_then(|text| {
        let swap = field(&text, "SwapTotal:").unwrap_or(0);
        Some(1024 * (field(&text, "MemTotal:")? + swap))
    });
    let container = read("/sys/fs/cgroup/memory.max").and_then(|text| number(&text));
    let limit = read("/proc/self/limits").and_then(|text| field(&text, "Max address space"));
    [machine, container, limit].into_iter().flatten().min()
}

/// The memory that this process uses now, in bytes, where the system reports it.
pub fn resident_memory() -> Option<u64> {
    process_status("VmRSS:")
}

/// The most memory that this process has used, in bytes, where the system reports it.
pub fn peak_memory() -> Option<u64> {
    process_status("VmHWM:")
}

/// The name of the processor, where the system reports it.
pub fn processor_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    let (_, name) = line.split_once(':')?;
    Some(name.trim().to_owned())
}

fn process_status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kib = line.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_purge_delay_is_the_option_that_is_set() {
        // Its documented default identifies the option.
        // SAFETY: reading and setting an option of the allocator.
        unsafe {
            if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
                assert_eq!(libmimalloc_sys::mi_option_get(PURGE_DELAY), 1000);
                mi_option_set_default(PURGE_DELAY, -1);
                assert_eq!(libmimalloc_sys::mi_option_get(PURGE_DELAY), -1);
            }
        }
    }

    #[test]
    fn the_memory_is_that_of_the_machine_or_less() {
        if cfg!(target_os = "linux") {
            let bytes = available_memory().unwrap();
            assert!((64 << 20..1 << 50).contains(&bytes), "{bytes}");
        }
    }
}
