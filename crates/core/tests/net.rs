//! A whole proxy over real sockets: those in the file system, on both sides, and the options of those over TCP.
//!
//! The shards are threads of the test that answer every request with one line; what the proxy does with replies is
//! tested elsewhere. Nothing sleeps: reads have a time-out, and what the proxy reports is waited for.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in test functions only, not in what those call

use shoal_core::limits::{KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES};
use shoal_core::net::listen::Listener;
use shoal_core::net::proxy::{Proxy, StartError};
use shoal_core::net::stream::Stream;
use shoal_core::routing::distribution::{Distribution, Slots};
use shoal_core::routing::topology::{Keyspace, Shard, Topology};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);

/// A folder of its own for each test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shoal-net-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Answers every request of one connection with a line.
fn serve(stream: impl Read + Write) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let words: usize = line.trim_start_matches('*').trim().parse().unwrap();
        for _ in 0..words * 2 {
            // The words of these tests contain no line ends.
            stream.read_line(&mut line).unwrap();
        }
        if stream.get_mut().write_all(b"+fine\r\n").is_err() {
            return;
        }
    }
}

fn shard_at_path(path: &str) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
}

fn shard_at_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn keyspace(listen: &str, endpoint: &str) -> Keyspace {
    let shard = Shard {
        name: "s0".into(),
        endpoint: endpoint.into(),
        credentials: None,
    };
    Keyspace {
        listen: listen.into(),
        ..Keyspace::over("test", vec![shard], Distribution::Slots(Slots::even(1)))
    }
}

fn start(keyspace: Keyspace) -> Result<Proxy, StartError> {
    Proxy::start(Topology::new(1, vec![keyspace]).unwrap(), 2)
}

fn refusal(keyspace: Keyspace) -> std::io::Error {
    match start(keyspace) {
        Err(StartError::Listen { error, .. }) => error,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it started"),
    }
}

fn client(path: &str) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream
}

fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

/// Waits for an event with this text in one of its fields.
fn wait_for(proxy: &Proxy, text: &str) {
    let deadline = Instant::now() + WAIT;
    let mut seen = Vec::new();
    while Instant::now() < deadline {
        for report in proxy.next_events(Duration::from_millis(100)) {
            if report.event.fields.iter().any(|(_, field)| field == text) {
                return;
            }
            seen.push(report);
        }
    }
    panic!("no event says '{text}': {seen:?}");
}

#[test]
fn clients_and_shards_are_reached_through_paths() {
    let folder = Folder::new("paths");
    let (front, back) = (folder.path("front"), folder.path("back"));
    shard_at_path(&back);
    let proxy = start(keyspace(&front, &back)).unwrap();
    assert_eq!(proxy.addresses(), [("test".to_string(), front.clone())]);
    // More clients than workers: some are handed from one to the other.
    let clients: Vec<_> = (0..4).map(|_| client(&front)).collect();
    for client in &clients {
        assert_eq!(ask(client, "GET k\r\n"), "+fine\r\n");
    }
    let mut list = clients[0].try_clone().unwrap();
    list.write_all(b"CLIENT INFO\r\n").unwrap();
    let mut reply = String::new();
    let mut lines = BufReader::new(list);
    lines.read_line(&mut reply).unwrap();
    lines.read_line(&mut reply).unwrap();
    let ends = format!("addr={front}:0 laddr={front}:0 ");
    assert!(reply.contains(&ends), "{reply}");
    assert!(proxy.stop(WAIT));
    assert!(!Path::new(&front).exists(), "removed at the stop");
}

#[test]
fn the_file_has_the_permissions_that_were_asked_for() {
    let folder = Folder::new("mode");
    let path = folder.path("front");
    for mode in [0o600, 0o660, 0o777] {
        let asked = Keyspace {
            listen_mode: Some(mode),
            ..keyspace(&path, "127.0.0.1:1")
        };
        let proxy = start(asked).unwrap();
        let found = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode);
        proxy.stop(WAIT);
    }
}

#[test]
fn a_stale_file_is_replaced_and_a_live_one_is_not() {
    let folder = Folder::new("stale");
    let path = folder.path("front");
    // Closing a listener leaves its file, as a killed process does.
    drop(UnixListener::bind(&path).unwrap());
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let first = start(keyspace(&path, "127.0.0.1:1")).unwrap();
    let error = refusal(keyspace(&path, "127.0.0.1:1"));
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert_eq!(ask(client(&path), "PING\r\n"), "+PONG\r\n", "it lives on");
    first.stop(WAIT);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = Folder::new("file");
    let path = folder.path("front");
    fs::write(&path, "precious").unwrap();
    let error = refusal(keyspace(&path, "127.0.0.1:1"));
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_file_that_another_process_put_there_is_not_removed() {
    let folder = Folder::new("other");
    let path = folder.path("front");
    let proxy = start(keyspace(&path, "127.0.0.1:1")).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    proxy.stop(WAIT);
    assert!(Path::new(&path).exists());
}

#[test]
fn a_file_is_removed_when_the_start_fails_after_it_was_made() {
    let folder = Folder::new("failed");
    let (path, file) = (folder.path("front"), folder.path("file"));
    fs::write(&file, "").unwrap();
    let second = Keyspace {
        name: "second".into(),
        ..keyspace(&file, "127.0.0.1:1")
    };
    let both = vec![keyspace(&path, "127.0.0.1:1"), second];
    assert!(Proxy::start(Topology::new(1, both).unwrap(), 1).is_err());
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_shard_whose_socket_takes_no_more_connections_is_down_with_that_reason() {
    let folder = Folder::new("full");
    let (front, back) = (folder.path("front"), folder.path("back"));
    let shard = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    shard.bind(&SockAddr::unix(&back).unwrap()).unwrap();
    shard.listen(0).unwrap();
    let _waits = UnixStream::connect(&back).unwrap();
    let proxy = start(keyspace(&front, &back)).unwrap();
    wait_for(
        &proxy,
        "its socket has too many connections waiting to be accepted",
    );
    proxy.stop(WAIT);
}

#[test]
fn processes_may_share_a_port_when_all_of_them_say_so() {
    let endpoint = shard_at_port();
    let shared = |listen: &str, reuse_port| Keyspace {
        reuse_port,
        ..keyspace(listen, &endpoint)
    };
    let first = start(shared("127.0.0.1:0", true)).unwrap();
    let address = first.addresses()[0].1.clone();
    let second = start(shared(&address, true)).unwrap();
    assert_eq!(second.addresses()[0].1, address);
    let error = refusal(shared(&address, false));
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    first.stop(WAIT);
    let stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    assert_eq!(ask(&stream, "GET k\r\n"), "+fine\r\n");
    second.stop(WAIT);
}

#[test]
fn the_backlog_is_the_keyspaces() {
    let folder = Folder::new("backlog");
    let path = folder.path("front");
    let asked = Keyspace {
        backlog: 3,
        ..keyspace(&path, "127.0.0.1:1")
    };
    let bound = Listener::bind(&asked).unwrap();
    // Nobody accepts: the kernel lets one more wait than it was told, and refuses the next.
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
            .connect(&SockAddr::unix(&path).unwrap())
            .map(|()| socket)
    };
    let waiting: Vec<_> = (0..4).map(|_| connect().unwrap()).collect();
    assert_eq!(connect().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop((bound, waiting));
}

#[test]
fn keep_alive_has_the_times_of_the_limits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = Stream::to_address(listener.local_addr().unwrap()).unwrap();
    stream.keep_alive().unwrap();
    let Stream::Tcp(tcp) = &stream else {
        panic!("{stream:?}")
    };
    let socket = SockRef::from(tcp);
    let seconds = |count: usize| Duration::from_secs(count as u64);
    assert!(socket.keepalive().unwrap());
    let idle = socket.tcp_keepalive_time().unwrap();
    assert_eq!(idle, seconds(KEEPALIVE_IDLE_S));
    let interval = socket.tcp_keepalive_interval().unwrap();
    assert_eq!(interval, seconds(KEEPALIVE_INTERVAL_S));
    let probes = socket.tcp_keepalive_retries().unwrap();
    assert_eq!(probes, KEEPALIVE_PROBES as u32);
}

/// The kernel's list tells the timer of each connection; kind 2 is keep-alive.
#[cfg(target_os = "linux")]
#[test]
fn keep_alive_is_on_for_clients_and_shards_where_it_was_asked_for() {
    for wanted in [true, false] {
        let endpoint = shard_at_port();
        let asked = Keyspace {
            tcp_keepalive: wanted,
            ..keyspace("127.0.0.1:0", &endpoint)
        };
        let proxy = start(asked).unwrap();
        let address = proxy.addresses()[0].1.clone();
        let stream = TcpStream::connect(&address).unwrap();
        assert_eq!(ask(&stream, "GET k\r\n"), "+fine\r\n");
        let port = |address: &str| -> u16 { address.rsplit(':').next().unwrap().parse().unwrap() };
        let far = stream.local_addr().unwrap().port();
        assert_eq!(is_kept_alive(Some(port(&address)), far), Some(wanted));
        let link = is_kept_alive(None, port(&endpoint));
        assert_eq!(link, Some(wanted));
        proxy.stop(WAIT);
    }
}

/// Whether the connected socket to this port (from that one, if named) has a keep-alive timer; None: there is none such.
#[cfg(target_os = "linux")]
fn is_kept_alive(own: Option<u16>, far: u16) -> Option<bool> {
    let own = own.map_or(String::new(), |own| format!(":{own:04X}"));
    let ends = format!("{own} 0100007F:{far:04X} 01 ");
    let deadline = Instant::now() + WAIT;
    loop {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&ends))?;
        let timer = line.split_whitespace().nth(5)?;
        // 01: what was sent last is not acknowledged yet.
        if !timer.starts_with("01:") || Instant::now() > deadline {
            return Some(timer.starts_with("02:"));
        }
    }
}
