use super::*;

const ALLOWED: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILLED: u32 = 0x8000_0000;

const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
const I386: u32 = 0x4000_0003;

fn here() -> u32 {
    if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 }
}

/// What the kernel would do: a small machine for the programs, so that calls can be tried that no test may make.
fn run(program: &[sock_filter], arch: u32, call: u32, arguments: [u64; 6]) -> u32 {
    let low = |n: u64| u32::try_from(n & 0xffff_ffff).unwrap();
    let mut data = vec![call, arch, 0, 0];
    data.extend(arguments.iter().flat_map(|a| [low(*a), low(*a >> 32)]));
    let (mut at, mut word) = (0, 0);
    loop {
        let step = &program[at];
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        at += 1;
        match step.code {
            0x20 => word = data[step.k as usize / 4],
            0x54 => word &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(word == step.k),
            0x25 => at += jump(word > step.k),
            0x35 => at += jump(word >= step.k),
            0x06 => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// Both programs, as the kernel joins them: the strictest answer counts.
fn verdict(call: c_long, arguments: [u64; 6]) -> u32 {
    let call = u32::try_from(call).unwrap();
    let verdicts = [unknown(), denied(std::env::consts::ARCH).unwrap()].map(|p| run(&p, here(), call, arguments));
    *verdicts.iter().find(|v| **v != ALLOWED).unwrap_or(&ALLOWED)
}

fn with(pairs: &[(usize, i32)]) -> [u64; 6] {
    let mut arguments = [0; 6];
    // What lies in the upper half of an int argument is not looked at by the kernel, and must not make a difference.
    for (n, value) in pairs {
        arguments[*n] = word(*value) | 0xdead_0000_0000_0000;
    }
    arguments
}

#[test]
fn every_listed_call_is_denied() {
    for call in DENIED.iter().chain(DENIED_HERE) {
        assert_eq!(verdict(*call, [0; 6]), EPERM, "call {call}");
        assert_eq!(verdict(*call, [u64::MAX; 6]), EPERM, "call {call}");
    }
}

#[test]
fn threads_but_no_processes() {
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    assert_eq!(verdict(libc::SYS_clone, with(&[(0, thread)])), ALLOWED);
    assert_eq!(verdict(libc::SYS_clone, with(&[(0, libc::SIGCHLD)])), EPERM);
    assert_eq!(verdict(libc::SYS_clone, with(&[(0, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD)])), EPERM);
    assert_eq!(verdict(libc::SYS_clone3, [0; 6]), ENOSYS);
}

#[test]
fn sockets_of_three_families() {
    let socket = |family, kind, protocol| verdict(libc::SYS_socket, with(&[(0, family), (1, kind), (2, protocol)]));
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocol) in [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)] {
            assert_eq!(socket(family, kind | flags, 0), ALLOWED);
            assert_eq!(socket(family, kind | flags, protocol), ALLOWED);
        }
        assert_eq!(socket(family, libc::SOCK_STREAM | flags, libc::IPPROTO_MPTCP), EPERM);
        assert_eq!(socket(family, libc::SOCK_STREAM | flags, libc::IPPROTO_SCTP), EPERM);
        assert_eq!(socket(family, libc::SOCK_SEQPACKET | flags, 0), EPERM);
        assert_eq!(socket(family, libc::SOCK_RAW | flags, libc::IPPROTO_UDP), EPERM);
        assert_eq!(socket(family, libc::SOCK_DGRAM, libc::IPPROTO_ICMP), EPERM);
    }
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        assert_eq!(socket(libc::AF_UNIX, kind | flags, 0), ALLOWED);
    }
    for family in (0..64).filter(|f| ![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].contains(f)) {
        assert_eq!(socket(family, libc::SOCK_DGRAM, 0), EPERM, "family {family}");
        assert_eq!(verdict(libc::SYS_socketpair, with(&[(0, family), (1, libc::SOCK_DGRAM)])), EPERM);
    }
    assert_eq!(verdict(libc::SYS_socketpair, with(&[(0, libc::AF_UNIX), (1, libc::SOCK_STREAM)])), ALLOWED);
}

#[test]
fn arguments_decide() {
    let fast = libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL;
    for (call, at) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        assert_eq!(verdict(call, with(&[(at, fast)])), EPERM);
        assert_eq!(verdict(call, with(&[(at, libc::MSG_NOSIGNAL)])), ALLOWED);
    }
    let (read, write, code) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
    assert_eq!(verdict(libc::SYS_mmap, with(&[(2, read | write)])), ALLOWED);
    assert_eq!(verdict(libc::SYS_mmap, with(&[(2, read | code)])), ALLOWED);
    assert_eq!(verdict(libc::SYS_mmap, with(&[(2, read | write | code)])), EPERM);
    assert_eq!(verdict(libc::SYS_mprotect, with(&[(2, read | write)])), ALLOWED);
    assert_eq!(verdict(libc::SYS_mprotect, with(&[(2, read | code)])), EPERM);
    assert_eq!(verdict(libc::SYS_prlimit64, with(&[(0, 0)])), ALLOWED);
    assert_eq!(verdict(libc::SYS_prlimit64, with(&[(0, 4711)])), EPERM);
    assert_eq!(verdict(libc::SYS_prctl, with(&[(0, libc::PR_SET_DUMPABLE), (1, 1)])), EPERM);
    assert_eq!(verdict(libc::SYS_prctl, with(&[(0, libc::PR_SET_NAME)])), ALLOWED);
    assert_eq!(verdict(libc::SYS_ioctl, with(&[(1, 0x5412)])), EPERM);
    assert_eq!(verdict(libc::SYS_ioctl, with(&[(1, 0x5421)])), ALLOWED);
}

#[test]
fn what_a_daemon_does_is_allowed() {
    let calls = [
        libc::SYS_read,
        libc::SYS_openat,
        libc::SYS_renameat,
        libc::SYS_fsync,
        libc::SYS_futex,
        libc::SYS_epoll_pwait,
        libc::SYS_accept4,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_inotify_add_watch,
        libc::SYS_getrandom,
        libc::SYS_madvise,
        libc::SYS_tgkill,
        libc::SYS_exit_group,
        libc::SYS_rt_sigaction,
        libc::SYS_fchmod,
    ];
    for call in calls {
        assert_eq!(verdict(call, [0; 6]), ALLOWED, "call {call}");
    }
}

#[test]
fn no_way_around_by_another_table_of_calls() {
    let call = u32::try_from(libc::SYS_execve).unwrap();
    assert_eq!(run(&unknown(), here(), call | X32, [0; 6]), ENOSYS);
    assert_eq!(run(&denied(std::env::consts::ARCH).unwrap(), I386, call, [0; 6]), KILLED);
}
