"""The first instruction of every child: bind its life to its parent's, drop root where asked, become the command.

Run as a script (`python -I -S launch.py PARENT SIGNAL USER -- COMMAND…`), so it imports the standard library alone and
starts in milliseconds. A `preexec_fn` would run the same code between fork and exec of a process that has threads.

Guarantee, on Linux: when the parent is gone, however it went, the kernel sends SIGNAL to the command. Elsewhere only
an orderly stop ends it.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
CLONE_NEWUSER = 0x10000000

SAME_USER = "same"
# How to stop being root, written `way:name`. NAMESPACE: the same user under another number, in a user namespace of its
# own; it goes on owning root's files. PLAIN: that user. REACH: that user, with the one right to pass folders that only
# root may enter (a checkout below /root).
NAMESPACE = "namespace"
PLAIN = "plain"
REACH = "reach"


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def become(name: str, way: str) -> None:
    """Stop being root."""
    libc = ctypes.CDLL(None, use_errno=True)
    entry = pwd.getpwnam(name)
    if way == NAMESPACE:
        _enter_user_namespace(libc, entry.pw_uid, entry.pw_gid)
        return
    if way == REACH:
        _checked(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    if way == REACH:
        bit = 1 << CAP_DAC_OVERRIDE
        header = _CapabilityHeader(CAPABILITY_VERSION_3, 0)
        data = (_CapabilityData * 2)(_CapabilityData(bit, bit, bit), _CapabilityData(0, 0, 0))
        _checked(libc.capset(ctypes.byref(header), ctypes.byref(data)), "set capabilities")
        _checked(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0), "hand capabilities on")


def _enter_user_namespace(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _checked(libc.unshare(CLONE_NEWUSER), "make a user namespace")
    for path, content in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"{uid} {outer_uid} 1"),
        ("/proc/self/gid_map", f"{gid} {outer_gid} 1"),
    ):
        with open(path, "w") as file:
            file.write(content)


def bind_to(parent: int, signal_number: int) -> None:
    """Ask the kernel to end this process with its parent. Exits at once if the parent is gone already."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        _checked(libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "bind to the parent")
    if os.getppid() != parent:
        os._exit(1)


def main(arguments: list[str]) -> None:
    parent, signal_number, user, separator, *command = arguments
    assert separator == "--"
    if user != SAME_USER:
        way, _, name = user.partition(":")
        become(name, way)
    # Last: a change of user clears it.
    bind_to(int(parent), int(signal_number))
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
