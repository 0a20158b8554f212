//! A real PostgreSQL server for tests, on a Unix socket in a folder of its own: made, started, killed and started again.
//!
//! The unit tests of the store include this file too. The server is watched over by a shell that ends with the test's process,
//! however that ends, and takes the server and its folder along.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the server for each line on standard input; at its end, stops the server and clears up.
const WATCH: &str = r#"
folder=$1; shift
while read -r _; do "$@" >>"$folder/log" 2>&1 & done
[ ! -f "$folder/data/postmaster.pid" ] || kill -QUIT "$(head -n1 "$folder/data/postmaster.pid")"
wait
rm -rf "$folder"
"#;

/// A running server. Dropping it stops it and removes its data.
pub(crate) struct Server {
    folder: PathBuf,
    /// Names the socket, even where nothing listens on it.
    port: String,
    watch: Child,
    databases: AtomicU32,
}

impl Server {
    /// Makes a cluster and starts it with more settings (`name=value`). There is no password and no protection of data against a
    /// loss of power.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let bin = binaries();
        let folder = folder();
        let initdb = unprivileged(&bin.join("initdb"))
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "-D",
            ])
            .arg(folder.join("data"))
            .current_dir(&folder)
            .output()
            .expect("initdb runs");
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        let mut server = unprivileged(Path::new("sh"));
        server.args(["-c", WATCH, "sh"]).arg(&folder);
        server.arg(bin.join("postgres")).arg("-D").arg(folder.join("data"));
        server
            .arg("-c")
            .arg(format!("unix_socket_directories={}", folder.display()));
        for setting in [
            "listen_addresses=",
            "fsync=off",
            "max_connections=200",
            "shared_buffers=16MB",
        ]
        .iter()
        .chain(settings)
        {
            server.args(["-c", setting]);
        }
        let watch = server
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let port = settings.iter().find_map(|s| s.strip_prefix("port=")).unwrap_or("5432");
        let mut server = Self {
            folder,
            port: port.to_owned(),
            watch,
            databases: AtomicU32::new(0),
        };
        server.restart();
        server
    }

    /// Starts the server after [`Server::kill`], and waits until it answers.
    pub(crate) fn restart(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A server that was killed leaves others that still hold its memory for a moment; then the start is refused.
            if self.pid().is_none() {
                writeln!(self.watch.stdin.as_mut().unwrap()).unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
            let ready = Command::new(binaries().join("pg_isready"))
                .args(["-q", "-p", &self.port, "-h"])
                .arg(&self.folder)
                .status();
            if ready.expect("pg_isready runs").success() {
                return;
            }
            assert!(Instant::now() < deadline, "the server did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops the server at once, without order, and waits until it is gone.
    pub(crate) fn kill(&self) {
        let pid = self.pid().expect("the server runs");
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("the server is ours");
        let deadline = Instant::now() + PATIENCE;
        while self.pid().is_some() {
            assert!(Instant::now() < deadline, "the server did not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The server's process, if it runs.
    fn pid(&self) -> Option<rustix::process::Pid> {
        let text = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        let pid = rustix::process::Pid::from_raw(text.lines().next()?.parse().ok()?)?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        (!stat.contains(") Z ")).then_some(pid)
    }

    /// Makes an empty database and says its URL.
    pub(crate) fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database.
    pub(crate) fn url(&self, name: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{name}", self.port)
    }

    /// What `psql` prints, unaligned and without headings, for a statement in a database, which a URL of ours may name.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let name = database.rsplit('/').next().unwrap_or(database);
        let done = Command::new(binaries().join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-p",
                &self.port,
                "-h",
            ])
            .arg(&self.folder)
            .args(["-d", name, "-c", sql])
            .output()
            .expect("psql runs");
        assert!(
            done.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// What the server logged.
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}

/// The folder of the newest server's programs.
fn binaries() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let version = |p: &Path| p.file_name()?.to_str()?.parse::<u32>().ok();
        let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest = folders
            .map(|f| f.path())
            .filter(|p| p.join("bin/initdb").exists())
            .max_by_key(|p| version(p));
        newest
            .expect("PostgreSQL is needed in /usr/lib/postgresql: scripts/setup --tests installs it")
            .join("bin")
    })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program, as somebody whom PostgreSQL does not refuse to serve: it will not run as root.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"])
        .arg(program);
    command
}

/// A folder with a short name, because a Unix socket's path is short, that belongs to who runs the server.
fn folder() -> PathBuf {
    let made = tempfile::Builder::new().prefix("pg-").tempdir().unwrap().keep();
    give(&made);
    made
}

/// Makes a folder and its files belong to who runs the server.
pub(crate) fn give(folder: &Path) {
    if is_root() {
        let status = Command::new("chown").args(["-R", "postgres:"]).arg(folder).status();
        assert!(status.expect("chown runs").success());
    }
}
