"""A fake gcloud that plays back states and records its calls."""

import json
import shlex
import sys

from experiments.cloud_tpu import slices

SLICE = slices.Slice("ctr", "my-project", "us-west4-a", "v5litepod-16", "image", spot=True)

# The life of a slice is its sequence of states, of which the last repeats forever, and the
# statuses of its ssh commands, 0 after the last.
FAKE_GCLOUD = """\
import json, os, pathlib, shutil, subprocess, sys
folder = pathlib.Path(os.environ["FAKE_GCLOUD"])
play = json.loads((folder / "play.json").read_text())
args = sys.argv[1:]
verb = "config" if args[0] == "config" else args[3]
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([verb, *args]) + "\\n")

def save():
    (folder / "play.json").write_text(json.dumps(play))

def fail(message, status=1):
    advice = "\\nSome advice.\\n" if message.startswith("ERROR") else ""
    sys.exit(sys.stderr.write(message + "\\n" + advice) and status)

if verb == "config":
    sys.stderr.write("" if play.get("config") else "(unset)\\n")
    sys.exit(print(play.get("config", "")))
if verb in play.get("broken", {}):
    fail("ERROR: (gcloud.x) " + play["broken"][verb])
if verb == "create":
    play["now"] = play["lives"].pop(0)
    sys.exit(save())
if not play.get("now"):
    fail("ERROR: (gcloud.x) NOT_FOUND: no such resource")
if verb == "delete":
    play["now"] = None
    save()
elif verb == "describe":
    if "failedData" in " ".join(args):
        sys.exit(print("no more capacity in the zone"))
    # The node of a queued resource has a state of its own.
    own = "node" if args[2] == "tpu-vm" and "node" in play["now"] else "states"
    states = play["now"][own]
    print(states.pop(0) if len(states) > 1 else states[0])
    save()
elif verb == "scp" and play.get("worker"):
    shutil.copy(args[4], pathlib.Path(play["worker"], args[5].partition(":")[2]))
elif verb == "ssh" and play.get("worker"):
    home = play["worker"]
    command = next(a for a in args if a.startswith("--command=")).partition("=")[2]
    path = home + "/bin:" + os.environ["PATH"]
    env = {**os.environ, "HOME": home, "PATH": path}
    sys.exit(subprocess.run(["bash", "-c", command], cwd=home, env=env).returncode)
elif verb == "ssh" and play["now"].get("hangs"):
    (folder / "hanging").touch()
    os.execvp("sleep", ["sleep", "60"])
elif verb == "ssh":
    statuses = play["now"].setdefault("ssh", [])
    status = statuses.pop(0) if statuses else 0
    save()
    if status:
        fail(f"worker-0: the command ended with status {status}", status)
"""

READY = {"states": ["ACTIVE"]}


class Gcloud:
    """The fake, first on PATH."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "gcloud.py").write_text(FAKE_GCLOUD)
        # No site packages: some dozens of calls start in a second.
        line = f'exec {shlex.quote(sys.executable)} -S -E {folder}/gcloud.py "$@"'
        write_program(self.bin / "gcloud", line)

    def play(self, *lives, **rest):
        (self.folder / "play.json").write_text(json.dumps({"lives": lives, **rest}))

    def calls(self, *verbs):
        """The verbs called, in order; all, or only the named ones."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        called = [json.loads(line)[0] for line in lines]
        return [verb for verb in called if not verbs or verb in verbs]

    def exists(self):
        return bool(json.loads((self.folder / "play.json").read_text()).get("now"))


def write_program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
