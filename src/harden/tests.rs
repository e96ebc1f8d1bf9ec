//! What is given up cannot be taken back: every test that applies it runs itself again, alone in a process.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};

use super::*;

const ALONE: &str = "HARDEN_TEST_ALONE";

/// Runs the body in a process of its own.
fn alone(test: &str, body: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        return body();
    }
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("harden::tests::{test}"), "--nocapture"])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && shown.contains("1 passed"), "{shown}");
}

/// The base, and this besides.
fn limits(read: &[&Path], write: &[&Path]) -> Limits {
    let mut limits = Limits::base();
    limits.read.extend(read.iter().map(PathBuf::from));
    limits.write.extend(write.iter().map(PathBuf::from));
    limits
}

fn denied<T>(result: io::Result<T>) {
    assert_eq!(result.map(drop).map_err(|e| e.kind()), Err(ErrorKind::PermissionDenied));
}

#[test]
fn every_layer_is_on() {
    alone("every_layer_is_on", || {
        let report = apply_here(&Limits::base());
        println!("{}", serde_json::to_string(&report).unwrap());
        let landlock = Landlock { files: ON.into(), tcp: ON.into(), ..report.landlock };
        let on = || ON.to_owned();
        assert_eq!(
            report,
            Report {
                no_new_privs: on(),
                not_dumpable: on(),
                no_core_dumps: on(),
                landlock,
                seccomp: on(),
                ..report.clone()
            }
        );
        assert!(!prctl::get_dumpable().unwrap());
        assert!(prctl::get_no_new_privs().unwrap());
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("Seccomp:\t2\n") && status.contains("Seccomp_filters:\t2\n"), "{status}");
        assert_eq!(report.complete().is_ok(), report.uid != 0 && report.capabilities == "none");
    });
}

#[test]
fn nothing_can_be_executed_or_regained() {
    alone("nothing_can_be_executed_or_regained", || {
        let report = apply_here(&limits(&[Path::new("/")], &[]));
        denied(Command::new("/bin/true").status());
        denied(Command::new(env::current_exe().unwrap()).arg("--list").output());
        assert_eq!(prctl::set_dumpable(true), Err(Errno::EPERM));
        assert_eq!(nix::unistd::chroot("/"), Err(Errno::EPERM));
        assert_eq!(nix::unistd::sethostname("other"), Err(Errno::EPERM));
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).unwrap();
        assert_eq!(nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, now), Err(Errno::EPERM));
        for family in [AddressFamily::Netlink, AddressFamily::Packet, AddressFamily::Vsock, AddressFamily::Alg] {
            let made = socket::socket(family, SockType::Datagram, SockFlag::empty(), None);
            assert_eq!(made.unwrap_err(), Errno::EPERM);
        }
        // The parent's descriptors, memory and life, even when the parent is the same user.
        let parent = nix::unistd::getppid();
        denied(fs::read_link(format!("/proc/{parent}/exe")));
        denied(File::open(format!("/proc/{parent}/fd/0")));
        denied(File::open(format!("/proc/{parent}/mem")));
        if report.landlock.abi >= 6 {
            assert_eq!(nix::sys::signal::kill(parent, None), Err(Errno::EPERM));
        }
    });
}

#[test]
fn only_the_files_it_needs() {
    alone("only_the_files_it_needs", || {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let place = dir.path().join(name);
            fs::create_dir(&place).unwrap();
            fs::write(place.join("file"), "x").unwrap();
            place
        };
        let (read, write, other) = (place("read"), place("write"), place("other"));
        let gone = dir.path().join("gone");
        let report = apply_here(&limits(&[&read, &gone], &[&write]));
        assert_eq!(report.landlock.files, ON);

        assert_eq!(fs::read(read.join("file")).unwrap(), b"x");
        denied(File::options().append(true).open(read.join("file")));
        denied(File::create(read.join("new")));
        denied(File::open(other.join("file")));
        denied(fs::read_dir(&other));
        denied(File::options().write(true).open(other.join("file")));
        denied(fs::remove_file(other.join("file")));
        denied(File::open("/etc/shadow"));
        denied(File::open("/root"));
        File::open("/etc/passwd").unwrap();
        File::open("/dev/urandom").unwrap().read_exact(&mut [0; 8]).unwrap();
        File::options().write(true).open("/dev/null").unwrap().write_all(b"x").unwrap();
        assert!(fs::read_to_string("/proc/self/stat").unwrap().len() > 10);

        crate::files::replace(&write.join("state.json"), b"one", 0o600).unwrap();
        crate::files::replace(&write.join("state.json"), b"two", 0o600).unwrap();
        crate::files::private_dir(&write.join("below")).unwrap();
        crate::files::open_append(&write.join("lines")).unwrap().set_len(0).unwrap();
        let local = UnixListener::bind(write.join("socket")).unwrap();
        drop(UnixStream::connect(write.join("socket")).unwrap());
        drop(local);
        fs::remove_file(write.join("socket")).unwrap();
        assert_eq!(nix::unistd::mkfifo(&write.join("pipe"), nix::sys::stat::Mode::S_IRWXU), Err(Errno::EPERM));
    });
}

#[test]
fn only_the_ports_it_needs() {
    alone("only_the_ports_it_needs", || {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (allowed, forbidden) = (listen(), listen());
        let to = |listener: &TcpListener| listener.local_addr().unwrap();
        let freed = to(&listen());
        let limits = Limits { bind: vec![0], connect: vec![to(&allowed).port()], ..Limits::base() };
        assert_eq!(apply_here(&limits).landlock.tcp, ON);

        TcpStream::connect(to(&allowed)).unwrap();
        denied(TcpStream::connect(to(&forbidden)));
        let chosen = listen();
        assert_ne!(to(&chosen).port(), 0);
        denied(TcpListener::bind(freed));
        // A connection that begins with its first data passes by the check of the port in many kernels;
        // refused whatever the address is.
        let eager = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        let fast = MsgFlags::from_bits_retain(nix::libc::MSG_FASTOPEN);
        let sent = socket::sendto(eager.as_raw_fd(), b"x", &UnixAddr::new("/none").unwrap(), fast);
        assert_eq!(sent, Err(Errno::EPERM));
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    });
}

#[test]
fn the_runtime_works_as_before() {
    alone("the_runtime_works_as_before", || {
        let dir = tempfile::tempdir().unwrap();
        let watched = dir.path().join("watched");
        fs::write(&watched, "one").unwrap();
        apply_here(&limits(&[], &[dir.path()]));

        let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(move || n * 2)).collect();
        assert_eq!(threads.into_iter().map(|t| t.join().unwrap()).sum::<i32>(), 12);
        // What the main thread gave up, its threads do not have either.
        std::thread::spawn(|| denied(Command::new("/bin/true").status())).join().unwrap();
        assert!(std::thread::available_parallelism().unwrap().get() > 0);
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        assert_ne!(random, [0; 32]);
        assert!(("localhost", 80).to_socket_addrs().unwrap().count() > 0);
        assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let watch = crate::watch::Watch::new(std::slice::from_ref(&watched));
            crate::files::replace(&watched, b"two", 0o600).unwrap();
            tokio::time::timeout(Duration::from_secs(10), watch.hint()).await.unwrap();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            let _signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        });
    });
}

#[test]
fn says_when_it_comes_too_late() {
    // The test's own runner is another thread.
    alone("says_when_it_comes_too_late", || {
        let report = apply(&Limits::base());
        assert_eq!(report.seccomp, "applied to one of 2 threads");
        assert_eq!((&report.landlock.files, &report.no_new_privs), (&report.seccomp, &report.seccomp));
        assert_eq!((&*report.not_dumpable, &*report.no_core_dumps), (ON, ON));
    });
}

#[test]
fn closes_what_it_inherited() {
    alone("closes_what_it_inherited", || {
        let stray = File::open("/dev/null").unwrap().into_raw_fd();
        close_inherited().unwrap();
        let open: Vec<_> =
            fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|e| fs::read_link(e.path()).ok()).collect();
        assert!(stray > 2 && open.len() <= 4, "{open:?}");
    });
}

#[test]
fn unblocks_every_signal() {
    std::thread::spawn(|| {
        SigSet::all().thread_block().unwrap();
        unblock_signals().unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap(), SigSet::empty());
    })
    .join()
    .unwrap();
}

#[test]
fn names_what_is_missing() {
    let on = || ON.to_owned();
    let complete = Report {
        uid: 1001,
        capabilities: "none".into(),
        no_new_privs: on(),
        not_dumpable: on(),
        no_core_dumps: on(),
        landlock: Landlock { abi: 7, files: on(), tcp: on() },
        seccomp: on(),
    };
    assert_eq!(complete.complete(), Ok(()));
    let old = "the kernel's Landlock ABI is 3, it needs 4";
    let lacking = Report { uid: 0, landlock: Landlock { abi: 3, files: on(), tcp: old.into() }, ..complete };
    let expected = format!("hardening is not complete: uid (it runs as root), landlock.tcp ({old})");
    assert_eq!(lacking.complete(), Err(expected));
}

#[test]
fn a_linked_file_brings_both_directories() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    for place in ["live", "archive"] {
        fs::create_dir(dir.join(place)).unwrap();
    }
    fs::write(dir.join("archive/tls1.crt"), "x").unwrap();
    std::os::unix::fs::symlink("../archive/tls1.crt", dir.join("live/tls.crt")).unwrap();
    let limits = Limits::default().with_file(&dir.join("live/tls.crt"));
    assert_eq!(limits.read, [dir.join("live"), dir.join("archive")]);
}
