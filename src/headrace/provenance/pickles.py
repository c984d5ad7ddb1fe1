"""What would be executed if a file were unpickled, found without unpickling anything.

A pickle is a program: the names that it imports are what it can call. These readers fail closed: what cannot be
followed counts as dangerous. They are the first guard and never the only one; a worker loads in isolation.
"""

import bz2
import contextlib
import io
import json
import lzma
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

#: What `torch.load(weights_only=True)` may build: tensors and plain containers.
SAFE_GLOBALS = re.compile(
    r"collections OrderedDict|_codecs encode|(?:builtins|__builtin__) (?:set|complex|bytearray)"
    r"|torch\._utils _rebuild_(?:tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|qtensor|sparse_tensor)"
    r"|torch\.nn\.parameter Parameter|torch\.serialization _get_layout|torch\.storage (?:Untyped|Typed)Storage"
    r"|torch (?:[A-Z][A-Za-z0-9]*Storage|Size|device|Tensor|[a-z]+[0-9]+(?:_[a-z0-9]+)*|bool|per_\w+|strided)"
)
#: Opcodes that can name a global in a way that is not followed here.
_OBSCURE = frozenset({"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"})
_CALLS = frozenset({"INST", "OBJ", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX"})
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING"})


class _Decompressor(Protocol):
    def decompress(self, content: bytes, most: int, /) -> bytes: ...


#: What joblib compresses by, and LZ4, which is not followed here.
_COMPRESSED: Mapping[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31), b"BZh": bz2.BZ2Decompressor, b"\xfd7zXZ": lzma.LZMADecompressor,
    b"]\x00": lzma.LZMADecompressor, b"x": zlib.decompressobj,
}  # fmt: skip
_LZ4 = b"\x04\x22M\x18"
_ZIP = b"PK\x03\x04"
_NUMPY = b"\x93NUMPY"
#: What the standard library raises on a member that is broken, encrypted or compressed in an unknown way.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError, OSError)
_UNKNOWN = "something that cannot be followed"
_HEAD_BYTES = 1 << 22
#: Where an archive of `torch.export.save` keeps the graph, since torch 2.8 and before.
_PROGRAM = frozenset({"models/model.json", "serialized_exported_program.json"})


@dataclass(frozen=True, slots=True)
class Program:
    """What a pickle stream does.

    Attributes:
        names: the globals that it imports, as `module name`; best effort where they are put together at run time.
        is_plain: every opcode could be followed to the end.
    """

    names: Sequence[str]
    is_plain: bool

    @property
    def unsafe(self) -> Sequence[str]:
        """The names beyond tensors and plain containers; never empty where the stream could not be followed."""
        found = [name for name in dict.fromkeys(self.names) if not SAFE_GLOBALS.fullmatch(name)]
        return found or ([] if self.is_plain else [_UNKNOWN])


def read_program(stream: bytes) -> Program:
    """Return what a stream of pickles would import: the first, and all that follow it without a gap.

    A file of `torch.save` before torch 1.6 is five pickles and then the tensors' bytes.
    """
    file = io.BytesIO(stream)
    program = _read_one(file)
    found = program
    while program.is_plain and file.tell() < len(stream):
        before = file.tell()
        program = _read_one(file)
        if not program.names and not program.is_plain:  # No pickle any more.
            file.seek(before)
            break
        found = Program([*found.names, *program.names], found.is_plain and program.is_plain)
    return found


def _read_one(file: BinaryIO) -> Program:
    names: list[str] = []
    strings: list[str] = []
    is_plain = True
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in _STRINGS:
                strings.append(str(argument))
            elif opcode.name == "GLOBAL":
                names.append(str(argument))
            elif opcode.name in _OBSCURE:
                is_plain = False
                names.append(str(argument) if opcode.name == "INST" else " ".join(strings[-2:]))
    except Exception:  # noqa: BLE001 - pickletools raises anything on a broken stream, and broken is not plain
        is_plain = False
    return Program(names, is_plain)


def is_torchscript(path: Path) -> bool:
    """Tell whether `torch.load` would hand a file to TorchScript's own loader, which imports no Python.

    torch looks for `constants.pkl` right below the root folder, and at no other place.
    """
    with path.open("rb") as file:
        if not _is_zip(file):
            return False
        try:
            with _opened(file) as archive:
                return _members(archive).get("constants.pkl", "").endswith("/constants.pkl")
        except zipfile.BadZipFile:
            return False


def torch_file_unsafe(path: Path) -> Sequence[str]:
    """Return what a file of `torch.save` would import beyond tensors; all of it where it is no archive."""
    with path.open("rb") as file:
        return _torch_unsafe(file)


def _torch_unsafe(file: BinaryIO) -> Sequence[str]:
    if not _is_zip(file):
        return read_program(file.read()).unsafe
    try:
        with _opened(file) as archive:
            return read_program(archive.read(_members(archive)["data.pkl"])).unsafe
    except (*_UNREADABLE, KeyError):
        return [_UNKNOWN]


def _is_zip(file: BinaryIO) -> bool:
    """Tell whether torch and NumPy take a file for an archive: they look at its first bytes, Python at its end.

    The file is read from its beginning afterwards.
    """
    is_zip = file.read(len(_ZIP)) == _ZIP
    file.seek(0)
    return is_zip


def _opened(file: BinaryIO) -> zipfile.ZipFile:
    """Return the archive that begins where the file does; one behind it would be seen by Python and not by torch.

    Raises:
        zipfile.BadZipFile: there is none.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (ValueError, NotImplementedError, struct.error) as error:
        raise zipfile.BadZipFile(str(error)) from error
    if min((member.header_offset for member in archive.infolist()), default=0) != 0:
        raise zipfile.BadZipFile("the archive does not begin where the file does")
    return archive


def _members(archive: zipfile.ZipFile) -> Mapping[str, str]:
    """Return an archive's members by their names below its root folder, in small letters: to torch, case is nothing.

    Archives of torch 2.7 and before have no root folder; only extra files are in a folder there.

    Raises:
        zipfile.BadZipFile: two members share one name, or there is more than one root folder.
    """
    names = archive.namelist()
    is_flat = any("/" not in name for name in names)
    roots = {name.partition("/")[0] for name in names if "/" in name}
    if "" in roots or (roots - {"extra_files"} if is_flat else len(roots) > 1):
        raise zipfile.BadZipFile("it has more than one root folder")
    members = {(name if is_flat else name.partition("/")[2]).lower(): name for name in names}
    if len(members) != len(names):
        raise zipfile.BadZipFile("two members share one name")
    return members


def pt2_unsafe(path: Path) -> Sequence[str]:
    """Return what `torch.export.load` would execute besides the graph, as sentences; empty for an ordinary archive.

    It unpickles weights and constants whose configuration says so, and the sample inputs, with `weights_only=False`
    as the last resort; it loads compiled libraries. An archive of `torch.export.save` holds raw tensors only.
    """
    try:
        with path.open("rb") as file, _opened(file) as archive:
            members = _members(archive)
            if not _PROGRAM & {*members}:
                return ["it holds no exported program"]
            found = [sentence for member in members if (sentence := _native(member))]
            for member in _pickled_members(archive, members):
                unsafe = _member_unsafe(archive, members.get(member))
                found += [f"`{member}` would import {', '.join(unsafe[:3])}"] if unsafe else []
            return found
    except (*_UNREADABLE, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"it is no archive of `torch.export.save` ({error})"]


def _member_unsafe(archive: zipfile.ZipFile, name: str | None) -> Sequence[str]:
    return _torch_unsafe(io.BytesIO(archive.read(name))) if name else ["a member that is missing"]


def _native(member: str) -> str:
    if re.match(r"data/(?:aotinductor|executorch|mtia)/", member):
        return f"`{member}` is compiled code"
    if re.match(r"data/constants/(?:custom_obj|opaque_obj)_", member):
        return f"`{member}` is an object of a class of its own"
    return ""


def _pickled_members(archive: zipfile.ZipFile, members: Mapping[str, str]) -> list[str]:
    """Return the members that would be unpickled: sample inputs, and what a configuration says is pickled."""
    found = [name for name in members if name.startswith("data/sample_inputs/")]
    # torch 2.7 and older: the members lie at the top, without a folder, and the first ones are called JSON.
    found += [name for name in members if re.search(r"(?:^|/)serialized_(?!exported_program)\w+\.(?:pt|json)$", name)]
    for name in members:
        if not re.fullmatch(r"data/(?:weights|constants)/[^/]*_config\.json", name):
            continue
        for entry in json.loads(archive.read(members[name]))["config"].values():
            is_raw = entry["use_pickle"] is False and re.match(r"(?:weight|tensor)_", entry["path_name"])
            found += [] if is_raw else [f"{name.rpartition('/')[0]}/{entry['path_name']}".lower()]
    return found


def artifact_unsafe(path: Path) -> Sequence[str]:
    """Return what an artifact would import if the model's own code unpickled it; empty where it is no pickle.

    Archives of `torch.save` with tensors only are no danger, because `weights_only` loads them.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_ZIP):
        return _zip_unsafe(path)
    if head.startswith(_LZ4):
        return [_UNKNOWN]
    content = _decompressed(head)
    if content.startswith(_NUMPY):
        return _array_unsafe(content)
    is_cut = max(len(head), len(content)) == _HEAD_BYTES
    if not _is_pickle(content, is_cut=is_cut):
        return []
    if is_cut and content is head:  # Only the whole file tells a long text or number from a long pickle.
        content, is_cut = path.read_bytes(), False
        if not _is_pickle(content):
            return []
    return read_program(content).unsafe or ([_UNKNOWN] if is_cut else [])


def _zip_unsafe(path: Path) -> Sequence[str]:
    try:
        with path.open("rb") as file, _opened(file) as archive:
            if any(name.rpartition("/")[2].lower() == "data.pkl" for name in archive.namelist()):
                return [] if is_torchscript(path) else torch_file_unsafe(path)
            # NumPy knows its arrays by their beginning, whatever they are called.
            arrays = [name for name in archive.namelist() if _is_array(archive, name)]
            found = [_array_unsafe(_head_of(archive, name)) for name in arrays]
    except zipfile.BadZipFile:
        return [_UNKNOWN]
    return next((unsafe for unsafe in found if unsafe), [])


def _is_array(archive: zipfile.ZipFile, name: str) -> bool:
    return name.endswith(".npy") or _head_of(archive, name, len(_NUMPY)) == _NUMPY


def _head_of(archive: zipfile.ZipFile, name: str, most: int = _HEAD_BYTES) -> bytes:
    """Return a member's beginning; nothing, which is no array, where it cannot be read."""
    with contextlib.suppress(*_UNREADABLE), archive.open(name) as member:
        return member.read(most)
    return b""


def _array_unsafe(head: bytes) -> Sequence[str]:
    """Return what a NumPy array would import: one of objects is a pickle behind its header."""
    import numpy as np

    file = io.BytesIO(head)
    try:
        is_first = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        _, _, dtype = read(file)
    except Exception:  # noqa: BLE001 - NumPy raises anything on a broken header, and broken is not plain
        return [_UNKNOWN]
    return (read_program(file.read()).unsafe or ["objects"]) if dtype.hasobject else []


def _is_pickle(head: bytes, *, is_cut: bool = False) -> bool:
    """Tell whether bytes begin as a pickle does, or work as one: protocols 0 and 1 have no beginning of their own.

    Text can consist of opcodes by chance, but it does not keep their stack in order. What has called something is a
    pickle also where it breaks off afterwards. Where more follows (`is_cut`), what is in order to its last byte may be
    one.
    """
    if re.match(rb"\x80[\x00-\x05]", head) and not _is_safetensors(head):
        return True
    depth, marks, is_named = 0, list[int](), False
    file = io.BytesIO(head)
    try:
        for opcode, _, _ in pickletools.genops(file):
            taken = opcode.stack_before
            if pickletools.markobject in taken:
                depth = marks.pop() - taken.index(pickletools.markobject)
            else:
                depth -= len(taken)
            if depth < 0:
                return False
            if opcode.name == "STOP":
                return True
            is_named = is_named or opcode.name == "GLOBAL" or opcode.name in _OBSCURE
            if is_named and opcode.name in _CALLS:
                return True
            if opcode.name == "MARK":
                marks.append(depth)
            depth += len(opcode.stack_after)
    except Exception:  # noqa: BLE001 - pickletools raises anything on what is no pickle
        return is_cut and file.tell() == len(head)
    return False


def _is_safetensors(head: bytes) -> bool:
    """Tell whether bytes begin with a JSON header's length and that header: the length may look like a pickle."""
    length = int.from_bytes(head[:8], "little")
    try:
        return length > 1 and isinstance(json.loads(head[8 : 8 + length]), dict)
    except ValueError:
        return False


def _decompressed(head: bytes) -> bytes:
    """Return as much of what was compressed as its beginning tells; what is not compressed as it is."""
    for magic, make in _COMPRESSED.items():
        if head.startswith(magic):
            with contextlib.suppress(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
                return make().decompress(head, _HEAD_BYTES)
    return head
