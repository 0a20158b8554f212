//! Recordings through real files: placed, bounded, valid at any moment, harmless when the disk is not there.

use super::*;
use crate::{
    audio::{ogg, wav},
    record::Side,
};
use std::{fs::OpenOptions, os::unix::fs::PermissionsExt};
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
    let mut tap = desk.recorder.open(&desk.path(), desk.recorder.format()).unwrap();
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
    let mut tap = desk.recorder.open(&desk.path(), desk.recorder.format()).unwrap();
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
    let mut tap = desk.recorder.open(&desk.path(), desk.recorder.format()).unwrap();
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
    let mut tap = desk.recorder.open(&path, desk.recorder.format()).unwrap();
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
    let first = desk.recorder.open(&desk.path(), desk.recorder.format()).unwrap();
    let other = desk.folder.path().join("other.wav");
    assert!(matches!(
        desk.recorder.open(&other, desk.recorder.format()),
        Err(RecordError::TooMany { limit: 1 })
    ));
    drop(first);
    desk.until_written();
    desk.recorder.open(&other, desk.recorder.format()).unwrap();
}

#[test]
fn a_file_that_cannot_be_made_is_said_and_an_old_one_is_never_overwritten() {
    let desk = Desk::new(&Config::default());
    let file = desk.folder.path().join("file");
    std::fs::write(&file, "old").unwrap();
    for path in [file.join("call.wav"), file.clone()] {
        let refused = desk.recorder.open(&path, desk.recorder.format()).unwrap_err();
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
    let sink = Sink::on(full, Format::Wav, 0);
    let mut recording = Recording::new("/dev/full".into(), sink, samples, spans, u64::MAX);
    tap.push(Side::Caller, RATE, &[1; 100]);
    assert!(!recording.pump(Mono::from_millis(10_000)));
    drop(recording);
    for n in 0..20 {
        tap.push(Side::Caller, RATE + n * 160, &[1; 160]);
    }
    assert!(tap.lost() > 0);
}

fn opus() -> Config {
    Config {
        format: Format::Opus,
        ..Config::default()
    }
}

/// The power of a tone of `hz` in samples at 8 kHz, and that of all else, as amplitudes.
fn tone(samples: &[i16], hz: f64) -> (f64, f64) {
    let (mut s, mut c, mut all) = (0.0, 0.0, 0.0);
    for (n, x) in samples.iter().enumerate() {
        let (sin, cos) = (n as f64 * hz * std::f64::consts::TAU / 8000.0).sin_cos();
        (s, c) = (s + f64::from(*x) * sin, c + f64::from(*x) * cos);
        all += f64::from(*x).powi(2);
    }
    let n = samples.len() as f64;
    let power = (s * s + c * c) * 2.0 / n;
    ((power * 2.0 / n).sqrt(), ((all - power).max(0.0) * 2.0 / n).sqrt())
}

/// A second of the tone of each side, in its place; between them silence.
fn two_sides(tap: &mut TapTx) {
    use crate::audio::tone::Sine;
    let mut second = [0; 8000];
    Sine::new(8000, 500.0, 8000.0).fill(&mut second);
    for (n, frame) in second.chunks(160).enumerate() {
        tap.push(Side::Caller, 800 + n as u64 * 160, frame);
    }
    Sine::new(8000, 900.0, 6000.0).fill(&mut second);
    for (n, frame) in second.chunks(160).enumerate() {
        tap.push(Side::Agent, 12_000 + n as u64 * 160, frame);
    }
}

#[test]
fn an_opus_recording_holds_each_side_in_its_place_and_neither_in_the_other() {
    let config = Config {
        buffer: Duration::from_secs(5),
        ..opus()
    };
    let desk = Desk::new(&config);
    let path = desk.folder.path().join("call.opus");
    let mut tap = desk.recorder.open(&path, desk.recorder.format()).unwrap();
    two_sides(&mut tap);
    assert_eq!(tap.lost(), 0);
    drop(tap);
    desk.until_written();
    let file = std::fs::read(&path).unwrap();
    let sides = ogg::read(&file).unwrap();
    assert!(sides.complete);
    assert_eq!(
        (sides.rate, sides.left.len(), sides.right.len()),
        (8000, 20_000, 20_000)
    );
    for (side, begin, hz, amplitude) in [(&sides.left, 800, 500.0, 8000.0), (&sides.right, 12_000, 900.0, 6000.0)] {
        let (heard, else_) = tone(&side[begin + 1000..begin + 7000], hz);
        assert!((heard / amplitude - 1.0).abs() < 0.1, "{heard:.0} of {amplitude}");
        assert!(else_ < amplitude / 10.0, "{else_:.0} beside {amplitude}");
        // It begins where it was placed, and the other side says nothing meanwhile.
        let loud = |s: &i16| s.unsigned_abs() > 2000;
        let first = side.iter().position(loud).unwrap();
        assert!(first.abs_diff(begin) < 40, "at {first}, not {begin}");
    }
    assert!(sides.left[11_000..].iter().all(|s| s.unsigned_abs() < 100));
    assert!(sides.right[..11_000].iter().all(|s| s.unsigned_abs() < 100));
    assert!(file.len() < 2 * 20_000 / 4, "{} bytes", file.len());
}

#[test]
fn an_opus_file_cut_anywhere_plays_up_to_its_last_page() {
    let config = Config {
        buffer: Duration::from_secs(5),
        ..opus()
    };
    let desk = Desk::new(&config);
    let path = desk.folder.path().join("call.opus");
    let mut tap = desk.recorder.open(&path, desk.recorder.format()).unwrap();
    two_sides(&mut tap);
    drop(tap);
    desk.until_written();
    let file = std::fs::read(&path).unwrap();
    let whole = ogg::read(&file).unwrap();
    let mut lengths = Vec::new();
    for n in (0..file.len()).step_by(7) {
        let Ok(cut) = ogg::read(&file[..n]) else {
            assert!(n < 150, "the headers are whole at {n} bytes");
            continue;
        };
        assert!(!cut.complete);
        assert!(whole.left.starts_with(&cut.left) && whole.right.starts_with(&cut.right));
        lengths.push(cut.left.len());
    }
    lengths.dedup();
    assert_eq!(lengths.len(), 6, "no page is longer than half a second: {lengths:?}");
}

#[test]
fn an_opus_file_grows_by_the_half_second_while_the_call_goes_on() {
    let desk = Desk::new(&opus());
    let path = desk.folder.path().join("call.opus");
    let mut tap = desk.recorder.open(&path, desk.recorder.format()).unwrap();
    let mut at = 0;
    until(|| {
        tap.push(Side::Caller, at, &[5; 160]);
        at += 160;
        let sides = ogg::read(&std::fs::read(&path).unwrap()).unwrap();
        sides.left.len() > 8000 && !sides.complete
    });
}

#[test]
fn hours_of_silence_are_soon_written_in_either_format() {
    for format in [Format::Wav, Format::Opus] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("call");
        let mut sink = Sink::create(&path, format, None).unwrap();
        let taken = Taken {
            at: 0,
            end: RATE * 3600 + 7,
        };
        sink.write(&taken, &[]).unwrap();
        sink.end().unwrap();
        if format == Format::Opus {
            let sides = ogg::read(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(sides.left.len() as u64, RATE * 3600 + 7);
            assert!(sides.left.iter().chain(&sides.right).all(|s| s.unsigned_abs() < 10));
        }
    }
}

#[test]
fn a_sealed_recording_reads_as_the_same_in_the_clear_while_it_grows_and_after() {
    use crate::{
        base::secret::Secret,
        record::{Keys, Reading},
    };
    use std::fs::File;
    let keys = Keys {
        current: Some(Secret::new("c2VjcmV0cyBhdCByZXN0LCBmb3IgdGVzdHMgb25seSE=")),
        former: None,
    };
    let sealing = Config {
        keys: keys.clone(),
        buffer: Duration::from_secs(5),
        ..Config::default()
    };
    for format in [Format::Wav, Format::Opus] {
        let written = |config: &Config| {
            let desk = Desk::new(config);
            let name = format!("call{}", desk.recorder.extension(format));
            let path = desk.folder.path().join(name);
            let mut tap = desk.recorder.open(&path, format).unwrap();
            let read = || {
                let reading = Reading::new(File::open(&path).unwrap(), &config.keys).unwrap();
                reading.read(0, reading.len() as usize).unwrap()
            };
            two_sides(&mut tap);
            until(|| read().len() > 1000);
            if format == Format::Wav {
                let bytes = read();
                let header = wav::WavHeader::parse(&bytes).unwrap();
                assert!(header.data_len.unwrap_or(0) as usize <= bytes.len() - header.data_at);
            }
            drop(tap);
            desk.until_written();
            (std::fs::read(&path).unwrap(), read(), path)
        };
        let (_, clear, _) = written(&Config {
            keys: Keys::default(),
            ..sealing.clone()
        });
        let (raw, opened, path) = written(&sealing);
        assert!(path.to_string_lossy().ends_with(".sealed"));
        for head in [&b"RIFF"[..], b"OggS", b"OpusHead"] {
            assert!(memchr::memmem::find(&raw, head).is_none());
        }
        assert_eq!(
            Format::media_type(&path.to_string_lossy()),
            Format::media_type(&format!("x.{}", format.extension()))
        );
        match format {
            Format::Wav => assert!(opened == clear, "byte for byte"),
            Format::Opus => {
                let (opened, clear) = (ogg::read(&opened).unwrap(), ogg::read(&clear).unwrap());
                assert!(opened.complete && opened.left == clear.left && opened.right == clear.right);
            }
        }
    }
}
