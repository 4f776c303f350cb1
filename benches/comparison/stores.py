"""The places that tools write to: a folder on the disk or in memory, an S3 server on loopback, and the same server
behind a slow link."""

import os
import re
import shutil
import subprocess
import sys
from urllib.parse import quote

from measure import run, size

CREDENTIALS = ("demo", "demodemo")


class Place:
    """One repository's place in a store."""

    def __init__(self, folder=None, bucket=None, store=None):
        self.folder, self.bucket, self.store = folder, bucket, store
        self.endpoint = store.endpoint if store else None
        self.region = "us-east-1"
        self.credentials = store.credentials if store else None
        # What comes before each command that uses the place.
        self.prefix = store.prefix if store else []
        key, secret = CREDENTIALS
        self.env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret} if store else {}


class FileStore:
    """Folders on the disk of the working folder."""

    name = kind = "file"
    text = "a folder on the same disk"

    def __init__(self, work):
        self.work = work

    def place(self, tool):
        return Place(folder=f"{self.work}/repository.{tool.short}")

    def clear(self, place):
        shutil.rmtree(place.folder, ignore_errors=True)

    def stored(self, place):
        return size(place.folder)

    def sent(self):
        return None

    def close(self):
        pass


class MemoryStore(FileStore):
    """Folders in memory: no tool waits for a disk there."""

    name = "tmpfs"
    text = "a folder in memory"


class S3Store:
    """The S3 server that benches/peers started; each repository has a bucket of its own."""

    name = kind = "s3"
    text = "SeaweedFS on loopback"
    prefix = []

    def __init__(self, work):
        self.credentials = f"{work}/credentials"
        self.server = self.endpoint = os.environ["PEERS_ENDPOINT"]

    def request(self, method, path, query="", fine=("200", "204")):
        answer = run("curl", "-sS", "-X", method, "--aws-sigv4", "aws:amz:us-east-1:s3", "--user",
                     ":".join(CREDENTIALS), f"{self.server}/{path}{query}", "-w", "\n%{http_code}")
        body, code = answer.rsplit("\n", 1)
        if code not in fine:
            sys.exit(f"peers: {method} {path} ended with {code}: {body[-500:]}")
        return body

    def place(self, tool):
        return Place(bucket=f"peers-{tool.short}", store=self)

    def clear(self, place):
        self.request("DELETE", place.bucket, fine=("204", "404"))
        self.request("PUT", place.bucket)

    def stored(self, place):
        total, token = 0, ""
        for _ in range(10_000):
            query = f"?{token}list-type=2&max-keys=1000"
            body = self.request("GET", place.bucket, query)
            total += sum(int(found) for found in re.findall(r"<Size>(\d+)</Size>", body))
            more = re.search(r"<NextContinuationToken>([^<]+)<", body)
            if not more:
                return total
            token = f"continuation-token={quote(more[1], safe='')}&"
        sys.exit(f"peers: the list of {place.bucket} does not end")

    def sent(self):
        return None

    def close(self):
        pass


class LinkStore(S3Store):
    """The same server, behind a link of a given rate and delay.

    A network namespace has nothing but its loopback device, which `tc tbf` limits. A relay in it accepts
    connections and carries them to the server's socket in the file system, later by half the delay each way: the
    kernel's own delays (netem) are a module that many machines lack.
    """

    name = kind = "link"

    def __init__(self, work, rate, delay):
        super().__init__(work)
        self.rate = rate
        self.text = f"SeaweedFS behind a link of {rate} Mbit/s with {delay:g} ms"
        port = 9000
        script = ("ip link set lo mtu 1500 && ip link set lo up && "
                  f"tc qdisc add dev lo root tbf rate {rate}mbit burst 64kb latency 100ms && "
                  'exec python3 "$@"')
        relay = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay.py")
        command = ["unshare", "--net", "sh", "-c", script, "sh", relay, str(port), f"{work}/s3/s3.sock", str(delay / 2)]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self.child.stdout.readline() != "ready\n":
            sys.exit("peers: a network namespace with a limited device cannot be made here: it needs root, and the "
                     "kernel's tbf; leave it out with --stores file,s3")
        self.endpoint = f"http://127.0.0.1:{port}"
        self.prefix = ["nsenter", f"--net=/proc/{self.child.pid}/ns/net"]

    def sent(self):
        """The bytes that went over the link so far, in both directions."""
        with open(f"/proc/{self.child.pid}/net/dev", encoding="ascii") as lines:
            device = next(line for line in lines if line.strip().startswith("lo:"))
        return int(device.split(":")[1].split()[8])

    def close(self):
        self.child.kill()
        self.child.wait()
