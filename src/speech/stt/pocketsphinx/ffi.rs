//! PocketSphinx's C library, opened at run time: the calls that are needed, made safe.
//!
//! The API is that of version 0.8 (`5prealpha`), Debian 12's `libpocketsphinx3`. Version 5 has another ABI: it is recognised and
//! refused with a message of its own. Used by worker processes alone, one decoder each, on one thread.

#![allow(unsafe_code)]

use super::proto::RATE;
use libloading::{Library, os::unix};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    fmt,
    path::Path,
    ptr,
};

/// The library that holds the command-line parser, logging and allocation; a dependency of the other.
const BASE: &str = "libsphinxbase.so.3";

/// Why the engine cannot be used.
#[derive(Debug)]
pub(super) enum EngineError {
    /// The library could not be opened.
    NoLibrary(String),
    /// It is version 5.
    NewerVersion,
    /// It lacks a function.
    NoFunction(&'static str),
    /// The model cannot be loaded.
    NoModel(String),
    /// A call failed.
    Refused(&'static str),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLibrary(error) => write!(
                f,
                "PocketSphinx is not installed ({error}): install the packages libpocketsphinx3 and pocketsphinx-en-us, \
                 or set speech.stt.pocketsphinx.library"
            ),
            Self::NewerVersion => f.write_str(
                "the PocketSphinx found is version 5, whose interface is another: version 0.8 is needed, \
                 the package libpocketsphinx3 of Debian 12",
            ),
            Self::NoFunction(name) => write!(
                f,
                "the PocketSphinx library has no function {name}: it is another version"
            ),
            Self::NoModel(path) => write!(
                f,
                "PocketSphinx cannot load its model from {path}: install the package pocketsphinx-en-us, \
                 or set speech.stt.pocketsphinx.model"
            ),
            Self::Refused(call) => write!(f, "PocketSphinx refused {call}"),
        }
    }
}

impl std::error::Error for EngineError {}

type Handle = *mut c_void;

/// The functions, as long as the libraries are open.
struct Functions {
    cmd_ln_parse_r: unsafe extern "C" fn(Handle, Handle, c_int, *const *const c_char, c_int) -> Handle,
    cmd_ln_free_r: unsafe extern "C" fn(Handle) -> c_int,
    err_set_logfp: unsafe extern "C" fn(Handle),
    ckd_free: unsafe extern "C" fn(Handle),
    ps_args: unsafe extern "C" fn() -> Handle,
    ps_init: unsafe extern "C" fn(Handle) -> Handle,
    ps_free: unsafe extern "C" fn(Handle) -> c_int,
    ps_start_utt: unsafe extern "C" fn(Handle) -> c_int,
    ps_process_raw: unsafe extern "C" fn(Handle, *const i16, usize, c_int, c_int) -> c_int,
    ps_end_utt: unsafe extern "C" fn(Handle) -> c_int,
    ps_get_hyp: unsafe extern "C" fn(Handle, *mut i32) -> *const c_char,
    ps_set_jsgf_string: unsafe extern "C" fn(Handle, *const c_char, *const c_char) -> c_int,
    ps_set_allphone_file: unsafe extern "C" fn(Handle, *const c_char, *const c_char) -> c_int,
    ps_set_lm_file: unsafe extern "C" fn(Handle, *const c_char, *const c_char) -> c_int,
    ps_set_search: unsafe extern "C" fn(Handle, *const c_char) -> c_int,
    ps_unset_search: unsafe extern "C" fn(Handle, *const c_char) -> c_int,
    ps_add_word: unsafe extern "C" fn(Handle, *const c_char, *const c_char, c_int) -> c_int,
    ps_lookup_word: unsafe extern "C" fn(Handle, *const c_char) -> *mut c_char,
    ps_seg_iter: unsafe extern "C" fn(Handle) -> Handle,
    ps_seg_next: unsafe extern "C" fn(Handle) -> Handle,
    ps_seg_word: unsafe extern "C" fn(Handle) -> *const c_char,
    ps_seg_frames: unsafe extern "C" fn(Handle, *mut c_int, *mut c_int),
    ps_seg_prob: unsafe extern "C" fn(Handle, *mut i32, *mut i32, *mut i32) -> i32,
}

/// Opens a library with its own symbols only.
fn open(name: &str) -> Result<Library, EngineError> {
    // SAFETY: the library's initialisers run; those of PocketSphinx and SphinxBase set up nothing that needs care.
    let library = unsafe { unix::Library::open(Some(name), unix::RTLD_NOW | unix::RTLD_LOCAL) };
    library.map(Library::from).map_err(|e| {
        EngineError::NoLibrary(match e {
            libloading::Error::DlOpen { source } => source.to_string(),
            other => other.to_string(),
        })
    })
}

/// Looks a function up.
///
/// # Safety
/// `F` must be the function's type.
unsafe fn function<F: Copy>(library: &Library, name: &'static str) -> Result<F, EngineError> {
    // SAFETY: the caller vouches for the type.
    let symbol = unsafe { library.get::<F>(name) };
    symbol.map(|s| *s).map_err(|_| EngineError::NoFunction(name))
}

impl Functions {
    fn of(ps: &Library, base: &Library) -> Result<Self, EngineError> {
        macro_rules! all {
            ($($library:ident: $($name:ident)*;)*) => {
                // SAFETY: the fields' types are those of the headers of version 0.8, which the caller has made sure of.
                Ok(unsafe { Self { $($($name: function($library, stringify!($name))?,)*)* } })
            };
        }
        all! {
            base: cmd_ln_parse_r cmd_ln_free_r err_set_logfp ckd_free;
            ps: ps_args ps_init ps_free ps_start_utt ps_process_raw ps_end_utt ps_get_hyp ps_set_jsgf_string
                ps_set_allphone_file ps_set_lm_file ps_set_search ps_unset_search ps_add_word ps_lookup_word
                ps_seg_iter ps_seg_next ps_seg_word ps_seg_frames ps_seg_prob;
        }
    }
}

/// Whether a library is version 5, which has configuration objects.
fn is_newer(library: &Library) -> bool {
    // SAFETY: the symbol is looked up and never used.
    unsafe { library.get::<unsafe extern "C" fn()>("ps_config_init") }.is_ok()
}

/// A decoder with its models.
pub(super) struct Decoder {
    functions: Functions,
    handle: Handle,
    /// Unloaded after the decoder is freed, the dependent one first.
    _libraries: (Library, Library),
}

/// A stretch of a decoded utterance: a word, a phone, or silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The word, with a number in parentheses for another way to say it; silence and noises begin with `<`, `[` or `+`.
    pub(super) word: String,
    /// How many frames of 10 ms it lasts.
    pub(super) frames: u32,
    /// How well it fits: 0 is best, more negative is worse.
    pub(super) score: i64,
}

impl Decoder {
    /// Loads the library and the acoustic model for samples at [`RATE`], with these options (names with their dashes, and values).
    pub(super) fn load(library: &str, model: &Path, options: &[(&str, &str)]) -> Result<Self, EngineError> {
        let ps = match open(library) {
            Ok(ps) => ps,
            Err(error) => {
                let newer = ["libpocketsphinx.so.5", "libpocketsphinx.so"]
                    .iter()
                    .filter_map(|n| open(n).ok())
                    .any(|l| is_newer(&l));
                return Err(if newer { EngineError::NewerVersion } else { error });
            }
        };
        if is_newer(&ps) {
            return Err(EngineError::NewerVersion);
        }
        let base = open(BASE)?;
        let functions = Functions::of(&ps, &base)?;
        let (hmm, dictionary) = (model.join("en-us"), model.join("cmudict-en-us.dict"));
        let paths = [("-hmm", hmm.to_str()), ("-dict", dictionary.to_str())];
        let no_model = || EngineError::NoModel(model.display().to_string());
        let mut words = vec![CString::default()];
        for (name, path) in paths {
            words.extend([text(name), text(path.ok_or_else(no_model)?)]);
        }
        words.extend([text("-samprate"), text(&RATE.to_string())]);
        words.extend(options.iter().flat_map(|(name, value)| [text(name), text(value)]));
        let words: Vec<_> = words.iter().map(|w| w.as_ptr()).collect();
        // SAFETY: a null file turns logging off. The options are as many null-terminated texts as said, and outlive the parse,
        // which copies them. The decoder keeps its own reference to the configuration.
        let handle = unsafe {
            (functions.err_set_logfp)(ptr::null_mut());
            let definitions = (functions.ps_args)();
            let config =
                (functions.cmd_ln_parse_r)(ptr::null_mut(), definitions, words.len() as c_int, words.as_ptr(), 1);
            if config.is_null() {
                return Err(EngineError::Refused("its options"));
            }
            let handle = (functions.ps_init)(config);
            (functions.cmd_ln_free_r)(config);
            handle
        };
        if handle.is_null() {
            return Err(no_model());
        }
        Ok(Self {
            functions,
            handle,
            _libraries: (ps, base),
        })
    }

    /// How a word of the dictionary is said (ARPAbet), if it has it.
    pub(super) fn sounds(&self, word: &str) -> Option<String> {
        let word = text(word);
        // SAFETY: the decoder is alive; the text returned is null-terminated, and ours to free with the engine's own function.
        unsafe {
            let sounds = (self.functions.ps_lookup_word)(self.handle, word.as_ptr());
            if sounds.is_null() {
                return None;
            }
            let copy = CStr::from_ptr(sounds).to_string_lossy().into_owned();
            (self.functions.ckd_free)(sounds.cast());
            Some(copy)
        }
    }

    /// Adds a word with its sounds (ARPAbet), or another way to say it, as `word(2)`. Searches made before do not learn it.
    pub(super) fn add_word(&mut self, word: &str, sounds: &str) -> Result<(), EngineError> {
        let (word, sounds) = (text(word), text(sounds));
        // SAFETY: the decoder is alive and the texts are copied.
        let id = unsafe { (self.functions.ps_add_word)(self.handle, word.as_ptr(), sounds.as_ptr(), 0) };
        if id < 0 {
            Err(EngineError::Refused("a word"))
        } else {
            Ok(())
        }
    }

    /// Makes a search for a grammar (JSGF).
    pub(super) fn add_grammar(&mut self, name: &str, jsgf: &str) -> Result<(), EngineError> {
        let (name, jsgf) = (text(name), text(jsgf));
        // SAFETY: the decoder is alive and the texts are copied.
        let code = unsafe { (self.functions.ps_set_jsgf_string)(self.handle, name.as_ptr(), jsgf.as_ptr()) };
        done(code, "a grammar")
    }

    /// Makes a search for rows of phones, from a phone model.
    pub(super) fn add_phones(&mut self, name: &str, file: &Path) -> Result<(), EngineError> {
        let (name, path) = (text(name), text(&file.to_string_lossy()));
        // SAFETY: as above.
        let code = unsafe { (self.functions.ps_set_allphone_file)(self.handle, name.as_ptr(), path.as_ptr()) };
        done(code, "").map_err(|_| EngineError::NoModel(file.display().to_string()))
    }

    /// Makes a search for free speech, from a language model.
    pub(super) fn add_words(&mut self, name: &str, file: &Path) -> Result<(), EngineError> {
        let (name, path) = (text(name), text(&file.to_string_lossy()));
        // SAFETY: as above.
        let code = unsafe { (self.functions.ps_set_lm_file)(self.handle, name.as_ptr(), path.as_ptr()) };
        done(code, "").map_err(|_| EngineError::NoModel(file.display().to_string()))
    }

    /// Frees a search.
    pub(super) fn remove(&mut self, name: &str) {
        let name = text(name);
        // SAFETY: the decoder is alive; a name it does not know is refused.
        unsafe { (self.functions.ps_unset_search)(self.handle, name.as_ptr()) };
    }

    /// Decodes a whole utterance (16 kHz) with a search: the words, if any fit, and their segments.
    ///
    /// Given whole, the cepstral mean is that of the utterance, so nothing of the one before has a part in it.
    pub(super) fn decode(
        &mut self,
        search: &str,
        samples: &[i16],
    ) -> Result<Option<(String, Vec<Segment>)>, EngineError> {
        let f = &self.functions;
        let search = text(search);
        // SAFETY: the decoder is alive, the samples are as many as said, and the calls come in the order the engine wants.
        let words = unsafe {
            done((f.ps_set_search)(self.handle, search.as_ptr()), "a search")?;
            done((f.ps_start_utt)(self.handle), "an utterance")?;
            let frames = (f.ps_process_raw)(self.handle, samples.as_ptr(), samples.len(), 0, 1);
            done((f.ps_end_utt)(self.handle), "the end of an utterance")?;
            if frames < 0 {
                return Err(EngineError::Refused("the samples"));
            }
            let words = (f.ps_get_hyp)(self.handle, ptr::null_mut());
            if words.is_null() {
                return Ok(None);
            }
            // Valid until the next utterance; copied here.
            CStr::from_ptr(words).to_string_lossy().into_owned()
        };
        Ok(Some((words, self.segments())))
    }

    /// The segments of the utterance decoded last.
    fn segments(&self) -> Vec<Segment> {
        let f = &self.functions;
        let mut segments = Vec::new();
        // SAFETY: the decoder is alive and no utterance is begun meanwhile. Each step takes the iterator and gives it back, or
        // frees it at the end. The word is the dictionary's own text; the numbers are written where the pointers say.
        unsafe {
            let mut at = (f.ps_seg_iter)(self.handle);
            while !at.is_null() {
                let (mut from, mut to) = (0, -1);
                let (mut acoustic, mut language, mut backoff) = (0, 0, 0);
                (f.ps_seg_frames)(at, &raw mut from, &raw mut to);
                (f.ps_seg_prob)(at, &raw mut acoustic, &raw mut language, &raw mut backoff);
                let word = (f.ps_seg_word)(at);
                if !word.is_null() {
                    segments.push(Segment {
                        word: CStr::from_ptr(word).to_string_lossy().into_owned(),
                        frames: (to - from + 1).max(0) as u32,
                        score: i64::from(acoustic),
                    });
                }
                at = (f.ps_seg_next)(at);
            }
        }
        segments
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: freed once, and the libraries are unloaded afterwards.
        unsafe { (self.functions.ps_free)(self.handle) };
    }
}

/// A C text; what follows a null character is cut off.
fn text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

fn done(code: c_int, what: &'static str) -> Result<(), EngineError> {
    if code < 0 {
        Err(EngineError::Refused(what))
    } else {
        Ok(())
    }
}
