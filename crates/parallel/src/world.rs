//! The rank of a process, the number of processes, and where they connect.

use crate::error::{Error, Result};
use std::net::TcpListener;
use std::ops::Range;
use std::time::Duration;

/// The rank of this process and how to reach the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Its rank, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
    /// Its rank on this machine; [`Self::gpu`] is the GPU that follows from it.
    pub local_rank: usize,
    /// The address at which rank 0 listens.
    pub address: String,
    /// The port at which rank 0 listens.
    pub port: u16,
    /// A secret that a process must know to join; if empty, every process that reaches the port can join. Both ends prove that they know it
    /// before anything else they send is believed. It does not protect the traffic: connections are not encrypted.
    pub secret: String,
    /// How long a process may send nothing before it times out. Processes send heartbeats even during long computations.
    pub timeout: Duration,
}

/// The default port of the usual launchers.
const PORT: u16 = 29500;

/// The least characters of a secret from the environment. Shorter ones can be guessed from a recorded proof.
const SECRET: usize = 16;

/// Long enough for a machine that is short of memory.
const TIMEOUT: Duration = Duration::from_secs(120);

impl World {
    /// One of `size` processes on this machine, with rank 0 at `port`.
    #[must_use]
    pub fn local(rank: usize, size: usize, port: u16) -> Self {
        Self {
            rank,
            size,
            local_rank: rank,
            address: "127.0.0.1".to_owned(),
            port,
            secret: String::new(),
            timeout: TIMEOUT,
        }
    }

    /// Reads the variables of the usual launchers (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`), and `SDFT_SECRET`,
    /// `SDFT_PORT` and `SDFT_PEER_TIMEOUT` (seconds), which are this program's own. Returns `None` if `WORLD_SIZE` is not set or is 1.
    ///
    /// Rank 0 listens at `SDFT_PORT`, or else at `MASTER_PORT`. Under torchrun its agent listens there already
    /// (`TORCHELASTIC_USE_AGENT_STORE`), so rank 0 takes the port after it.
    ///
    /// `SDFT_SECRET` is required: launchers do not share a secret that other users of their machines cannot know.
    ///
    /// # Errors
    /// Fails if a variable is not a number, if the rank is not below the world size, or if the secret has fewer than 16 characters.
    pub fn from_env() -> Result<Option<Self>> {
        Self::of(|name| std::env::var(name).ok())
    }

    pub(crate) fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &'static str, max: usize| -> Result<Option<usize>> {
            variable(name)
                .map(|text| match text.trim().parse() {
                    Ok(n) if n <= max => Ok(n),
                    _ => Err(Error::Variable {
                        name,
                        expected: format!("a number up to {max}"),
                        found: text,
                    }),
                })
                .transpose()
        };
        let size = number("WORLD_SIZE", 4096)?.unwrap_or(1);
        if size <= 1 {
            return Ok(None);
        }
        let missing = |name| Error::Variable {
            name,
            expected: format!("a number below WORLD_SIZE ({size})"),
            found: String::new(),
        };
        let rank = number("RANK", size - 1)?.ok_or_else(|| missing("RANK"))?;
        let zero = |name, expected: &str| Error::Variable {
            name,
            expected: expected.to_owned(),
            found: "0".to_owned(),
        };
        let port_of = |name| match number(name, usize::from(u16::MAX))? {
            // Every process would connect to another port.
            Some(0) => {
                let expected = "a port that all processes know, from 1 to 65535";
                Err(zero(name, expected))
            }
            port => Ok(port.and_then(|n| u16::try_from(n).ok())),
        };
        let agent_listens = variable("TORCHELASTIC_USE_AGENT_STORE")
            .is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
        let port = match (
            port_of("SDFT_PORT")?,
            port_of("MASTER_PORT")?.unwrap_or(PORT),
        ) {
            (Some(own), _) => own,
            (None, agent) if agent_listens => agent.checked_add(1).unwrap_or(agent - 1),
            (None, port) => port,
        };
        let timeout = match number("SDFT_PEER_TIMEOUT", 86_400)? {
            None => TIMEOUT,
            Some(0) => return Err(zero("SDFT_PEER_TIMEOUT", "seconds, from 1 to 86400")),
            Some(seconds) => Duration::from_secs(seconds as u64),
        };
        let secret = variable("SDFT_SECRET").unwrap_or_default();
        let length = secret.chars().count();
        if length < SECRET {
            return Err(Error::Variable {
                name: "SDFT_SECRET",
                expected: format!(
                    "at least {SECRET} characters that only the processes of this run know, the same for all (export SDFT_SECRET=$(openssl rand -hex 16) before the launcher)"
                ),
                found: match length {
                    0 => String::new(),
                    // The secret stays out of messages.
                    n => format!("{n} characters"),
                },
            });
        }
        Ok(Some(Self {
            rank,
            size,
            local_rank: number("LOCAL_RANK", 4096)?.unwrap_or(rank),
            address: variable("MASTER_ADDR").unwrap_or_else(|| "127.0.0.1".to_owned()),
            port,
            secret,
            timeout,
        }))
    }

    /// The index of this process's GPU among those that are `visible` to it: 0 if it sees only one, because launchers such as SLURM can show
    /// each process only its own GPU, else the local rank.
    pub fn gpu(&self, visible: usize) -> usize {
        if visible == 1 { 0 } else { self.local_rank }
    }

    /// The variables that pass this to a child process. `SDFT_PEER_TIMEOUT` is inherited from the environment.
    pub fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("RANK", self.rank.to_string()),
            ("WORLD_SIZE", self.size.to_string()),
            ("LOCAL_RANK", self.local_rank.to_string()),
            ("MASTER_ADDR", self.address.clone()),
            ("SDFT_PORT", self.port.to_string()),
            ("SDFT_SECRET", self.secret.clone()),
        ]
    }
}

/// The samples, of `n`, that belong to a rank: a contiguous range, with sizes as equal as possible.
pub fn share_of(n: usize, rank: usize, size: usize) -> Range<usize> {
    let size = size.max(1);
    n * rank / size..n * (rank + 1) / size
}

/// 128 random bits as text, for [`World::secret`].
///
/// # Errors
/// Fails if the system provides no randomness.
pub fn new_secret() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Rendezvous {
        what: "a new secret".to_owned(),
        source: error.into(),
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A free port of this machine.
///
/// # Errors
/// Fails if no port is free.
pub fn free_port() -> Result<u16> {
    let found = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    match found {
        Ok(address) => Ok(address.port()),
        Err(source) => Err(Error::Rendezvous {
            what: "looking for a free port".to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SECRET_OF_TESTS: &str = "0123456789abcdef";

    /// The world of these variables, with a secret unless they have one.
    pub(crate) fn of(variables: &[(&str, &str)]) -> Result<Option<World>> {
        World::of(|name| {
            let variables = variables.iter().chain(&[("SDFT_SECRET", SECRET_OF_TESTS)]);
            let found = variables.into_iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn launchers_variables_are_read_and_written() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);
        let world = of(&[("WORLD_SIZE", "4"), ("RANK", "2"), ("MASTER_ADDR", "node0")]);
        let world = world.unwrap().unwrap();
        assert_eq!((world.rank, world.size, world.local_rank), (2, 4, 2));
        assert_eq!((world.address.as_str(), world.port), ("node0", 29500));
        assert_eq!(
            (world.secret.as_str(), world.timeout),
            (SECRET_OF_TESTS, TIMEOUT)
        );
        let world = World {
            secret: new_secret().unwrap(),
            ..world
        };
        assert_ne!(new_secret().unwrap(), world.secret);
        let variables = world.variables();
        let again: Vec<_> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
        assert_eq!(of(&again).unwrap(), Some(world));
        let again = [&again[..], &[("SDFT_PEER_TIMEOUT", "7")]].concat();
        let timeout = of(&again).unwrap().unwrap().timeout;
        assert_eq!(timeout, Duration::from_secs(7));
        for (name, value) in [
            ("RANK", "4"),
            ("RANK", "x"),
            ("MASTER_PORT", "70000"),
            ("MASTER_PORT", "0"),
            ("SDFT_PORT", "0"),
            ("SDFT_PEER_TIMEOUT", "0"),
        ] {
            let error = of(&[("WORLD_SIZE", "4"), ("RANK", "1"), (name, value)][..]);
            // The first variable of a name is read, so the invalid rank comes first.
            let error = if name == "RANK" {
                of(&[("WORLD_SIZE", "4"), (name, value)])
            } else {
                error
            };
            let error = error.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        assert!(
            of(&[("WORLD_SIZE", "2")])
                .unwrap_err()
                .to_string()
                .contains("RANK")
        );
    }

    #[test]
    fn a_missing_or_short_secret_is_refused_and_not_printed() {
        for (secret, found) in [("", "\"\""), ("0123456789abcde", "15 characters")] {
            let variables = [("WORLD_SIZE", "2"), ("RANK", "0"), ("SDFT_SECRET", secret)];
            let error = of(&variables).unwrap_err().to_string();
            assert!(
                error.contains("SDFT_SECRET") && error.contains(found),
                "{error}"
            );
            assert!(
                error.contains("openssl") && !error.contains("abcde"),
                "{error}"
            );
        }
    }

    #[test]
    fn rank_0_leaves_the_port_of_torchruns_agent_alone() {
        let port = |variables: &[(&str, &str)]| {
            let rank = [("WORLD_SIZE", "2"), ("RANK", "1")];
            of(&[&rank[..], variables].concat()).unwrap().unwrap().port
        };
        let agent = |value| ("TORCHELASTIC_USE_AGENT_STORE", value);
        assert_eq!(port(&[agent("True")]), 29501);
        assert_eq!(port(&[agent("False")]), 29500);
        assert_eq!(port(&[agent("True"), ("MASTER_PORT", "65535")]), 65534);
        for own in [&[agent("True")][..], &[]] {
            let own = [own, &[("MASTER_PORT", "4000"), ("SDFT_PORT", "5000")]].concat();
            assert_eq!(port(&own), 5000);
        }
    }

    #[test]
    fn a_process_that_sees_one_gpu_takes_it() {
        let world = World::local(3, 4, 1);
        assert_eq!(world.gpu(4), 3);
        assert_eq!(world.gpu(1), 0);
        // Opening this one fails with the number of GPUs.
        assert_eq!(world.gpu(2), 3);
    }

    #[test]
    fn shares_cover_everything_once() {
        for n in [1, 2, 7, 8, 33] {
            for size in 1..=n.min(5) {
                let all: Vec<usize> = (0..size).flat_map(|rank| share_of(n, rank, size)).collect();
                assert_eq!(all, (0..n).collect::<Vec<_>>());
                assert!((0..size).all(|rank| !share_of(n, rank, size).is_empty()));
            }
        }
    }
}
