"""Where the checkout may be a stranger's: Python loads nothing from it that the trusted commits do not have.

An audit hook (https://docs.python.org/3/library/audit_events.html) sees every file before it is opened, every source
before it is compiled and every extension module before it is loaded, whoever does it; nobody can take it away again.
"""

from __future__ import annotations

import _thread
import configparser
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import site
import stat
import sys
import sysconfig
import zipimport
from importlib._bootstrap_external import FileLoader

from atomic_upgrade.channel import channel
from atomic_upgrade.failures import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    # The path that is a stranger's, and why.
    Foreign = tuple[str, str]

# Code, SQL, templates and configuration, which is checked whoever reads it; other files may be data.
telling = re.compile(
    r"(%s|\.pyo|\.pyw|\.pth|\.ini|\.cfg|\.conf|\.toml|\.ya?ml|\.sql|\.psql|\.pgsql|\.ddl|\.mako|^\.env.*|\.env|\.flaskenv)$"
    % "|".join(re.escape(suffix) for suffix in importlib.machinery.all_suffixes()),
    re.I,
)


class Written:
    """The files and links that a run has written itself, by their identities; what it is forked from shares them with all.

    Each run begins behind those that may have written what it reads. Without forks there is one run.
    """

    def __init__(self) -> None:
        self.known: set[tuple[int, int]] = set()
        # What has come to it and gone, a line each. It has no name by which anybody could find it.
        self.log: int | None = None
        self.read = 0
        if hasattr(os, "memfd_create"):
            import fcntl

            self.log = os.memfd_create("written")
            fcntl.fcntl(self.log, fcntl.F_SETFL, os.O_APPEND)

    def __contains__(self, identity: tuple[int, int]) -> bool:
        self.catch_up()
        return identity in self.known

    def add(self, identity: tuple[int, int]) -> None:
        if identity not in self:
            self.note(b"+", identity)

    def discard(self, identity: tuple[int, int]) -> None:
        if identity in self:
            self.note(b"-", identity)

    def note(self, sign: bytes, identity: tuple[int, int]) -> None:
        line = b"%s %d %d\n" % (sign, *identity)
        if self.log is None:
            self.hear(line)
        else:
            os.write(self.log, line)

    def catch_up(self) -> None:
        while self.log is not None:
            lines = os.pread(self.log, 1 << 20, self.read)
            lines = lines[: lines.rfind(b"\n") + 1]
            if not lines:
                return
            self.read += len(lines)
            for line in lines.splitlines():
                self.hear(line)

    def hear(self, line: bytes) -> None:
        sign, device, inode = line.split()
        change = self.known.add if sign == b"+" else self.known.discard
        change((int(device), int(inode)))


class Checkout:
    def __init__(self, roots: list[str], files: dict[str, str], links: dict[str, str]) -> None:
        self.roots = [os.fsdecode(root.encode()) for root in roots]
        # Each character of these paths is a byte.
        self.files, self.links = (
            {os.fsdecode(path.encode("latin-1")): blob for path, blob in each.items()} for each in (files, links)
        )
        self.installed = {path for each in installed() for path in (os.path.abspath(each), os.path.realpath(each))}
        # Of a folder, what `place` returns.
        self.folders: dict[str, tuple[str, tuple[str, ...]]] = {}
        # From nothing or from what was known, whatever they are called by now.
        self.written = Written()
        # Where it is about to make one.
        self.coming: set[str] = set()

    def place(self, path: str) -> tuple[str, tuple[str, ...]]:
        """The real path, and the symbolic links of the checkout on the way to it."""
        folder, name = os.path.split(path)
        if not name or folder == path:
            return (path, ()) if not name and folder == path else self.place(folder)
        if folder not in self.folders:
            self.folders[folder] = self.place(folder)
        real, links = self.folders[folder]
        if name == os.curdir:
            return real, links
        if name == os.pardir:
            return os.path.dirname(real), links
        here = os.path.join(real, name)
        if not os.path.islink(here):
            return here, links
        if within(here, self.roots) and not self.is_installed(here) and identity(os.lstat(here)) not in self.written:
            links = (*links, here)
        end, more = self.place(os.path.join(real, os.readlink(here)))
        return end, (*links, *more)

    def is_installed(self, link: str) -> bool:
        """A virtual environment may be a link, and its packages may be links."""
        return within(link, self.installed) or any(within(each, [link]) for each in self.installed)

    def check(self, path: str | bytes | os.PathLike[str], data: bytes | None = None) -> None:
        """Ends the run unless the file is the trusted commit's, or none of the checkout's. `data` are its bytes if they are read."""
        found = self.foreign(absolute(path), data)
        if found:
            refuse(*found)

    def foreign(self, path: str, data: bytes | None = None) -> Foreign | None:
        """What of a path is a stranger's, and why; None for nothing."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        real, links = self.place(path)
        for link in links:
            if not named(os.fsencode(os.readlink(link)), self.links.get(link)):
                return link, "is a symbolic link that the trusted commit does not have"
        if within(real, self.installed) or identity(status) in self.written:
            return None
        if not within(real, self.roots):
            return (links[0], "leads out of the checkout, to %s" % real) if links else None
        if real not in self.files:
            return real, "is not in the trusted commit"
        if data is None:
            with open(real, "rb") as file:
                data = file.read()
        return None if named(data, self.files[real]) else (real, "is not as the trusted commit has it")

    def opened(self, path: int | str | bytes | os.PathLike[str], mode: str | None, flags: int) -> None:
        if isinstance(path, int):
            return
        name = os.fsdecode(path)
        is_certain = mode is not None or os.path.isabs(name)
        # Without a mode it is os.open, which may count from another folder than the current one.
        for folder in () if is_certain else opened_folders():
            if flags & os.O_CREAT or os.path.isfile(os.path.join(folder, name)):
                self.opened_at(os.path.join(folder, name), flags, is_certain)
        self.opened_at(absolute(name), flags, is_certain)

    def opened_at(self, path: str, flags: int, is_certain: bool) -> None:
        if flags & os.O_CREAT and not os.path.lexists(path):
            self.coming.add(spot(path))
            return
        if flags & os.O_EXCL:
            return
        if flags & os.O_TRUNC:
            if is_certain and os.access(path, os.W_OK):
                self.written.add(identity(os.stat(path)))
            return
        if path.endswith(".pyc"):
            self.look_at_cached(path)
        if not any(telling.search(os.path.basename(each)) for each in (path, os.path.realpath(path))):
            return
        if not flags & os.O_WRONLY:
            self.check(path)
        # What it adds to a file that is known.
        if flags & (os.O_WRONLY | os.O_RDWR) and is_certain and os.access(path, os.W_OK) and not self.foreign(path):
            self.written.add(identity(os.stat(path)))

    def arrived(self) -> None:
        """What was about to be made may be there by now."""
        for path in list(self.coming):
            with contextlib.suppress(OSError, ValueError):
                self.written.add(identity(os.lstat(path)))
                self.coming.discard(path)

    def renamed(self, old: str, new: str, *folders: int) -> None:
        self.folders.clear()
        gone = [spot(absolute(path)) for path in (old, new)]
        # From a folder that nobody tells, anything may come to any place.
        is_certain = all(folder == -1 for folder in folders)
        self.coming = {path for path in self.coming if is_certain and not within(path, gone)}

    def linked(self, _: str, new: str, folder: int = -1) -> None:
        self.folders.clear()
        if folder == -1 and not os.path.lexists(new):
            self.coming.add(spot(absolute(new)))

    def removed(self, path: str, folder: int = -1) -> None:
        """Its inode may become another file's."""
        with contextlib.suppress(OSError, ValueError):
            status = os.lstat(path)
            if folder == -1 and status.st_nlink == 1:
                self.written.discard(identity(status))

    def look_at_cached(self, path: str) -> None:
        """The bytecode of a source in the checkout is not there: Python compiles the source."""
        try:
            source = importlib.util.source_from_cache(path)
        except (ValueError, NotImplementedError):
            return
        source, _ = self.place(absolute(source))
        if within(source, self.roots) and not within(source, self.installed) and os.path.isfile(source):
            raise FileNotFoundError(path)

    def compiled(self, filename: str | bytes | None) -> None:
        """`filename` may lie in an archive."""
        if not isinstance(filename, (str, bytes)) or filename in ("", b"") or b"\0" in os.fsencode(filename):
            return
        path = absolute(filename)
        while not os.path.exists(path) and os.path.dirname(path) != path:
            path = os.path.dirname(path)
        self.check(path)


def installed() -> list[str]:
    """What the steps before have installed: the folders of this interpreter's own library and packages."""
    paths = sysconfig.get_paths()
    found = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib") if name in paths]
    found += getattr(site, "getsitepackages", list)()
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return found


def absolute(path: str | bytes | os.PathLike[str]) -> str:
    """Like os.path.abspath, which takes `..` for the folder above also behind a link."""
    path = os.fsdecode(path)
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def spot(path: str) -> str:
    """Where a path lies, be it a link or nothing."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def opened_folders() -> list[str]:
    """The folders that this process has open, where the system tells."""
    try:
        links = [os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    except OSError:
        return []
    return [os.readlink(link) for link in links if os.path.isdir(link)]


def within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def named(data: bytes, blob: str | None) -> bool:
    """Whether git stores these bytes under that name: as they are, with its own line ends, or with its `$Id$`."""
    if blob is None:
        return False
    stored = data.replace(b"\r\n", b"\n")
    expanded = b"$Id: " + blob.encode() + b" $"
    return any(name_of(each, blob) == blob for each in (data, stored, stored.replace(expanded, b"$Id$")))


def name_of(data: bytes, like: str) -> str:
    hash = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    return hash(b"blob %d\0" % len(data) + data).hexdigest()


def refuse(path: str, why: str) -> NoReturn:
    told = "This event has secrets, and Python would load what may be a stranger’s: %s %s."
    end(Failed("untrusted", told % (os.path.relpath(path), why), path=path))


def end(failure: Failed) -> NoReturn:
    """Ends Python here and now: whoever asked for the file might go on without it."""
    try:
        channel.send(failed=failure.told())
    finally:
        # Also in the process that has nobody to tell it to (twin.py).
        os._exit(1)


def watch(roots: list[str], files: dict[str, str], links: dict[str, str], python_path: str) -> list[str]:
    """From now on nothing foreign is loaded. Returns the folders of PYTHONPATH, which Python was started without."""
    if not hasattr(sys, "addaudithook"):
        told = "This event has secrets, and Python %s cannot watch what it loads: use 3.8 or newer."
        end(Failed("untrusted", told % sys.version.split()[0]))
    checkout = Checkout(roots, files, links)
    looking = _thread._local()
    moving: dict[str, Callable[..., None]] = {
        "os.rename": checkout.renamed,
        "os.link": checkout.renamed,
        "os.symlink": checkout.linked,
        "os.remove": checkout.removed,
    }
    looked_at = {"open", "compile", "import", "ctypes.dlopen", *moving}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in looked_at or getattr(looking, "now", False):
            return
        looking.now = True
        try:
            checkout.arrived()
            if event == "open":
                checkout.opened(*arguments)
            elif event == "compile":
                checkout.compiled(arguments[1])
            elif event in moving:
                moving[event](*arguments)
            else:
                path = arguments[1] if event == "import" else arguments[0]
                if path and os.sep in os.fsdecode(path):
                    checkout.check(path)
        finally:
            looking.now = False

    get_data, open_archive = FileLoader.get_data, zipimport.zipimporter.__init__

    def read(self: FileLoader, path: str) -> bytes:
        data = get_data(self, path)
        if path == self.path:
            checkout.check(path, data)
        return data

    def open_checked(self: zipimport.zipimporter, path: Any) -> None:
        open_archive(self, path)
        checkout.check(self.archive)

    configurations: Any = configparser.RawConfigParser
    read_configuration = configurations._read

    def read_checked(self: configparser.RawConfigParser, lines: Iterable[str], name: object) -> Any:
        # logging.config evaluates what stands in it, whatever it is called.
        if isinstance(name, (str, bytes, os.PathLike)):
            checkout.check(name)
        return read_configuration(self, lines, name)

    # Python 3.9 to 3.14. No event of the audit hook has the bytes, nor tells of an archive or a configuration by its use.
    configurations._read = read_checked
    FileLoader.get_data = read  # type: ignore[method-assign]
    zipimport.zipimporter.__init__ = open_checked  # type: ignore[method-assign]
    sys.addaudithook(hook)
    for module in list(sys.modules.values()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if isinstance(origin, str) and os.path.isabs(origin):
            checkout.check(origin)
    if not python_path:
        return []
    os.environ["PYTHONPATH"] = python_path
    return [os.path.abspath(each) for each in python_path.split(os.pathsep)]
