//! The store across a process's death: what a child was told is stored is there after SIGKILL, once and in order.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sidetone::{
    base::{
        ids::{CallId, MessageId, TenantId},
        time::Wall,
    },
    store::{Batch, CallRow, CallStatus, Committed, Config, MessageRow, Sender, Store, Write, sqlite::SqliteStore},
    vendor::EndReason,
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Names the database to the child; without it [`writes_until_killed`] does nothing.
const DATABASE: &str = "STORE_OF_THE_CHILD";
const TENANT: TenantId = TenantId(1);
const CALLS: usize = 4;

fn row() -> CallRow {
    let call_id = CallId::new();
    CallRow {
        call_id,
        call_sid: format!("pending:{call_id}"),
        session_id: call_id.to_string(),
        vendor: "acme".into(),
        inbound: true,
        customer_number: "+15550101".into(),
        organization_number: "+15550100".into(),
        status: CallStatus::InProgress,
        end_reason: None,
        start_time: Wall::now(),
        answered_at: Some(Wall::now()),
        end_time: None,
        duration: None,
        tenant_id: TENANT,
        agent: "human".into(),
        recording: None,
        legal_hold: false,
        metadata: serde_json::Value::Null,
    }
}

/// Writes messages of several calls as fast as it can, each call printing what was acknowledged: `call seq event`.
async fn write_forever(store: &SqliteStore) {
    let one_call = async || {
        let row = row();
        let open = vec![Write::Call(Box::new(row.clone()))];
        store.commit(Batch { writes: open }).await.unwrap();
        for seq in 1.. {
            let message = MessageRow {
                message_id: MessageId::new(),
                call_id: row.call_id,
                seq,
                message_type: "transcript",
                content: format!("words {seq}"),
                sender_type: Sender::Customer,
                sender_name: None,
                confidence: None,
                detected_language: None,
                delivery: None,
                heard_ms: None,
                created_at: Wall::now(),
            };
            let event = Write::Event {
                tenant: TENANT,
                call_id: row.call_id,
                payload: seq.to_string(),
            };
            let writes = vec![Write::Message(Box::new(message)), event];
            let Ok(Committed::Done { event_ids }) = store.commit(Batch { writes }).await else {
                panic!("not committed")
            };
            println!("ack {} {seq} {}", row.call_id, event_ids[0]);
        }
    };
    tokio::join!(one_call(), one_call(), one_call(), one_call());
}

/// The child: not a test of its own.
#[tokio::test]
async fn writes_until_killed() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let store = SqliteStore::open(Path::new(&path), &Config::default()).unwrap();
    write_forever(&store).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let mut acknowledged: Vec<(CallId, i64, i64)> = Vec::new();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stores::writes_until_killed", "--nocapture"])
            .env(DATABASE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 37 * round;
        for line in lines.map_while(Result::ok) {
            // The harness prints on the same line before the first of ours.
            let Some((_, ack)) = line.split_once("ack ") else {
                continue;
            };
            let mut words = ack.split(' ');
            let mut number = || words.next().map(str::to_owned).unwrap();
            acknowledged.push((
                number().parse().unwrap(),
                number().parse().unwrap(),
                number().parse().unwrap(),
            ));
            left -= 1;
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(left <= 0, "the child wrote");

        let store = SqliteStore::open(&path, &Config::default()).unwrap();
        assert_eq!(store.close_open_calls().await, Ok(CALLS));
        let events = store.events(TENANT, None, 0, usize::MAX).await.unwrap();
        assert!(events.iter().zip(1..).all(|(e, n)| e.id == n), "ids without gaps");
        for (call, seq, event) in &acknowledged {
            let row = store.call(TENANT, call.as_str()).await.unwrap().unwrap();
            assert_eq!(
                (row.status, row.end_reason),
                (CallStatus::Ended, Some(EndReason::Interrupted))
            );
            assert_eq!(events[*event as usize - 1].payload, seq.to_string());
        }
        let mut calls: Vec<_> = acknowledged.iter().map(|(call, ..)| *call).collect();
        calls.sort();
        calls.dedup();
        assert_eq!(calls.len(), CALLS * round as usize);
        for call in calls {
            let messages = store.messages(TENANT, call).await.unwrap();
            let order: Vec<_> = messages.iter().map(|m| m.seq).collect();
            assert_eq!(order, (1..=messages.len() as i64).collect::<Vec<_>>());
            let told = acknowledged
                .iter()
                .filter(|(c, ..)| *c == call)
                .map(|(_, seq, _)| *seq)
                .max();
            assert!(Some(messages.len() as i64) >= told);
        }
    }
}

/// Lets the files of a process grow to `bytes`, as a disk does that has no more; `None` lifts that.
fn limit_files(child: &Child, bytes: Option<u64>) {
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(Some(Pid::from_child(child)), Resource::Fsize, limit).unwrap();
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_what_waited_is_stored_once_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    // Told by an error, as of a full disk, and not by the signal that goes with a limit on files.
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "stores::writes_until_killed", "--nocapture"])
        .env(DATABASE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some((_, ack)) = line.split_once("ack ") {
                let mut words = ack.split(' ');
                let (call, seq) = (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap());
                let _ = tell.send((call, seq));
            }
        }
    });
    let patience = Duration::from_secs(10);
    let mut acknowledged: Vec<(String, i64)> = (0..40).map(|_| told.recv_timeout(patience).unwrap()).collect();
    limit_files(&child, Some(32 << 10));
    let quiet = Duration::from_secs(1);
    acknowledged.extend(std::iter::from_fn(|| told.recv_timeout(quiet).ok()));
    assert!(child.try_wait().unwrap().is_none(), "it waits for space");
    limit_files(&child, None);
    for _ in 0..40 {
        acknowledged.push(told.recv_timeout(patience).expect("it goes on once there is space"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    acknowledged.extend(told.try_iter());

    let store = SqliteStore::open(&path, &Config::default()).unwrap();
    let mut last = std::collections::BTreeMap::new();
    for (call, seq) in acknowledged {
        let before = last.insert(call, seq).unwrap_or(0);
        assert_eq!(seq, before + 1, "in order");
    }
    assert_eq!(last.len(), CALLS);
    for (call, told) in last {
        let messages = store.messages(TENANT, call.parse().unwrap()).await.unwrap();
        let order: Vec<_> = messages.iter().map(|m| m.seq).collect();
        assert_eq!(order, (1..=messages.len() as i64).collect::<Vec<_>>());
        assert!(messages.len() as i64 >= told);
    }
}
