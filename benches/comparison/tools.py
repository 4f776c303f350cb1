"""The tools that are compared. Each says how it makes a repository, backs up and restores.

A command is an argument list; `env` holds what the tool reads from its environment. `stores` names the stores that
the tool can write to. `where` is the repository's place in a store (stores.py).
"""

import os
import shutil

from measure import run

PASSWORD = "bench"


class Tool:
    """A tool of which most can be done: a subclass changes what it does otherwise."""

    stores = ("file",)
    # For --tools, and in names of folders and buckets.
    short = ""
    # False for a tool that keeps nothing between two runs: it has a first backup and full restores.
    repeats = True
    # False for a tool that stores nothing: it has full restores only.
    backs_up = True
    env = {}

    def __init__(self, work):
        self.home = f"{work}/home.{self.short}"
        os.makedirs(self.home)

    def create(self, where):
        """Makes an empty repository."""

    def environment(self, where):
        """What a command that uses the place finds in its environment."""
        return {**self.env, **where.env}

    def forget(self):
        """Removes what the tool keeps on this machine of a repository that is gone."""

    def restored(self, path, to):
        """Where a restore of `path` into `to` puts the contents of `path`."""
        return to


class Kbak(Tool):
    name = short = "kbak"
    stores = ("file", "s3", "link")
    hint = ""

    def __init__(self, work, program):
        super().__init__(work)
        self.program = program
        self.version = run(program, "--version").strip()
        self.identity = f"{self.home}/owner.key"
        self.owner = run(program, "keygen", "--no-passphrase", "-o", self.identity).strip()
        self.keys = f"{self.home}/keys"

    def options(self, where):
        if where.endpoint is None:
            return ["--repo", f"file://{where.folder}"]
        return ["--repo", f"s3://{where.bucket}/kbak", "--endpoint", where.endpoint, "--region", where.region,
                "--credentials-file", where.credentials]

    def create(self, where):
        os.makedirs(self.keys)
        lock = ["--no-lock"] if where.endpoint else []
        run(*where.prefix, self.program, "init", *self.options(where), *lock, "--recipient", self.owner,
            "--single-owner", "--identity", self.identity, "--folder", self.keys)

    def forget(self):
        shutil.rmtree(self.keys, ignore_errors=True)

    def backup(self, where, path):
        return [self.program, "backup", *self.options(where), "--writer-key", f"{self.keys}/writer.key",
                "--recipient", self.owner, "--path", path]

    def restore(self, where, path, to):
        return [self.program, "restore", "latest", *self.options(where), "--signer", f"{self.keys}/kbak.pub",
                "--identity", self.identity, "--to", to]

    def restore_one(self, where, path, file, to):
        return [*self.restore(where, path, to), "--item", "path" + path, "--path", file]


class Restic(Tool):
    name = short = "restic"
    stores = ("file", "s3", "link")
    hint = "Debian: restic; newer: go install github.com/restic/restic/cmd/restic@v0.19.1"

    def __init__(self, work, program):
        super().__init__(work)
        self.program = program
        self.version = " ".join(run(program, "version").split()[:2])
        self.env = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": f"{self.home}/cache"}

    def options(self, where):
        repository = f"s3:{where.endpoint}/{where.bucket}/restic" if where.endpoint else where.folder
        return ["-r", repository]

    def create(self, where):
        run(*where.prefix, self.program, "init", "-q", *self.options(where), env=self.environment(where))

    def forget(self):
        shutil.rmtree(f"{self.home}/cache", ignore_errors=True)

    def backup(self, where, path):
        return [self.program, *self.options(where), "backup", path]

    def restore(self, where, path, to):
        return [self.program, *self.options(where), "restore", "latest", "--target", to]

    def restore_one(self, where, path, file, to):
        return [*self.restore(where, path, to), "--include", f"{path}/{file}"]

    def restored(self, path, to):
        return to + path


class Rustic(Tool):
    """rustic reads and writes restic's format; files only here: its S3 needs a profile of its own."""

    name = short = "rustic"
    hint = "cargo install --locked rustic-rs"

    def __init__(self, work, program):
        super().__init__(work)
        self.program = program
        self.version = " ".join(run(program, "--version").split()[:2])
        # A home of its own: no profile of the user, and a cache that goes with it.
        self.env = {"RUSTIC_PASSWORD": PASSWORD, "HOME": self.home, "XDG_CACHE_HOME": f"{self.home}/cache",
                    "XDG_CONFIG_HOME": f"{self.home}/config", "RUSTIC_NO_PROGRESS": "true"}

    def environment(self, where):
        place = {}
        if where.endpoint:
            place = {"BUCKET": where.bucket, "ROOT": "/rustic", "ENDPOINT": where.endpoint, "REGION": where.region,
                     "ACCESS_KEY_ID": where.env["AWS_ACCESS_KEY_ID"],
                     "SECRET_ACCESS_KEY": where.env["AWS_SECRET_ACCESS_KEY"]}
        return {**self.env, **{f"OPENDAL_{name}": value for name, value in place.items()}}

    def command(self, where, *arguments):
        return [self.program, "-r", where.folder or "opendal:s3", *arguments]

    def create(self, where):
        run(*where.prefix, *self.command(where, "init"), env=self.environment(where))

    def forget(self):
        shutil.rmtree(f"{self.home}/cache", ignore_errors=True)

    def backup(self, where, path):
        return self.command(where, "backup", path)

    def restore(self, where, path, to):
        return self.command(where, "restore", f"latest:{path}", to)

    def restore_one(self, where, path, file, to):
        os.makedirs(os.path.dirname(f"{to}/{file}"))
        return self.command(where, "restore", f"latest:{path}/{file}", f"{to}/{file}")


class Kopia(Tool):
    name = short = "kopia"
    stores = ("file", "s3", "link")
    hint = "its releases, or go install github.com/kopia/kopia@latest where the module proxy has it"

    def __init__(self, work, program):
        super().__init__(work)
        self.program = program
        self.version = "kopia " + run(program, "--version").split()[0]
        self.env = {
            "KOPIA_PASSWORD": PASSWORD, "KOPIA_CONFIG_PATH": f"{self.home}/repository.config",
            "KOPIA_CACHE_DIRECTORY": f"{self.home}/cache", "KOPIA_LOG_DIR": f"{self.home}/logs",
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }

    def create(self, where):
        if where.endpoint:
            host = where.endpoint.removeprefix("http://")
            place = ["s3", "--bucket", where.bucket, "--endpoint", host, "--disable-tls", "--region", where.region]
        else:
            place = ["filesystem", "--path", where.folder]
        for arguments in (
            ["repository", "create", *place],
            # It compresses nothing by default; the others do.
            ["policy", "set", "--global", "--compression", "zstd"],
            ["maintenance", "set", "--enable-quick", "false", "--enable-full", "false"],
        ):
            run(*where.prefix, self.program, *arguments, env=self.environment(where))

    def forget(self):
        shutil.rmtree(self.home)
        os.makedirs(self.home)

    def backup(self, where, path):
        return [self.program, "snapshot", "create", "--no-progress", path]

    def restore(self, where, path, to):
        return [self.program, "restore", "--no-progress", path, to]

    def restore_one(self, where, path, file, to):
        os.makedirs(os.path.dirname(f"{to}/{file}"))
        return [self.program, "restore", "--no-progress", f"{path}/{file}",
                f"{to}/{file}"]


class Borg(Tool):
    name = short = "borg"
    hint = "Debian: borgbackup"

    def __init__(self, work, program):
        super().__init__(work)
        self.program = program
        self.version = run(program, "--version").strip()
        self.count = 0
        self.env = {"BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": f"{self.home}/base"}

    def create(self, where):
        run(self.program, "init", "-e", "repokey-blake2", where.folder, env=self.env)

    def forget(self):
        shutil.rmtree(f"{self.home}/base", ignore_errors=True)

    def backup(self, where, path):
        self.count += 1
        return [self.program, "create", "-C", "zstd,3", f"{where.folder}::{self.count}", path]

    def extract(self, where, to, path):
        os.makedirs(to)
        return ["sh", "-c", 'cd "$1" && exec "$2" extract "$3" "$4"', "sh", to, self.program,
                f"{where.folder}::{self.count}", path.lstrip("/")]

    def restore(self, where, path, to):
        return self.extract(where, to, path)

    def restore_one(self, where, path, file, to):
        return self.extract(where, to, f"{path}/{file}")

    def restored(self, path, to):
        return to + path


class Pipe(Tool):
    """tar | zstd | age: no tool that repeats, verifies or finds anything, and so a lower bound of the work."""

    name = "tar, zstd, age"
    short = "pipe"
    repeats = False
    hint = "Debian: zstd, age"

    def __init__(self, work, program):
        super().__init__(work)
        self.version = "zstd -3 -T2 " + run("zstd", "-V").split(" v")[-1].split(",")[0]
        self.key = f"{self.home}/key"
        run("age-keygen", "-o", self.key)
        self.recipient = run("age-keygen", "-y", self.key).strip()

    def create(self, where):
        os.makedirs(where.folder)

    def backup(self, where, path):
        script = 'set -o pipefail; tar -C "$1" -cf - . | zstd -3 -T2 -q | age -r "$2" -o "$3/data"; sync "$3/data"'
        return ["bash", "-c", script, "bash", path, self.recipient, where.folder]

    def restore(self, where, path, to):
        os.makedirs(to)
        script = 'set -o pipefail; age -d -i "$1" "$2/data" | zstd -dq | tar -C "$3" -xf -'
        return ["bash", "-c", script, "bash", self.key, where.folder, to]


class Copy(Tool):
    """cp -a: the time that the kernel itself takes to write the files."""

    name = "cp -a"
    short = "cp"
    repeats = backs_up = False
    hint = ""

    def __init__(self, work, program):
        super().__init__(work)
        self.version = ""

    def restore(self, where, path, to):
        return ["cp", "-a", path, to]


# Each with the variable that names its program, and the programs that it needs on PATH otherwise.
ALL = [
    (Kbak, "KBAK", ["kbak"]),
    (Restic, "RESTIC", ["restic"]),
    (Kopia, "KOPIA", ["kopia"]),
    (Rustic, "RUSTIC", ["rustic"]),
    (Borg, "BORG", ["borg"]),
    (Pipe, None, ["tar", "zstd", "age", "age-keygen"]),
    (Copy, None, ["cp"]),
]


def find_tools(work, names, report):
    """The tools among `names` that are there; `report` is told of the others."""
    found = []
    for tool, variable, programs in ALL:
        if names and tool.short not in names:
            continue
        program = os.environ.get(variable or "") or shutil.which(programs[0])
        if program and all(map(shutil.which, programs[1:])):
            found.append(tool(work, program))
        else:
            by = f", or {variable}=PROGRAM" if variable else ""
            report(f"{tool.name} is not here, and left out ({tool.hint}{by})")
    return found
