//! The worker process: loads the engine, answers one question after the other, and ends with its stdin.
//!
//! It is asked for phrases or for words. A phrase must fit the samples nearly as well as the best row of arbitrary phones does;
//! the engine would otherwise take most foreign speech for one of its phrases, and its own probability does not tell. Measured
//! with nine eSpeak NG voices and speeds over telephone audio, at a margin of 50, with 23 foreign sentences and words a voice:
//!
//! | phrases | recognised | taken for another | foreign speech taken for one |
//! | --- | --- | --- | --- |
//! | ten sentences of three to seven words | 98.9 % | 0 of 90 | 1 % |
//! | the same with `yes`, `no`, `help`, `opening hours` | 97.6 % | 0 of 126 | 2 % |
//! | ten, from `yes` and `no` to `I want to change my address` | 91.1 % | 1 of 90 | 4 % |
//! | seven, from `hello` to `where are you located` | 96.8 % | 0 of 63 | 11 % |
//!
//! Long phrases are safer than short ones, which foreign words resemble.

use super::{
    ffi::{Decoder, EngineError, Segment},
    proto::{Ask, Reply, Setup, read_frame},
    words::sounds,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, nice, set_parent_process_death_signal, setrlimit};
use std::{
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
};

/// Grammars kept compiled.
const GRAMMARS: usize = 32;

/// Decodes of one utterance with phrases, at most.
const TRIES: usize = 2;

/// A word that the dictionary lacks may be two of its words in one, of so many letters each, in so many ways.
const SHORTEST_HALF: usize = 3;
const WAYS: usize = 3;

const PHONES: &str = "phones";
const WORDS: &str = "words";

/// The process: asks in on stdin, replies out on stdout.
pub fn run() -> ExitCode {
    // Should the daemon be killed in the middle of a decode, nobody else would end this.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // Media threads come first.
    let _ = nice(5);
    match serve(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut engine: Option<Engine> = None;
    while let Some((ask, samples)) = read_frame(input)? {
        let reply = match (ask, &mut engine) {
            (Ask::Open(setup), engine) => limit_memory(setup.memory_mb)
                .map_err(|e| e.to_string())
                .and_then(|()| Engine::open(setup).map_err(|e| e.to_string()))
                .map(|opened| {
                    *engine = Some(opened);
                    Reply::Ready
                }),
            (ask, Some(engine)) => engine.answer(&ask, &samples).map_err(|e| e.to_string()),
            (_, None) => Err("the engine is not open".to_owned()),
        };
        serde_json::to_writer(&mut *output, &reply.unwrap_or_else(Reply::Failed))?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// Caps the address space at what is mapped already and so much more.
fn limit_memory(more_mb: u64) -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mapped = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let mapped_kb: u64 = mapped.and_then(|kb| kb.parse().ok()).unwrap_or(0);
    let limit = (mapped_kb << 10) + (more_mb << 20);
    let maximum = getrlimit(Resource::As).maximum;
    let current = Some(maximum.map_or(limit, |m| m.min(limit)));
    setrlimit(Resource::As, Rlimit { current, maximum })?;
    Ok(())
}

struct Engine {
    /// Searches for phrases and for phones.
    decoder: Decoder,
    /// For free speech, loaded when first asked for: its language model is large, and it wants the engine's own options.
    dictation: Option<Decoder>,
    setup: Setup,
    /// Compiled grammars, the one used last at the end.
    grammars: Vec<(Vec<String>, String)>,
    made: usize,
}

impl Engine {
    fn open(setup: Setup) -> Result<Self, EngineError> {
        let options = [
            // Wider than the engine's own: a telephone's band fits the model badly, and with the usual beams a fifth of the
            // phrases were lost on the way.
            ("-beam", "1e-120"),
            ("-pbeam", "1e-120"),
            ("-wbeam", "1e-100"),
            // Phones without their neighbours tell as much here, at a hundredth of the cost.
            ("-allphone_ci", "yes"),
            ("-lw", "2.0"),
        ];
        let model = Path::new(&setup.model);
        let mut decoder = Decoder::load(&setup.library, model, &options)?;
        decoder.add_phones(PHONES, &model.join("en-us-phone.lm.bin"))?;
        Ok(Self {
            decoder,
            dictation: None,
            setup,
            grammars: Vec::new(),
            made: 0,
        })
    }

    fn answer(&mut self, ask: &Ask, samples: &[i16]) -> Result<Reply, EngineError> {
        match ask {
            Ask::Open(_) => Err(EngineError::Refused("to be opened twice")),
            Ask::Prepare(phrases) => self.grammar(phrases).map(|_| Reply::Ready),
            Ask::Phrase(phrases) => self.phrase(phrases, samples),
            Ask::Words => self.words(samples),
        }
    }

    /// The name of the search for these phrases, compiled if it was not.
    fn grammar(&mut self, phrases: &[String]) -> Result<String, EngineError> {
        if let Some(at) = self.grammars.iter().position(|(p, _)| p == phrases) {
            let last = self.grammars.remove(at);
            self.grammars.push(last);
        } else {
            for word in phrases.iter().flat_map(|p| p.split(' ')) {
                if self.decoder.sounds(word).is_none() {
                    self.learn(word)?;
                }
            }
            let name = format!("grammar{}", self.made);
            self.made += 1;
            self.decoder.add_grammar(&name, &jsgf(phrases))?;
            if self.grammars.len() >= GRAMMARS {
                let (_, oldest) = self.grammars.remove(0);
                self.decoder.remove(&oldest);
            }
            self.grammars.push((phrases.to_vec(), name));
        }
        Ok(self.grammars.last().map(|(_, name)| name.clone()).unwrap_or_default())
    }

    /// Adds a word to the dictionary: as two of its words in one, and as its letters suggest.
    fn learn(&mut self, word: &str) -> Result<(), EngineError> {
        let halves = (SHORTEST_HALF..word.len().saturating_sub(SHORTEST_HALF - 1)).map(|at| word.split_at(at));
        let mut ways: Vec<String> = halves
            .filter_map(|(a, b)| Some(format!("{} {}", self.decoder.sounds(a)?, self.decoder.sounds(b)?)))
            .take(WAYS)
            .collect();
        ways.push(sounds(word));
        self.decoder.add_word(word, &ways[0])?;
        for (n, way) in ways.iter().enumerate().skip(1) {
            self.decoder.add_word(&format!("{word}({})", n + 1), way)?;
        }
        Ok(())
    }

    /// The phrase that the samples are. A short one that fits a part of them and leaves the rest to silence can beat a long one
    /// that fits them all; so where the best is refused, the longer ones are tried without it.
    fn phrase(&mut self, phrases: &[String], samples: &[i16]) -> Result<Reply, EngineError> {
        let mut candidates = phrases.to_vec();
        let mut phones = None;
        let mut least: Option<f64> = None;
        for _ in 0..TRIES {
            let grammar = self.grammar(&candidates)?;
            let Some((words, segments)) = self.decoder.decode(&grammar, samples)? else {
                break;
            };
            let phones = match &phones {
                Some(phones) => phones,
                None => match self.decoder.decode(PHONES, samples)? {
                    Some((_, segments)) => phones.insert(segments),
                    None => break,
                },
            };
            let deficit = deficit(&segments, phones);
            if deficit <= self.setup.margin
                && let Some(index) = phrases.iter().position(|p| *p == words)
            {
                return Ok(Reply::Phrase { index, deficit });
            }
            least = Some(least.map_or(deficit, |l| l.min(deficit)));
            candidates.retain(|p| p.len() > words.len());
            if candidates.is_empty() {
                break;
            }
        }
        Ok(Reply::Nothing { deficit: least })
    }

    fn words(&mut self, samples: &[i16]) -> Result<Reply, EngineError> {
        let dictation = match &mut self.dictation {
            Some(decoder) => decoder,
            None => {
                let model = Path::new(&self.setup.model);
                let mut decoder = Decoder::load(&self.setup.library, model, &[])?;
                decoder.add_words(WORDS, &model.join("en-us.lm.bin"))?;
                self.dictation.insert(decoder)
            }
        };
        let words = dictation.decode(WORDS, samples)?.map(|(words, _)| words);
        Ok(match words {
            Some(words) if !words.is_empty() => Reply::Words(words),
            _ => Reply::Nothing { deficit: None },
        })
    }
}

/// By how much the phones fit better than the words, for each frame that the words claim. What the words leave to silence counts
/// against them where it was none.
fn deficit(words: &[Segment], phones: &[Segment]) -> f64 {
    let score = |segments: &[Segment]| segments.iter().map(|s| s.score).sum::<i64>();
    let spoken: u32 = words
        .iter()
        .filter(|s| !s.word.starts_with(['<', '[', '+', '(']))
        .map(|s| s.frames)
        .sum();
    (score(phones) - score(words)) as f64 / f64::from(spoken.max(1))
}

/// A grammar of whole phrases.
fn jsgf(phrases: &[String]) -> String {
    format!(
        "#JSGF V1.0;\ngrammar phrases;\npublic <phrase> = {};\n",
        phrases.join(" | ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech::stt::pocketsphinx::proto::frame;

    fn replies(asks: &[(Ask, &[i16])]) -> Vec<Reply> {
        let input: Vec<u8> = asks.iter().flat_map(|(ask, samples)| frame(ask, samples)).collect();
        let mut output = Vec::new();
        serve(&mut &input[..], &mut output).unwrap();
        let lines = output.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[test]
    fn a_missing_library_is_a_sentence_that_helps() {
        let setup = Setup {
            library: "libnosuchsphinx.so.3".to_owned(),
            model: "/nowhere".to_owned(),
            memory_mb: 1 << 20,
            margin: 0.0,
        };
        let replies = replies(&[(Ask::Open(setup), &[]), (Ask::Words, &[0; 160])]);
        let [Reply::Failed(missing), Reply::Failed(unopened)] = &replies[..] else {
            panic!("{replies:?}")
        };
        assert!(
            missing.contains("libpocketsphinx3") && missing.contains("libnosuchsphinx"),
            "{missing}"
        );
        assert!(unopened.contains("not open"), "{unopened}");
    }

    #[test]
    fn silence_between_words_counts_against_them_where_it_was_none() {
        let segment = |word: &str, frames, score| Segment {
            word: word.to_owned(),
            frames,
            score,
        };
        let words = [
            segment("<sil>", 10, -100),
            segment("yes", 20, -500),
            segment("<sil>", 70, -7000),
        ];
        let phones = [segment("SIL", 10, -100), segment("Y", 90, -3600)];
        assert!((deficit(&words, &phones) - 195.0).abs() < 1e-9);
    }
}
