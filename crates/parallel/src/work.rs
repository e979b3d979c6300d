//! Work that rank 0 divides among all ranks, piece by piece.

use crate::bytes::bytes_of;
use crate::connections::CLOSE_TIMEOUT;
use crate::error::{Error, Result};
use crate::process_group::ProcessGroup;

/// Bytes of a task's header: kind, numbers, values, values of the answer.
const HEADER: usize = 32;

/// A piece of work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Which of several kinds of work it is.
    pub kind: u64,
    /// Whole numbers, such as those of images.
    pub numbers: Vec<u64>,
    /// Values, such as those of images.
    pub values: Vec<f32>,
    /// The number of values in its answer.
    pub answer: usize,
}

/// The largest task that a process accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLimit {
    /// Whole numbers.
    pub numbers: usize,
    /// Values, of the task and of its answer.
    pub values: usize,
}

impl ProcessGroup {
    /// On rank 0: the answers to up to [`Self::size`] tasks, in order. Rank `i` answers task `i`; rank 0 calls `own` with the first one. The
    /// other ranks are in [`Self::serve`].
    ///
    /// # Errors
    /// Fails if `own` fails, a process has failed or is disconnected, or an answer has another length. Then no more work can be shared.
    pub fn share<E: From<Error>>(
        &self,
        tasks: Vec<Task>,
        own: impl FnOnce(Task) -> std::result::Result<Vec<f32>, E>,
    ) -> std::result::Result<Vec<Vec<f32>>, E> {
        if tasks.len() > self.size() {
            let source = candle_core::Error::Msg(format!(
                "{} tasks for {} processes",
                tasks.len(),
                self.size()
            ));
            return Err(Error::from(source).into());
        }
        let mut tasks = tasks.into_iter();
        let Some(first) = tasks.next() else {
            return Ok(Vec::new());
        };
        let others: Vec<Task> = tasks.collect();
        for (connection, task) in others.iter().enumerate() {
            self.send_task(connection, task)?;
        }
        let mut answers = vec![own(first)?];
        for (connection, task) in others.iter().enumerate() {
            let length = 4 * task.answer;
            let bytes = self.with_connections(|all| all.receive(connection, length..=length))?;
            answers.push(values_of(&bytes));
        }
        Ok(answers)
    }

    /// On the other ranks: answers the tasks of rank 0 until it calls [`Self::end`]. A failure of `answer` is passed on to rank 0.
    ///
    /// # Errors
    /// Fails if `answer` fails, rank 0 has failed or is disconnected, or a task is larger than `limit`.
    pub fn serve<E: From<Error> + std::fmt::Display>(
        &self,
        limit: TaskLimit,
        mut answer: impl FnMut(Task) -> std::result::Result<Vec<f32>, E>,
    ) -> std::result::Result<(), E> {
        loop {
            let task = match self.receive_task(limit) {
                Err(Error::Ended) => return Ok(()),
                task => task?,
            };
            let length = task.answer;
            let values = match answer(task) {
                Ok(values) => values,
                Err(error) => {
                    // Maybe another process is gone, which a caller noticed by `check`.
                    match self.check() {
                        Err(Error::Ended) => return Ok(()),
                        Err(gone) => return Err(gone.into()),
                        Ok(()) => {}
                    }
                    self.fail(&error.to_string());
                    return Err(error);
                }
            };
            let bytes = bytes_of(&values, f32::to_le_bytes);
            let sent = match values.len() == length {
                true => self.with_connections(|all| all.send(0, &bytes)),
                false => Err(Error::Mismatch {
                    rank: self.rank(),
                    expected: format!("{length} values"),
                    found: format!("{} values", values.len()),
                }),
            };
            match sent {
                Err(Error::Ended) => return Ok(()),
                sent => sent?,
            }
        }
    }

    /// Whether the others still work with this process: fails if one of them has ended the work, failed or disconnected. It does not wait.
    ///
    /// # Errors
    /// As above.
    pub fn check(&self) -> Result<()> {
        match self.size() {
            1 => Ok(()),
            _ => self.with_connections(crate::connections::Connections::check),
        }
    }

    /// On rank 0: ends the work of the other ranks, and waits up to 10 s for them to exit.
    pub fn end(&self) {
        if self.size() > 1 {
            // A process that cannot be reached notices the end of the connection.
            let _ = self.with_connections(|all| {
                all.end();
                all.wait_closed(CLOSE_TIMEOUT);
                Ok(())
            });
        }
    }

    fn send_task(&self, connection: usize, task: &Task) -> Result<()> {
        let sizes = [task.numbers.len(), task.values.len(), task.answer];
        let mut header = task.kind.to_le_bytes().to_vec();
        header.extend(sizes.iter().flat_map(|&n| (n as u64).to_le_bytes()));
        let mut body = bytes_of(&task.numbers, u64::to_le_bytes);
        body.extend(bytes_of(&task.values, f32::to_le_bytes));
        self.with_connections(|all| {
            all.send(connection, &header)?;
            all.send(connection, &body)
        })
    }

    fn receive_task(&self, limit: TaskLimit) -> Result<Task> {
        let header = self.with_connections(|all| all.receive(0, HEADER..=HEADER))?;
        let mut fields = [0; 4];
        for (field, bytes) in fields.iter_mut().zip(header.as_chunks::<8>().0) {
            *field = u64::from_le_bytes(*bytes);
        }
        let [kind, sizes @ ..] = fields;
        let most = [limit.numbers, limit.values, limit.values];
        let mut counts = [0; 3];
        for ((count, size), most) in counts.iter_mut().zip(sizes).zip(most) {
            *count = usize::try_from(size)
                .ok()
                .filter(|n| *n <= most)
                .ok_or_else(|| Error::Mismatch {
                    rank: 0,
                    expected: format!(
                        "a task of up to {} numbers and {} values",
                        limit.numbers, limit.values
                    ),
                    found: format!(
                        "one of {} numbers and {} values, with {} in its answer",
                        sizes[0], sizes[1], sizes[2]
                    ),
                })?;
        }
        let [numbers, values, answer] = counts;
        let length = 8 * numbers + 4 * values;
        let body = self.with_connections(|all| all.receive(0, length..=length))?;
        let (first, rest) = body.split_at(8 * numbers);
        let numbers = first.as_chunks::<8>().0.iter();
        Ok(Task {
            kind,
            numbers: numbers.map(|bytes| u64::from_le_bytes(*bytes)).collect(),
            values: values_of(rest),
            answer,
        })
    }
}

fn values_of(bytes: &[u8]) -> Vec<f32> {
    let all = bytes.as_chunks::<4>().0.iter();
    all.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_group::tests::in_world;
    use std::thread;
    use std::time::{Duration, Instant};

    const LIMIT: TaskLimit = TaskLimit {
        numbers: 4,
        values: 100_000,
    };

    /// Answers with the values times the first number, and the rank behind them.
    fn answer(rank: usize, task: &Task) -> Result<Vec<f32>> {
        let factor = task.numbers[0] as f32;
        let scaled = task.values.iter().map(|value| factor * value);
        Ok(scaled.chain([rank as f32]).collect())
    }

    fn task(factor: u64, n: usize) -> Task {
        Task {
            kind: 7,
            numbers: vec![factor, 9],
            values: vec![1.5; n],
            answer: n + 1,
        }
    }

    #[test]
    fn answers_come_in_the_order_of_tasks_from_the_ranks_of_their_numbers() {
        let seen = in_world(3, |group| {
            if !group.is_leader() {
                group
                    .serve(LIMIT, |task| answer(group.rank(), &task))
                    .unwrap();
                return Vec::new();
            }
            let mut all = Vec::new();
            // Short and long messages, and fewer tasks than ranks.
            for tasks in [
                vec![task(1, 2), task(2, 3), task(3, 1)],
                vec![task(2, 90_000), task(4, 90_000)],
                Vec::new(),
            ] {
                let answers = group.share(tasks, |task| answer(0, &task)).unwrap();
                all.extend(answers.into_iter().map(|a| (a.len(), a[0], a[a.len() - 1])));
            }
            let error = group.share(vec![Task::default(); 4], |task| answer(0, &task));
            assert!(
                error
                    .unwrap_err()
                    .to_string()
                    .contains("4 tasks for 3 processes")
            );
            group.end();
            all
        });
        let expected = [
            (3, 1.5, 0.0),
            (4, 3.0, 1.0),
            (2, 4.5, 2.0),
            (90_001, 3.0, 0.0),
            (90_001, 6.0, 1.0),
        ];
        assert_eq!(seen[0], expected);
    }

    #[test]
    fn a_failure_names_its_rank_and_reason_on_every_rank() {
        let seen = in_world(3, |group| {
            if group.is_leader() {
                let tasks = vec![task(1, 1), task(1, 1), task(1, 1)];
                let error = group.share(tasks, |task| answer(0, &task)).unwrap_err();
                group.fail(&error.to_string());
                return error.to_string();
            }
            let served = group.serve(LIMIT, |task| match group.rank() {
                1 => Err(candle_core::Error::Msg("out of\nmemory".to_owned()).into()),
                rank => answer(rank, &task),
            });
            served.unwrap_err().to_string()
        });
        assert!(
            seen[0].starts_with("rank 1 failed: out of; memory"),
            "{}",
            seen[0]
        );
        assert!(seen[1].starts_with("out of"), "{}", seen[1]);
        assert!(
            seen[2].starts_with("rank 0 failed: rank 1 failed: out of"),
            "{}",
            seen[2]
        );
    }

    #[test]
    fn a_task_that_is_too_large_and_an_answer_of_another_length_are_refused() {
        for (n, length, words) in [
            (100_001, 1, "up to 4 numbers and 100000 values"),
            (2, 5, "expected 5 values, found 3 values"),
        ] {
            let seen = in_world(2, move |group| {
                if group.is_leader() {
                    let mut tasks = vec![task(1, 1), task(1, n)];
                    tasks[1].answer = length;
                    return group
                        .share(tasks, |task| answer(0, &task))
                        .unwrap_err()
                        .to_string();
                }
                let served = group.serve(LIMIT, |task| answer(1, &task));
                served.unwrap_err().to_string()
            });
            assert!(seen[0].contains("rank 1"), "{}", seen[0]);
            assert!(seen[1].contains(words), "{}", seen[1]);
        }
    }

    #[test]
    fn work_that_was_ended_in_its_middle_is_left_without_an_error() {
        let started = Instant::now();
        in_world(2, |group| {
            if group.is_leader() {
                let stopped = group.share(vec![task(1, 1), task(1, 1)], |_| {
                    Err(candle_core::Error::Msg("stopped".to_owned()).into())
                });
                let stopped: Result<_> = stopped;
                assert!(stopped.is_err());
                group.end();
                return;
            }
            let served: Result<()> = group.serve(LIMIT, |_| {
                loop {
                    group.check()?;
                    thread::sleep(Duration::from_millis(5));
                }
            });
            served.unwrap();
        });
        assert!(started.elapsed() < Duration::from_secs(8));
    }
}
