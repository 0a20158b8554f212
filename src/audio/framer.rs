//! Ragged chunks in, fixed quanta out, the remainder kept for the next chunk.
//!
//! Holds less than one quantum, allocates once, and passes quanta that lie whole within a chunk on without copying them.

/// Cuts a stream into quanta of a fixed number of samples.
#[derive(Clone, Debug)]
pub struct Framer<T = i16> {
    held: Box<[T]>,
    len: usize,
}

impl<T: Copy + Default> Framer<T> {
    /// A framer of quanta of `quantum` samples, at least one.
    pub fn new(quantum: usize) -> Self {
        Self {
            held: vec![T::default(); quantum.max(1)].into(),
            len: 0,
        }
    }

    /// Takes a chunk and hands each quantum it completes to `emit`, in order.
    pub fn push(&mut self, mut chunk: &[T], mut emit: impl FnMut(&[T])) {
        let quantum = self.held.len();
        if self.len > 0 {
            let (fill, rest) = chunk.split_at(chunk.len().min(quantum - self.len));
            self.held[self.len..self.len + fill.len()].copy_from_slice(fill);
            self.len += fill.len();
            chunk = rest;
            if self.len < quantum {
                return;
            }
            self.len = 0;
            emit(&self.held);
        }
        let mut quanta = chunk.chunks_exact(quantum);
        for whole in &mut quanta {
            emit(whole);
        }
        let rest = quanta.remainder();
        self.held[..rest.len()].copy_from_slice(rest);
        self.len = rest.len();
    }

    /// Hands the incomplete quantum, if there is one, to `emit` as it is, and forgets it.
    pub fn flush(&mut self, emit: impl FnOnce(&[T])) {
        if self.len > 0 {
            emit(&self.held[..self.len]);
            self.len = 0;
        }
    }

    /// Forgets the incomplete quantum and returns how many samples it had.
    pub fn clear(&mut self) -> usize {
        std::mem::take(&mut self.len)
    }

    /// Samples kept for the next quantum.
    pub const fn held(&self) -> usize {
        self.len
    }

    /// Samples of a quantum.
    pub const fn quantum(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_remainder_waits_for_the_next_chunk() {
        let mut framer = Framer::new(3);
        let mut out = Vec::new();
        framer.push(&[1, 2], |q| out.push(q.to_vec()));
        assert!(out.is_empty());
        framer.push(&[3, 4, 5, 6, 7], |q| out.push(q.to_vec()));
        assert_eq!(out, [[1, 2, 3], [4, 5, 6]]);
        assert_eq!(framer.held(), 1);
        framer.flush(|rest| assert_eq!(rest, [7]));
        framer.flush(|_| panic!("nothing was left"));
    }

    proptest! {
        #[test]
        fn no_sample_is_lost_doubled_or_moved(quantum in 0usize..50, chunks in prop::collection::vec(0usize..200, 0..20)) {
            let mut framer = Framer::<u32>::new(quantum);
            let (mut next, mut out) = (0, Vec::new());
            for n in chunks {
                let chunk: Vec<u32> = (next..next + n as u32).collect();
                next += n as u32;
                framer.push(&chunk, |q| {
                    assert_eq!(q.len(), quantum.max(1));
                    out.extend_from_slice(q);
                });
                prop_assert_eq!(out.len() + framer.held(), next as usize);
                prop_assert!(framer.held() < framer.quantum());
            }
            framer.flush(|rest| out.extend_from_slice(rest));
            prop_assert_eq!(out, (0..next).collect::<Vec<_>>());
        }
    }
}
