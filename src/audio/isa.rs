//! The instruction sets kernels are written for, and whether this CPU has them.
//!
//! An absent set is an ordinary value ([`MissingIsa`]), so that tests, benches and `--isa` can ask for any of them.

use std::{fmt, str::FromStr};

/// An instruction set, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// No vector instructions are asked for: the oracle of every other set.
    Scalar,
    /// x86-64 with SSSE3 and SSE4.1.
    Sse,
    /// Aarch64 with Advanced SIMD.
    Neon,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW and VL; VBMI is used where present.
    Avx512,
}

impl Isa {
    /// Every set, slowest first.
    pub const ALL: [Self; 5] = [Self::Scalar, Self::Sse, Self::Neon, Self::Avx2, Self::Avx512];

    /// Whether this CPU has it. Asks the CPU once per process (the standard library caches the answer).
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Sse => is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The sets this CPU has, slowest first.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The fastest set this CPU has.
    pub fn best() -> Self {
        Self::available().next_back().unwrap_or(Self::Scalar)
    }

    /// Itself where the CPU has it.
    pub fn require(self) -> Result<Self, MissingIsa> {
        if self.is_available() {
            Ok(self)
        } else {
            Err(MissingIsa(self))
        }
    }

    /// The name people type: `scalar`, `sse`, `neon`, `avx2`, `avx512`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Sse => "sse",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name().eq_ignore_ascii_case(name))
            .ok_or(UnknownIsa)
    }
}

/// A name that is no instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIsa;

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown instruction set, expected one of {}", names(Isa::ALL))
    }
}

impl std::error::Error for UnknownIsa {}

/// An instruction set this CPU has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingIsa(pub Isa);

impl fmt::Display for MissingIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this CPU has no {} instructions; it has {}",
            self.0,
            names(Isa::available())
        )
    }
}

impl std::error::Error for MissingIsa {}

fn names(list: impl IntoIterator<Item = Isa>) -> String {
    let names: Vec<_> = list.into_iter().map(Isa::name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert_eq!("mmx".parse::<Isa>(), Err(UnknownIsa));
    }

    #[test]
    fn the_best_set_is_one_the_cpu_has() {
        assert!(Isa::best().is_available());
        assert!(Isa::available().any(|isa| isa == Isa::Scalar));
    }

    #[test]
    fn asking_for_an_absent_set_says_what_there_is() {
        let absent = Isa::ALL.into_iter().find(|isa| !isa.is_available()).unwrap();
        let message = absent.require().unwrap_err().to_string();
        assert!(
            message.contains(absent.name()) && message.contains("scalar"),
            "{message}"
        );
    }
}
