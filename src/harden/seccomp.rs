//! The system calls that the daemon never needs. Refused ones fail with EPERM, so that a library that merely tries
//! goes on without.
//!
//! A list of what is denied, not of what is allowed: an allow list breaks with every update of libc. What matters most
//! is complete: nothing can be executed, no process made, no other process touched, no right regained.

use std::collections::BTreeMap;

use nix::libc::{self, c_long};
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq, Ne};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter, sock_filter,
};

/// Denied whatever their arguments are.
#[rustfmt::skip]
const DENIED: &[c_long] = &[
    // Programs and other processes.
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_process_madvise, libc::SYS_process_mrelease, libc::SYS_kcmp, libc::SYS_pidfd_getfd, libc::SYS_setns,
    libc::SYS_unshare, libc::SYS_personality, libc::SYS_migrate_pages, libc::SYS_move_pages,
    // Other users.
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_setgroups, libc::SYS_capset,
    // File systems; files that have no path, or are none.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_mount_setattr, libc::SYS_move_mount, libc::SYS_open_tree,
    OPEN_TREE_ATTR, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_pivot_root,
    libc::SYS_chroot, libc::SYS_quotactl, libc::SYS_quotactl_fd, libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at, libc::SYS_fanotify_init, libc::SYS_mknodat, libc::SYS_memfd_create,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_nfsservctl, libc::SYS_lookup_dcookie,
    // The kernel, and its parts with the longest record of holes.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register, libc::SYS_userfaultfd, libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, KEXEC_FILE_LOAD,
    libc::SYS_reboot, libc::SYS_syslog, libc::SYS_vhangup, libc::SYS_mbind, libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node, libc::SYS_remap_file_pages, libc::SYS_shmget, libc::SYS_shmat,
    libc::SYS_semget, libc::SYS_msgget, libc::SYS_mq_open,
    // The machine's clock and names.
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime,
    libc::SYS_sethostname, libc::SYS_setdomainname,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const DENIED_HERE: &[c_long] = &[
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_mknod, libc::SYS_uselib, libc::SYS_iopl, libc::SYS_ioperm,
    libc::SYS_modify_ldt, libc::SYS__sysctl, libc::SYS_sysfs, libc::SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

// Not in every libc.
const OPEN_TREE_ATTR: c_long = 467;
const KEXEC_FILE_LOAD: c_long = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// The argument's position, how to compare it, and with what.
type Condition = (u8, SeccompCmpOp, i32);

/// Denied with certain arguments: every line is a call and what of it is denied when all conditions hold.
fn denied_by_argument() -> Vec<(c_long, Vec<Condition>)> {
    let has = |bits: i32| MaskedEq(word(bits));
    let writable_code = libc::PROT_WRITE | libc::PROT_EXEC;
    let mut denied = vec![
        // Processes; threads stay possible.
        (libc::SYS_clone, vec![(0, has(libc::CLONE_THREAD), 0)]),
        // The limits of another process.
        (libc::SYS_prlimit64, vec![(0, Ne, 0)]),
        // Back to being dumpable.
        (libc::SYS_prctl, vec![(0, Eq, libc::PR_SET_DUMPABLE)]),
        // Typing into the operator's terminal.
        (libc::SYS_ioctl, vec![(1, Eq, TIOCSTI)]),
        // Code made at run time.
        (libc::SYS_mmap, vec![(2, has(writable_code), writable_code)]),
        (libc::SYS_mprotect, vec![(2, has(libc::PROT_EXEC), libc::PROT_EXEC)]),
        (libc::SYS_pkey_mprotect, vec![(2, has(libc::PROT_EXEC), libc::PROT_EXEC)]),
        // Opens a connection without the check of its port.
        (libc::SYS_sendto, vec![(3, has(libc::MSG_FASTOPEN), libc::MSG_FASTOPEN)]),
        (libc::SYS_sendmsg, vec![(2, has(libc::MSG_FASTOPEN), libc::MSG_FASTOPEN)]),
        (libc::SYS_sendmmsg, vec![(3, has(libc::MSG_FASTOPEN), libc::MSG_FASTOPEN)]),
        (libc::SYS_socketpair, vec![(0, Ne, libc::AF_UNIX)]),
        // Sockets: UNIX, and of the internet only TCP and UDP: others pass by the check of ports.
        (libc::SYS_socket, vec![(0, Ne, libc::AF_UNIX), (0, Ne, libc::AF_INET), (0, Ne, libc::AF_INET6)]),
        (
            libc::SYS_socket,
            vec![(0, Ne, libc::AF_UNIX), (2, Ne, 0), (2, Ne, libc::IPPROTO_TCP), (2, Ne, libc::IPPROTO_UDP)],
        ),
    ];
    for kind in [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, SOCK_DCCP] {
        denied.push((libc::SYS_socket, vec![(0, Ne, libc::AF_UNIX), (1, has(SOCK_TYPES), kind)]));
    }
    denied
}

const TIOCSTI: i32 = 0x5412;
const SOCK_DCCP: i32 = 6;
/// The rest of the argument is flags.
const SOCK_TYPES: i32 = 0xf;

/// Numbers from here on are another table of the same calls, for programs with 32-bit pointers.
const X32: u32 = 0x4000_0000;

/// Denies what the daemon never needs to the calling thread, and to those it starts later.
///
/// # Errors
/// The kernel or the architecture has no such filters.
pub fn apply() -> Result<(), seccompiler::Error> {
    let denied = denied(std::env::consts::ARCH)?;
    apply_filter(&unknown())?;
    apply_filter(&denied)
}

fn denied(arch: &str) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, conditions) in denied_by_argument() {
        let conditions =
            conditions.into_iter().map(|(n, how, value)| SeccompCondition::new(n, Dword, how, word(value)));
        rules.entry(call).or_default().push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
    }
    // No conditions: always.
    rules.extend(DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new())));
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch.try_into()?)?.try_into()
}

/// Calls that answer as in a kernel without them. The flags of `clone3` lie in memory, where no filter can look; libc
/// takes `clone` instead.
fn unknown() -> BpfProgram {
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    let returned = |what: SeccompAction| sock_filter { code: RETURN, jt: 0, jf: 0, k: what.into() };
    vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: clone3 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32 },
        returned(SeccompAction::Errno(libc::ENOSYS.cast_unsigned())),
        returned(SeccompAction::Allow),
    ]
}

// Instructions of classic BPF, with a constant: BPF_LD|BPF_W|BPF_ABS (at 0: the call's number), BPF_JMP|BPF_JEQ,
// BPF_JMP|BPF_JGE, BPF_RET.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

fn word(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

#[cfg(test)]
mod tests;
