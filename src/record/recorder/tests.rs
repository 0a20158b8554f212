//! Recordings through real files: placed, bounded, valid at any moment, harmless when the disk is not there.

use super::*;
use crate::record::Side;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// Reads a stereo file: the frames that its header says it has.
fn read(path: &Path) -> Vec<(i16, i16)> {
    let bytes = std::fs::read(path).unwrap();
    let header = wav::WavHeader::parse(&bytes).unwrap();
    assert!(
        bytes.len() - header.data_at >= header.data_len.unwrap_or(0) as usize,
        "no byte is promised that is not there"
    );
    let wav = wav::Wav::parse(&bytes[..header.data_at + header.data_len.unwrap_or(0) as usize]).unwrap();
    assert_eq!((wav.rate, wav.channels), (8000, 2));
    wav.samples.chunks_exact(2).map(|f| (f[0], f[1])).collect()
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "it never came true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Desk {
    folder: TempDir,
    recorder: Recorder,
}

impl Desk {
    fn new(config: &Config) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            recorder: Recorder::start(config).unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("2024/call.wav")
    }

    fn until_written(&self) {
        until(|| self.recorder.live() == 0);
    }
}

#[test]
fn both_sides_are_in_their_places_and_gaps_are_silence() {
    let desk = Desk::new(&Config::default());
    let mut tap = desk.recorder.open(&desk.path()).unwrap();
    tap.push(Side::Caller, 100, &[1, 2, 3]);
    tap.push(Side::Agent, 102, &[-7, -8]);
    tap.push(Side::Caller, 5000, &[4]);
    drop(tap);
    desk.until_written();
    let frames = read(&desk.path());
    assert_eq!(frames.len(), 5001);
    assert_eq!(frames[99..105], [(0, 0), (1, 0), (2, 0), (3, -7), (0, -8), (0, 0)]);
    assert_eq!(frames[5000], (4, 0));
    let mode = std::fs::metadata(desk.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

/// The agent's clock runs 1 % fast, and its frames are placed on the caller's clock as the media thread does.
#[test]
fn a_side_that_drifts_is_placed_again_with_every_frame() {
    let desk = Desk::new(&Config::default());
    let mut tap = desk.recorder.open(&desk.path()).unwrap();
    for n in 0..200u64 {
        tap.push(Side::Caller, n * 160, &[n as i16; 160]);
        tap.push(Side::Agent, n * 160 * 99 / 100, &[n as i16; 160]);
        if n % 40 == 39 {
            until(|| tap.samples.slots() == tap.samples.buffer().capacity());
        }
    }
    drop(tap);
    desk.until_written();
    for (n, (caller, agent)) in read(&desk.path()).into_iter().enumerate() {
        assert_eq!(caller, (n / 160) as i16);
        let newest = (0..200).rev().find(|k| k * 160 * 99 / 100 <= n).unwrap() as i16;
        assert!(agent == newest || n >= 199 * 160 * 99 / 100 + 160, "frame {n}");
    }
}

#[test]
fn the_file_is_valid_while_the_call_goes_on() {
    let desk = Desk::new(&Config::default());
    let mut tap = desk.recorder.open(&desk.path()).unwrap();
    let mut at = 0;
    until(|| {
        tap.push(Side::Caller, at, &[5; 160]);
        at += 160;
        let frames = read(&desk.path());
        assert!(frames.iter().all(|f| *f == (5, 0)));
        frames.len() > 8000
    });
}

#[test]
fn a_recorder_that_stops_completes_its_files() {
    let desk = Desk::new(&Config::default());
    let path = desk.path();
    let mut tap = desk.recorder.open(&path).unwrap();
    tap.push(Side::Agent, 0, &[1, 2, 3]);
    let Desk { folder, recorder } = desk;
    drop(recorder);
    assert_eq!(read(&path), [(0, 1), (0, 2), (0, 3)]);
    drop(folder);
}

#[test]
fn recordings_are_bounded_and_a_place_is_free_again() {
    let config = Config {
        max_recordings: 1,
        ..Config::default()
    };
    let desk = Desk::new(&config);
    let first = desk.recorder.open(&desk.path()).unwrap();
    let other = desk.folder.path().join("other.wav");
    assert!(matches!(
        desk.recorder.open(&other),
        Err(RecordError::TooMany { limit: 1 })
    ));
    drop(first);
    desk.until_written();
    desk.recorder.open(&other).unwrap();
}

#[test]
fn a_file_that_cannot_be_made_is_said_and_an_old_one_is_never_overwritten() {
    let desk = Desk::new(&Config::default());
    let file = desk.folder.path().join("file");
    std::fs::write(&file, "old").unwrap();
    for path in [file.join("call.wav"), file.clone()] {
        let refused = desk.recorder.open(&path).unwrap_err();
        assert!(matches!(refused, RecordError::File { .. }), "{refused}");
    }
    assert_eq!(std::fs::read(file).unwrap(), b"old");
    assert_eq!(desk.recorder.live(), 0);
}

/// `/dev/full` answers every write with "no space left on device".
#[test]
fn a_full_disk_ends_the_recording_and_the_tap_goes_on_dropping() {
    let (samples_tx, samples) = RingBuffer::new(1000);
    let (spans_tx, spans) = RingBuffer::new(10);
    let mut tap = TapTx::new(samples_tx, spans_tx);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut recording = Recording::new("/dev/full".into(), full, samples, spans, u64::MAX);
    tap.push(Side::Caller, RATE, &[1; 100]);
    assert!(!recording.pump(Mono::from_millis(10_000)));
    drop(recording);
    for n in 0..20 {
        tap.push(Side::Caller, RATE + n * 160, &[1; 160]);
    }
    assert!(tap.lost() > 0);
}
