//! Proofs that a process knows the secret of a run.

use crate::error::{Error, Result};
use crate::world::World;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

/// Random bytes that a proof answers, so that an old proof is worthless.
pub(crate) type Nonce = [u8; 32];

/// A proof.
pub(crate) type Proof = [u8; 32];

/// Block length of SHA-256.
const BLOCK: usize = 64;

/// The two ends of a connection, and the random bytes of both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Challenge {
    /// The rank that connects to rank 0.
    pub(crate) rank: usize,
    /// The random bytes of that rank.
    pub(crate) of_rank: Nonce,
    /// The random bytes of rank 0.
    pub(crate) of_leader: Nonce,
}

impl Challenge {
    /// Proves that the connecting rank knows the secret.
    pub(crate) fn proof_of_rank(&self, world: &World) -> Proof {
        self.proof(world, b"rank")
    }

    /// Proves that rank 0 knows the secret. A process that only repeats what it receives cannot produce it.
    pub(crate) fn proof_of_leader(&self, world: &World) -> Proof {
        self.proof(world, b"lead")
    }

    fn proof(&self, world: &World, speaker: &[u8; 4]) -> Proof {
        let (rank, size) = (self.rank as u64, world.size as u64);
        // All parts have fixed lengths, so no two challenges give the same bytes.
        hmac_sha256(
            world.secret.as_bytes(),
            &[
                speaker,
                &rank.to_le_bytes(),
                &size.to_le_bytes(),
                &self.of_rank,
                &self.of_leader,
            ],
        )
    }
}

/// Whether two proofs are equal, in a time that does not depend on where they differ.
pub(crate) fn is_same(a: &Proof, b: &Proof) -> bool {
    a.ct_eq(b).into()
}

/// Random bytes for a challenge.
///
/// # Errors
/// Fails if the system provides no randomness.
pub(crate) fn new_nonce() -> Result<Nonce> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| Error::Rendezvous {
        what: "no random numbers".to_owned(),
        source: error.into(),
    })?;
    Ok(nonce)
}

/// HMAC with SHA-256 (RFC 2104) of a message in parts.
fn hmac_sha256(key: &[u8], message: &[&[u8]]) -> Proof {
    let mut block = [0; BLOCK];
    match key.len() > BLOCK {
        true => block[..32].copy_from_slice(&Sha256::digest(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let padded = |byte: u8| Sha256::new_with_prefix(block.map(|k| k ^ byte));
    let mut inner = padded(0x36);
    for part in message {
        inner.update(part);
    }
    padded(0x5c)
        .chain_update(inner.finalize())
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hmac_has_the_values_of_rfc_4231() {
        for (key, message, expected) in [
            (
                &b"Jefe"[..],
                &[&b"what do ya want "[..], b"for nothing?"][..],
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                &[b"Test Using Larger Than Block-Size Key - Hash Key First"],
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(hex(&hmac_sha256(key, message)), expected);
        }
    }

    #[test]
    fn a_proof_holds_for_one_secret_size_rank_speaker_and_challenge() {
        let mut world = World::local(0, 3, 1);
        world.secret = "s".to_owned();
        let challenge = Challenge {
            rank: 1,
            of_rank: [1; 32],
            of_leader: [2; 32],
        };
        let proof = challenge.proof_of_rank(&world);
        assert!(is_same(&proof, &challenge.proof_of_rank(&world)));
        let others = [
            challenge.proof_of_leader(&world),
            Challenge {
                rank: 2,
                ..challenge
            }
            .proof_of_rank(&world),
            Challenge {
                of_rank: [3; 32],
                ..challenge
            }
            .proof_of_rank(&world),
            Challenge {
                of_leader: [3; 32],
                ..challenge
            }
            .proof_of_rank(&world),
            challenge.proof_of_rank(&World {
                size: 2,
                ..world.clone()
            }),
            challenge.proof_of_rank(&World {
                secret: "t".to_owned(),
                ..world
            }),
        ];
        assert!(others.iter().all(|other| !is_same(other, &proof)));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(new_nonce().unwrap(), new_nonce().unwrap());
    }
}
