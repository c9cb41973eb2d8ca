"""Named members of zip files, unpacked whole or not at all; what else is in them is left there."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from data.download.known_corpora import Content
from utils.errors import UserError
from utils.files import sync_folder

BLOCK_BYTES = 1 << 20


def unpack(archive: Path, members: Sequence[Content], folder: Path) -> None:
    """Writes members of a zip file into `folder`, under the last part of their names.

    The names to write come from `members`, never from the zip file, so no path in it matters. A
    member is read up to its known size and no further, whatever the zip file says.

    Raises:
        UserError: not a zip file, damaged, or a member is missing or is not what it should be.
        OSError: a file can't be written.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            for member in members:
                _unpack_one(zipped, archive, member, folder / Path(member.name).name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive}: not a whole zip file ({error}); remove it and download it again"
        ) from None


def _unpack_one(zipped: zipfile.ZipFile, archive: Path, member: Content, target: Path) -> None:
    wrong = f"{archive}: its {member.name} is not the known one; remove it and download it again"
    try:
        stream = zipped.open(member.name)
    except KeyError:
        raise UserError(f"{archive}: holds no {member.name}; is it another file?") from None
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with stream, open(temporary, "wb") as file:
            while block := stream.read(BLOCK_BYTES):
                size_bytes += len(block)
                if size_bytes > member.size_bytes:
                    raise UserError(f"{archive}: its {member.name} is larger than the known one")
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != member.sha256:
            raise UserError(wrong)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
