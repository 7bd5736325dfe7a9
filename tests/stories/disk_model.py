"""A disk as strace saw it being written: what a killed process leaves on it, and what a power cut does.

A kill keeps every call that was made. A power cut keeps, at the least, bytes that a sync of their file covered and
names that a sync of their folder covered; at the most, everything; and anything between, so `torn` draws some of
it: names survive in the order of their making (file systems keep a journal of them), bytes in no order at all.
A rename is one entry of the journal and survives whole. SQLite's `-shm` never counts: it is made anew.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,creat,write,pwrite64,pwritev,writev,ftruncate,fallocate,fsync,fdatasync,sync_file_range,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,sendto,sendmsg"
)
PAGE = 4096

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_ON_FILE = re.compile(r"\d+<([^>]*)>")
_RESULT = re.compile(r"\) += (-?\d+)(?:<[^>]*>)?")
_UNFINISHED = " <unfinished ...>"


def tracing(trace: Path) -> tuple[str, ...]:
    """What to put before a command, so that `trace` can be read back by `steps`."""
    return (
        "strace",
        "-D",
        "-f",
        "-q",
        "-y",
        "-xx",
        "-s",
        "8388608",
        "-o",
        str(trace),
        "-e",
        f"trace={CALLS}",
    )


@dataclass(frozen=True)
class Step:
    """One system call that succeeded; `began` and `ended` are its places in the order of events."""

    call: str
    began: int
    ended: int
    paths: tuple[str, ...]
    data: bytes = b""
    numbers: tuple[int, ...] = ()
    flags: str = ""


def steps(trace: Path, within: Path) -> list[Step]:
    """Every step on the folder `within`, below it, or on its parent, and HTTP answers as steps named `answer`."""
    ours, answer = _hex(str(within.parent)), _hex("HTTP/1.1 ")
    open_calls: dict[tuple[str, str], tuple[int, str]] = {}
    found = []
    with trace.open(encoding="latin-1") as lines:
        for at, line in enumerate(lines):
            if not (match := _LINE.match(line.rstrip("\n"))):
                continue
            thread, resumed, begun, rest = match.groups()
            began, call = at, resumed or begun
            if resumed:
                if (thread, call) not in open_calls:
                    continue
                began, earlier = open_calls.pop((thread, call))
                rest = earlier + rest
            if ours not in rest and answer not in rest:
                continue
            if rest.endswith(_UNFINISHED):
                open_calls[thread, call] = at, rest.removesuffix(_UNFINISHED)
                if answer in rest and ours not in rest:
                    found.append(Step("answer", at, at, (), _strings(rest)[0]))
                continue
            if ours not in rest:
                if not resumed:
                    found.append(Step("answer", at, at, (), b"".join(_strings(rest))))
            elif step := _step(call, began, at, rest, str(within)):
                found.append(step)
    return sorted(found, key=lambda step: step.ended)


def _hex(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def _below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/") or path == folder.rpartition("/")[0]


def _plain(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _strings(text: str) -> list[bytes]:
    assert '"...' not in text, "strace cut a string short"
    return [_plain(escaped) for escaped, _ in _STRING.findall(text)]


def _step(call: str, began: int, ended: int, rest: str, within: str) -> Step | None:
    result = _RESULT.search(rest)
    if result is None or int(result[1]) < 0:
        return None
    arguments = rest[: result.start()]
    if call in (
        "openat",
        "creat",
        "rename",
        "renameat",
        "renameat2",
        "link",
        "unlink",
        "mkdir",
        "mkdirat",
        "rmdir",
    ):
        paths = tuple(text.decode() for text in _strings(arguments))
        flags = arguments.rpartition('"')[2]
        return Step(call, began, ended, paths, flags=flags) if _below(paths[0], within) else None
    on = _ON_FILE.match(arguments)
    if on is None or "(deleted)" in rest or _hex(" (deleted)") in on[1]:
        return None
    path = _plain(on[1]).decode()
    if not _below(path, within):
        return None
    data = b"".join(_strings(arguments))[: int(result[1])] if "write" in call else b""
    numbers = tuple(map(int, re.findall(r", (\d+)", re.sub(r'"[^"]*"', "", arguments))))
    return Step(call, began, ended, (path,), data, numbers)


@dataclass(eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[tuple[int, bytes]] = field(default_factory=list)  # (offset, bytes); -1 - n: cut to n bytes

    def write(self, offset: int, data: bytes) -> None:
        _put(self.content, offset, data)
        self.pending.append((offset, data))

    def torn(self, draw: random.Random) -> bytes:
        content = bytearray(self.synced)
        for offset, data in self.pending:
            pieces = range(0, max(len(data), 1), PAGE)
            for start in pieces:
                if draw.random() < 0.5:
                    _put(content, offset + start if offset >= 0 else offset, data[start : start + PAGE])
        return bytes(content)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset < 0:
        del content[-1 - offset :]
        content.extend(bytes(max(0, -1 - offset - len(content))))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


@dataclass(eq=False)
class _Folder:
    entries: "dict[str, _File | _Folder]" = field(default_factory=dict)
    synced: "dict[str, _File | _Folder]" = field(default_factory=dict)


Change = tuple[_Folder, str, "_File | _Folder | None"]


class Disk:
    """The folder `root` and all below it, empty at first, carried through the steps one by one."""

    def __init__(self, root: Path, trace: Sequence[Step]) -> None:
        self._root = str(root)
        self._top = _Folder()
        self._journal: list[list[Change]] = []
        self._snapshots: dict[int, bytes] = {}
        self._events = sorted(
            [(step.ended, 1, step) for step in trace]
            + [(step.began, 0, step) for step in trace if step.call in ("fsync", "fdatasync")],
            key=lambda event: event[:2],
        )

    def play(self) -> Iterator[Step]:
        """Each step that changes something, or answers, right after it was made."""
        for _, ends, step in self._events:
            if not ends:
                node = self._find(step.paths[0])
                if isinstance(node, _File):
                    # Only what was written before the sync began is covered by it.
                    self._snapshots[step.began] = bytes(node.content)
                    node.pending.append((0, b""))  # a mark: all before it
            elif step.call == "answer" or self._make(step):
                yield step

    def _find(self, path: str) -> "_File | _Folder | None":
        node: _File | _Folder | None = self._top
        for name in path[len(self._root) :].strip("/").split("/"):
            if name:
                node = node.entries.get(name) if isinstance(node, _Folder) else None
        return node

    def _parent(self, path: str) -> tuple[_Folder, str]:
        folder, _, name = path.rpartition("/")
        parent = self._find(folder)
        assert isinstance(parent, _Folder), path
        return parent, name

    def _change(self, *changes: Change) -> None:
        for folder, name, node in changes:
            if node is None:
                folder.entries.pop(name, None)
            else:
                folder.entries[name] = node
        self._journal.append(list(changes))

    def _make(self, step: Step) -> bool:
        """Whether the step changed anything that matters."""
        path = step.paths[0]
        if path.endswith("-shm") or "/scratch" in path[len(self._root) :]:
            return False
        node = self._find(path)
        match step.call:
            case "openat" | "creat":
                if "O_CREAT" in step.flags and node is None:
                    self._change((*self._parent(path), _File()))
                elif "O_TRUNC" in step.flags and isinstance(node, _File):
                    node.write(-1, b"")
                else:
                    return False
            case "mkdir" | "mkdirat":
                self._change((*self._parent(path), _Folder()))
            case "unlink" | "unlinkat" | "rmdir":
                self._change((*self._parent(path), None))
            case "rename" | "renameat" | "renameat2":
                assert node is not None, path
                self._change((*self._parent(path), None), (*self._parent(step.paths[1]), node))
            case "write" | "writev":
                assert isinstance(node, _File), path
                node.write(len(node.content), step.data)
            case "pwrite64" | "pwritev":
                assert isinstance(node, _File), path
                node.write(step.numbers[-1], step.data)
            case "ftruncate":
                assert isinstance(node, _File), path
                node.write(-1 - step.numbers[0], b"")
            case "fsync" | "fdatasync":
                self._sync(node, step)
            case _:
                raise AssertionError(f"the model knows no {step.call} of {path}")
        return True

    def _sync(self, node: "_File | _Folder | None", step: Step) -> None:
        if isinstance(node, _File):
            node.synced = self._snapshots.pop(step.began)
            del node.pending[: 1 + node.pending.index((0, b""))]
        elif isinstance(node, _Folder):
            kept = []
            for number, changes in enumerate(self._journal):
                if any(folder is node for folder, _, _ in changes):
                    self._settle(changes, self._journal[:number])
                else:
                    kept.append(changes)
            self._journal = [changes for changes in kept if changes]

    @staticmethod
    def _settle(changes: list[Change], earlier: Sequence[list[Change]]) -> None:
        for folder, name, node in changes:
            if node is None:
                folder.synced.pop(name, None)
            else:
                folder.synced[name] = node
            for one in earlier:  # what came before for the same name has been overtaken
                one[:] = [change for change in one if change[0] is not folder or change[1] != name]

    def after_a_kill(self, target: Path) -> None:
        _lay(self._top, target, {}, None, now=True)

    def after_a_power_cut(self, target: Path) -> None:
        """No more than the syncs cover."""
        _lay(self._top, target, {}, None)

    def torn(self, target: Path, draw: random.Random) -> None:
        """What the syncs cover and some of the rest."""
        names: dict[_Folder, dict[str, _File | _Folder]] = {}
        for changes in self._journal[: draw.randint(0, len(self._journal))]:
            for folder, name, node in changes:
                entries = names.setdefault(folder, dict(folder.synced))
                if node is None:
                    entries.pop(name, None)
                else:
                    entries[name] = node
        _lay(self._top, target, names, draw)


def _lay(
    folder: _Folder,
    target: Path,
    names: "dict[_Folder, dict[str, _File | _Folder]]",
    draw: random.Random | None,
    *,
    now: bool = False,
) -> None:
    target.mkdir(exist_ok=True)
    for name, node in (folder.entries if now else names.get(folder, folder.synced)).items():
        if isinstance(node, _Folder):
            _lay(node, target / name, names, draw, now=now)
        else:
            (target / name).write_bytes(node.content if now else node.torn(draw) if draw else node.synced)
