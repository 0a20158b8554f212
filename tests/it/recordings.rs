//! Recordings through a whole daemon: sealed at rest, in each agent's format, and there after a `kill -9`.

use crate::{
    daemon::{Daemon, PATIENCE},
    opus::{Line, clean, part_of, speak},
};
use sidetone::{
    audio::{ogg, wav::Wav},
    base::time::Mono,
};
use std::{path::PathBuf, time::Duration};

const SEALED: &str = r#"
[record]
format = "opus"
key = "c2VjcmV0cyBhdCByZXN0LCBmb3IgdGVzdHMgb25seSE="

[agents.taped]
kind = "echo"
record = true

[agents.plain]
kind = "echo"
record = true
record_format = "wav"
"#;

fn file(daemon: &Daemon) -> PathBuf {
    let folder = std::fs::read_dir(daemon.state().join("recordings")).unwrap();
    let files: Vec<_> = folder.map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_recording_survives_a_kill_up_to_the_last_second_in_each_agents_format() {
    for (agent, extension, magic) in [("plain", "wav", &b"RIFF"[..]), ("taped", "opus", b"OggS")] {
        let mut daemon = Daemon::start(&["--dev", "--agent", agent], SEALED, &[]).await;
        let mut line = Line::open(&daemon, "v3:killed", "PCMU", 8000).await;
        speak(&mut line, 3000).await;
        // While it grows, too.
        let reply = daemon.get("/api/calls/v3:killed/recording").await.unwrap();
        assert!(reply.status == 200 && reply.body.starts_with(magic), "{}", reply.status);
        daemon.kill();
        let path = file(&daemon);
        assert!(
            path.to_string_lossy().ends_with(&format!(".{extension}.sealed")),
            "{path:?}"
        );
        let bytes = std::fs::read(&path).unwrap();
        assert!(
            memchr::memmem::find(&bytes, magic).is_none(),
            "nothing of it is in the clear"
        );

        daemon.again().await;
        let whole = daemon.get("/api/calls/v3:killed/recording").await.unwrap().body;
        let left = match extension {
            "wav" => Wav::parse(&whole).unwrap().channel(0),
            _ => ogg::read(&whole).unwrap().left,
        };
        assert!(left.len() >= 16_000, "{extension}: {} samples", left.len());
        let db = clean(&left[1600..], 8000);
        assert!(db > 20.0, "{extension}: {db:.1} dB");
        for (from, to) in [(0, 3), (4090, 4100), (whole.len() - 5, whole.len() - 1)] {
            let range = format!("bytes={from}-{to}");
            let (status, _, part) = part_of(&daemon, "/api/calls/v3:killed/recording", &range).await;
            assert_eq!((status, &part[..]), (206, &whole[from..=to]), "{extension}: {range}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_in_wav_survives_a_kill_up_to_the_last_second() {
    let clear = SEALED.replace("key =", "#key =");
    let mut daemon = Daemon::start(&["--dev", "--agent", "plain"], &clear, &[]).await;
    let mut line = Line::open(&daemon, "v3:killed", "PCMU", 8000).await;
    let began = Mono::now();
    speak(&mut line, 3000).await;
    let spoken = Mono::now().since(began).min(Duration::from_secs(3));
    daemon.kill();
    let wav = Wav::parse(&std::fs::read(file(&daemon)).unwrap()).unwrap();
    let least = (spoken.as_secs_f64() - 1.0) * 8000.0;
    assert!(wav.channel(0).len() as f64 >= least, "{} samples", wav.channel(0).len());
    assert!(spoken < PATIENCE);
}
