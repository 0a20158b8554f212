//! The driver against programs that misbehave: small shell scripts in the place of `espeak-ng`.

use super::{Config, driver::Driver};
use crate::speech::tts::{Pcm, TtsError};
use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// A WAVE header that promises no length, at 8 kHz mono, as `printf` writes it.
const HEADER: &str = r"printf 'RIFF\000\360\377\177WAVEfmt \020\000\000\000\001\000\001\000\100\037\000\000\200\076\000\000\002\000\020\000data\000\360\377\177'";

struct Bench {
    folder: tempfile::TempDir,
    driver: Driver,
}

/// A driver of `script` that keeps no process ready.
fn bench(script: &str) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("espeak");
    let dir = folder.path().display();
    std::fs::write(
        &program,
        format!("#!/bin/sh\n[ \"$1\" != probe ] || exit 0\ncd {dir} || exit 1\necho $$ >>pids\n{script}\n"),
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    // A process that another test forks meanwhile holds the file open for writing until it is replaced: wait for its end.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(e) = std::process::Command::new(&program).arg("probe").status() {
        assert!(
            e.kind() == std::io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline,
            "{e}"
        );
        std::thread::yield_now();
    }
    let driver = Driver::new(Config {
        program: program.display().to_string(),
        rate: 160,
        first_audio: Duration::from_millis(1000),
        limit: Duration::from_millis(2000),
        ready_voices: 0,
    });
    Bench { folder, driver }
}

impl Bench {
    async fn speak(&self, text: &str) -> (Result<(), TtsError>, Vec<i16>) {
        let (out, mut audio) = mpsc::channel::<Pcm>(1000);
        let outcome = self.driver.speak(text, "en-us", &out).await;
        drop(out);
        let mut samples = Vec::new();
        while let Some(pcm) = audio.recv().await {
            assert_eq!(pcm.rate, 8000);
            samples.extend(pcm.samples);
        }
        (outcome, samples)
    }

    /// Who was started, once there are `n`.
    async fn pids_of(&self, n: usize) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let pids = std::fs::read_to_string(self.folder.path().join("pids")).unwrap_or_default();
            let pids: Vec<_> = pids.lines().map(str::to_owned).collect();
            if pids.len() >= n {
                return pids;
            }
            assert!(Instant::now() < deadline, "{pids:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether a process has not ended, as one has that is only to be reaped.
fn runs(pid: &str) -> bool {
    Path::new(&format!("/proc/{pid}/fd/0")).exists()
}

async fn gone(pid: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn words_go_in_on_stdin_and_samples_come_out() {
    let b = bench(&format!("cat >words; echo \"$*\" >args; {HEADER}; printf 'abcde'"));
    let (outcome, samples) = b.speak("-w evil words").await;
    assert_eq!(
        (outcome, samples),
        (Ok(()), vec![0x6261, 0x6463]),
        "and half a sample is none"
    );
    let read = |name: &str| std::fs::read_to_string(b.folder.path().join(name)).unwrap();
    assert_eq!(read("words"), "-w evil words");
    assert_eq!(read("args"), "-b 1 -v en-us -s 160 --stdin --stdout\n");
}

#[tokio::test]
async fn the_next_process_is_ready_and_ends_with_the_driver() {
    let mut b = bench(&format!("cat >/dev/null; {HEADER}; printf 'ab'"));
    b.driver.config.ready_voices = 1;
    b.speak("one").await.0.unwrap();
    b.speak("two").await.0.unwrap();
    let pids = b.pids_of(3).await;
    assert_eq!(
        pids.iter().filter(|pid| runs(pid)).count(),
        1,
        "two have spoken, one waits"
    );
    let Bench {
        driver,
        folder: _folder,
    } = b;
    drop(driver);
    for pid in pids {
        gone(&pid).await;
    }
}

#[tokio::test]
async fn a_process_that_says_nothing_is_killed_and_tried_again_once() {
    let b = bench("cat >/dev/null; exec sleep 60");
    let (outcome, samples) = b.speak("hello").await;
    let Err(TtsError::Lost(message)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(message.contains("gave no audio within 1s"), "{message}");
    assert!(samples.is_empty());
    for pid in &b.pids_of(2).await {
        gone(pid).await;
    }
}

#[tokio::test]
async fn a_process_that_never_ends_is_killed() {
    let b = bench(&format!("cat >/dev/null; {HEADER}; printf 'ab'; exec sleep 60"));
    let (outcome, samples) = b.speak("hello").await;
    assert!(
        matches!(&outcome, Err(TtsError::Lost(m)) if m.contains("end")),
        "{outcome:?}"
    );
    assert_eq!(samples.len(), 1);
    gone(&b.pids_of(1).await[0]).await;
}

#[tokio::test]
async fn a_process_killed_while_it_waited_is_replaced_unheard() {
    let mut b = bench(&format!(
        "[ -e dead ] || {{ touch dead; exit 9; }}; cat >/dev/null; {HEADER}; printf 'ab'"
    ));
    b.driver.config.ready_voices = 1;
    b.driver.prepare("en-us");
    gone(&b.pids_of(1).await[0]).await;
    let (outcome, samples) = b.speak("hello").await;
    assert_eq!((outcome, samples.len()), (Ok(()), 1));
}

#[tokio::test]
async fn dropping_a_synthesis_kills_its_process() {
    let b = bench(&format!("cat >/dev/null; {HEADER}; printf 'ab'; exec sleep 60"));
    let (out, mut audio) = mpsc::channel::<Pcm>(10);
    {
        let speaking = b.driver.speak("hello", "en-us", &out);
        tokio::pin!(speaking);
        tokio::select! {
            _ = &mut speaking => panic!("it never ends"),
            pcm = audio.recv() => assert_eq!(pcm.unwrap().samples.len(), 1),
        }
    }
    gone(&b.pids_of(1).await[0]).await;
}

#[tokio::test]
async fn what_went_wrong_is_said_so_that_a_person_can_act() {
    let cases = [
        (
            "echo 'Error: The specified espeak-ng voice does not exist.' >&2; exit 1",
            "no voice \"en-us\"",
        ),
        ("cat >/dev/null; echo 'no data' >&2; exit 3", "no data"),
        ("cat >/dev/null; echo hello hello", "not a RIFF/WAVE file"),
    ];
    for (script, expected) in cases {
        let (outcome, _) = bench(script).speak("hello").await;
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let mut b = bench("");
    b.driver.config.program = "/nowhere/espeak-ng".to_owned();
    let message = b.speak("hello").await.0.unwrap_err().to_string();
    assert!(message.contains("install the package espeak-ng"), "{message}");
}
