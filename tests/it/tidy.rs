//! Fences of the house, read from the source text: imports only go down, `unsafe` and vendors' names stay in their rooms,
//! every file says what it is, and nothing is left half done.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Layers from the bottom; modules of one layer never import each other.
const LAYERS: &[&[&str]] = &[
    &["base", "metrics"],
    &["audio", "wire", "net"],
    &["vendor"],
    &["store", "bus", "record"],
    &["media", "speech", "llm"],
    &["agent", "shard", "access"],
    &["control", "jobs"],
    &["hub"],
    &["http"],
    &["config", "sim"],
    &["app"],
    &["cli", "fuzzing"],
];

/// Where `unsafe` may be written, besides tests that count allocations.
const UNSAFE_ROOMS: &[&str] = &["src/audio/", "src/speech/stt/pocketsphinx/"];

/// Files that are longer than 800 lines, each with the reason.
const LONG: &[(&str, &str)] = &[];

struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
    /// Comments and literals blanked out; lines kept.
    code: String,
    /// Comments blanked out; lines kept.
    words: String,
}

impl Source {
    fn line_of(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count()
    }

    /// The module under `src/` that the file belongs to, or `None` for the root and tests.
    fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let name = rest.split('/').next()?.trim_end_matches(".rs");
        (!matches!(name, "lib" | "main")).then_some(name)
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The code before the file's `#[cfg(test)] mod … {` block, which is its last item.
    fn shipped(&self) -> &str {
        const TESTS: &str = "#[cfg(test)]\nmod ";
        let block = self.code.match_indices(TESTS).find(|(at, _)| {
            let rest = &self.code[at + TESTS.len()..];
            rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                .trim_start()
                .starts_with('{')
        });
        block.map_or(&self.code, |(at, _)| &self.code[..at])
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        walk(&root().join(folder), &mut found);
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let (code, words) = (blank(&text, true), blank(&text, false));
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source {
                path,
                text,
                code,
                words,
            });
        }
    }
}

/// Replaces comments, and literals too where asked, by spaces, byte for byte, keeping lines.
fn blank(text: &str, literals: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let end = match bytes[i] {
            b'/' if bytes[i..].starts_with(b"//") => find(bytes, i, b"\n"),
            b'/' if bytes[i..].starts_with(b"/*") => block_comment(bytes, i),
            b'"' => string(bytes, i + 1),
            b'r' if !follows_word(bytes, i) && raw_string(bytes, i).is_some() => raw_string(bytes, i).unwrap_or(i + 1),
            b'\'' => match character(bytes, i) {
                Some(end) => end,
                None => {
                    i += 1;
                    continue;
                }
            },
            _ => {
                i += 1;
                continue;
            }
        };
        if literals || bytes[i] == b'/' {
            out[i..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
        i = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..]
        .windows(what.len())
        .position(|w| w == what)
        .map_or(bytes.len(), |at| from + at)
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b'
}

fn block_comment(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if bytes[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    i
}

fn string(bytes: &[u8], mut i: usize) -> usize {
    while i < bytes.len() && bytes[i] != b'"' {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(bytes.len())
}

fn raw_string(bytes: &[u8], from: usize) -> Option<usize> {
    let hashes = bytes[from + 1..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(from + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
    Some((find(bytes, from + 2 + hashes, &close) + close.len()).min(bytes.len()))
}

/// A character literal, as opposed to a lifetime.
fn character(bytes: &[u8], from: usize) -> Option<usize> {
    match bytes.get(from + 1)? {
        b'\\' => Some(find(bytes, from + 3, b"'") + 1),
        _ => {
            let end = find(bytes, from + 1, b"'");
            (end - from <= 5 && end > from + 1 && std::str::from_utf8(&bytes[from + 1..end]).ok()?.chars().count() == 1)
                .then_some(end + 1)
        }
    }
}

/// Every module that `code` names as `crate::x` or `sidetone::x`, grouped imports included, with the position.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && depth == 0 && !c.is_whitespace() => {
                        found.push((at + i, word(&group[i..])));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push((at, word(rest)));
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&module))
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

#[test]
fn imports_only_go_down() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some(own) = layer(module) else {
            faults.push(format!("{}: the module {module} is in no layer", source.path));
            continue;
        };
        for (at, target) in crate_paths(source.shipped()) {
            if target == module {
                continue;
            }
            match layer(&target) {
                Some(other) if other < own => {}
                Some(_) => faults.push(format!(
                    "{}:{}: {module} imports {target}, which is not below it",
                    source.path,
                    source.line_of(at)
                )),
                None => faults.push(format!(
                    "{}:{}: crate::{target} is in no layer",
                    source.path,
                    source.line_of(at)
                )),
            }
        }
    }
    report(faults);
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let mut faults = Vec::new();
    for source in sources() {
        let allowed =
            UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room)) || source.path.starts_with("tests/");
        for (at, _) in source.code.match_indices("unsafe") {
            let whole = word(&source.code[at..]) == "unsafe" && !source.code[..at].ends_with(['_', '(']);
            if whole && !allowed {
                faults.push(format!("{}:{}: unsafe", source.path, source.line_of(at)));
            }
            if whole && source.code[at..].starts_with("unsafe {") && !explained(&source, at) {
                faults.push(format!("{}:{}: no SAFETY line above", source.path, source.line_of(at)));
            }
        }
    }
    report(faults);
}

/// Whether one of the few lines above says why the block is sound.
fn explained(source: &Source, at: usize) -> bool {
    let line = source.line_of(at);
    let lines: Vec<&str> = source.text.lines().collect();
    let above = &lines[line.saturating_sub(8)..line];
    above.iter().any(|l| l.contains("SAFETY:"))
}

#[test]
fn vendors_are_named_only_in_their_folders() {
    let folders: Vec<String> = fs::read_dir(root().join("src/vendor"))
        .unwrap()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    let mut faults = Vec::new();
    for source in sources() {
        if source.is_test() || source.path == "src/vendor/mod.rs" {
            continue;
        }
        // Literals count: a name in a string is a name. The names in comments and unit tests do not.
        let shipped = source.shipped().len();
        for (n, line) in source.words[..shipped].lines().enumerate() {
            let text = line.to_lowercase();
            for name in &folders {
                if text.contains(name.as_str()) && !source.path.starts_with(&format!("src/vendor/{name}")) {
                    faults.push(format!("{}:{}: names {name}", source.path, n + 1));
                }
            }
        }
    }
    report(faults);
}

#[test]
fn every_file_says_what_it_is() {
    let faults = sources()
        .iter()
        .filter(|s| !s.text.starts_with("//! "))
        .map(|s| format!("{}: does not open with //!", s.path))
        .collect();
    report(faults);
}

#[test]
fn nothing_is_left_half_done() {
    let mut faults = Vec::new();
    for source in sources() {
        for mark in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "allow(dead_code)"] {
            for (at, _) in source.code.match_indices(mark) {
                faults.push(format!("{}:{}: {mark}", source.path, source.line_of(at)));
            }
        }
        if source.path == "tests/it/tidy.rs" {
            continue;
        }
        for mark in ["FIXME", "XXX", "TODO"] {
            for (at, _) in source.text.match_indices(mark) {
                faults.push(format!("{}:{}: {mark}", source.path, source.line_of(at)));
            }
        }
    }
    report(faults);
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let reasons: BTreeMap<_, _> = LONG.iter().copied().collect();
    let faults = sources()
        .iter()
        .filter(|s| s.text.lines().count() > 800 && !reasons.contains_key(s.path.as_str()))
        .map(|s| format!("{}: {} lines", s.path, s.text.lines().count()))
        .collect();
    report(faults);
}

#[test]
fn the_reader_of_sources_is_not_fooled() {
    let text = r##"
// crate::http is only talked about
/* crate::app /* nested */ still */
const A: &str = "crate::cli \" and more";
const B: &str = r#"crate::hub "quoted" "#;
const C: char = '"';
fn f<'a>(x: &'a str) -> crate::base::Thing { crate::{audio::{ring, wav}, vendor}; x }
"##;
    let code = blank(text, true);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.lines().count(), text.lines().count());
    let names: Vec<String> = crate_paths(&code).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["base", "audio", "vendor"]);
    let words = blank(text, false);
    assert!(words.contains("and more") && !words.contains("nested"));
}
