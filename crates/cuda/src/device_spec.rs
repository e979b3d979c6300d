//! The names of devices, such as `cuda:1`.

use std::fmt;
use std::str::FromStr;

/// A device by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first GPU if there is one and this build has GPU code, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number.
    Cuda(usize),
}

/// The name of a device is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDeviceSpec(String);

impl fmt::Display for BadDeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected auto, cpu, cuda or cuda:N, found {:?}", self.0)
    }
}

impl std::error::Error for BadDeviceSpec {}

impl FromStr for DeviceSpec {
    type Err = BadDeviceSpec;

    fn from_str(text: &str) -> Result<Self, BadDeviceSpec> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| BadDeviceSpec(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_read_and_written() {
        for (text, place) in [
            ("auto", DeviceSpec::Auto),
            ("cpu", DeviceSpec::Cpu),
            ("cuda:3", DeviceSpec::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(place));
            assert_eq!(place.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceSpec::Cuda(0)));
        for bad in ["gpu", "cuda:", "cuda:-1", "CPU", ""] {
            let error = bad.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("cuda:N") && error.contains(&format!("{bad:?}")));
        }
    }
}
