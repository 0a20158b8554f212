//! The most calls that a daemon carries within a bound: doubled until a run is too much, then halved in between.

use super::{Measure, Plan, run};
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

/// The search ends when the largest number that passed and the smallest that did not are this close: a twentieth.
const CLOSE: usize = 20;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// What 99 of 100 echoes had to keep, in µs.
    pub bound_us: u32,
    /// Every run, in order.
    pub trials: Vec<Trial>,
    /// The run with the most calls of those that passed.
    pub best: Option<Measure>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Calls at once.
    pub calls: usize,
    /// The p99 of the echo, in µs.
    pub p99_us: u32,
    /// Frames lost, doubled, reordered or changed, and sockets broken.
    pub faults: u64,
    /// Whether it kept the bound with no fault.
    pub passed: bool,
    /// Whether the load generator itself was late by more than half the bound: then a failure is nobody's but its own.
    pub generator_late: bool,
}

/// Searches from `plan.calls` up to `most`, each run as long as the plan says.
pub fn search(plan: &Plan, most_calls: usize, bound: Duration) -> io::Result<Search> {
    let bound_us = bound.as_micros().try_into().unwrap_or(u32::MAX);
    let mut found = Search {
        bound_us,
        trials: Vec::new(),
        best: None,
    };
    most(plan.calls.max(1), most_calls, |calls| {
        let measure = run(&Plan { calls, ..plan.clone() })?;
        let trial = Trial {
            calls,
            p99_us: measure.echo_us.p99,
            faults: measure.faults(),
            passed: measure.faults() == 0 && measure.echo_us.p99 <= bound_us,
            generator_late: measure.send_late_us.p99 > bound_us / 2,
        };
        if trial.passed && found.best.as_ref().is_none_or(|b| b.calls < calls) {
            found.best = Some(measure);
        }
        found.trials.push(trial.clone());
        Ok(trial.passed)
    })?;
    Ok(found)
}

/// Asks `passes` about numbers from `first` to `last` as often as it takes to know the largest that passes to a twentieth.
fn most(first: usize, last: usize, mut passes: impl FnMut(usize) -> io::Result<bool>) -> io::Result<()> {
    let (mut good, mut bad, mut next) = (0, last + 1, first.min(last));
    loop {
        match passes(next)? {
            true => good = next,
            false => bad = next,
        }
        if bad <= good + 1 + good / CLOSE || bad <= 1 {
            return Ok(());
        }
        next = if bad > last {
            (good * 2).min(last)
        } else {
            (good + bad) / 2
        };
        if next <= good {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked, and the largest number that passed.
    fn asked(first: usize, last: usize, limit: usize) -> (Vec<usize>, usize) {
        let mut asked = Vec::new();
        most(first, last, |n| {
            asked.push(n);
            Ok(n <= limit)
        })
        .unwrap();
        let good = asked.iter().copied().filter(|n| *n <= limit).max().unwrap_or(0);
        (asked, good)
    }

    #[test]
    fn the_limit_is_found_to_a_twentieth_in_a_few_runs() {
        for limit in [1, 7, 99, 400, 1234, 2000, 5000, 19_999] {
            let (asked, good) = asked(400, 20_000, limit);
            assert!(good <= limit && limit <= good + 1 + good / CLOSE, "{limit}: {asked:?}");
            assert!(asked.len() <= 20, "{limit}: {asked:?}");
        }
    }

    #[test]
    fn nothing_beyond_the_last_number_is_tried_and_nothing_below_one() {
        assert_eq!(asked(400, 1000, 99_999), (vec![400, 800, 1000], 1000));
        let (asked, good) = asked(8, 1000, 0);
        assert_eq!((asked, good), (vec![8, 4, 2, 1], 0));
    }
}
