"""A fresh file system on the disk for each restore.

ext4 gives out no inode that was deleted in the last minutes, and searches past all of them: a restore after the
removal of an earlier one is several times slower than the first.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager

from measure import files_below, run, size

MIB = 1 << 20


class Disk:
    """Makes file systems in an image below `work`, with room for a copy of the folder that is restored."""

    def __init__(self, work):
        self.image, self.mount = f"{work}/disk.image", f"{work}/disk"
        os.makedirs(self.mount)

    @contextmanager
    def fresh(self, path):
        """A folder on an empty file system, which is gone afterwards."""
        files = len(files_below(path))
        room = 2 * (size(path) + files * 8192) + 1024 * MIB
        with open(self.image, "wb") as image:
            image.truncate(room)
        # Without lazy_*, the kernel would write its tables while a restore is measured.
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-N", str(2 * files + 65536),
            self.image)
        run("mount", "-o", "loop", self.image, self.mount)
        try:
            yield self.mount
        finally:
            # Lazily, for a command that still runs when the comparison is ended.
            run("umount", "-l", self.mount)
            os.remove(self.image)


class Folder:
    """The disk of the working folder, where no file system can be mounted."""

    def __init__(self, work):
        self.folder = f"{work}/disk.folder"

    @contextmanager
    def fresh(self, _path):
        os.makedirs(self.folder)
        try:
            yield self.folder
        finally:
            shutil.rmtree(self.folder)


class Memory(Folder):
    """A folder in memory."""

    def __init__(self, folder):
        super().__init__(folder)
        self.folder = f"{folder}/restored"


def open_disk(work, report):
    """A disk whose file systems are fresh, if this process may mount one."""
    disk = Disk(work)
    try:
        with open(disk.image, "wb") as image:
            image.truncate(64 * MIB)
        for command in (["mkfs.ext4", "-q", "-F", disk.image], ["mount", "-o", "loop", disk.image, disk.mount],
                        ["umount", disk.mount]):
            subprocess.run(command, check=True, capture_output=True)
        os.remove(disk.image)
        return disk
    except (OSError, subprocess.CalledProcessError):
        report("no file system can be mounted here (it needs root, loop devices and mkfs.ext4): restores to the disk "
               "share one that remembers the files of earlier ones, which can take several times as long")
        return Folder(work)
