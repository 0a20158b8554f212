//! Every fuzz target over every file of its corpus, so that what was once mended stays so, and no target is without a corpus.

use sidetone::fuzzing::TARGETS;
use std::{collections::BTreeSet, fs, path::Path};

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_target_survives_its_corpus_whole_and_cut_anywhere() {
    for (name, body) in TARGETS {
        let files = fs::read_dir(corpus().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut count = 0;
        for file in files {
            let data = fs::read(file.unwrap().path()).unwrap();
            body(&data);
            (0..data.len()).step_by(7).for_each(|cut| body(&data[..cut]));
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
        body(&[]);
    }
}

#[test]
fn every_target_is_one_call_of_its_body() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let files: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(targets, files);
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    for name in &targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not built");
    }
}
