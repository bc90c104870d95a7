# SPDX-License-Identifier: Apache-2.0
"""The fused kernels: whether Cells call them, and their library, built from `kernels/` by this machine's compiler.

A graph asks for `library()` when it is compiled. Outside of `fused_form` there is none, and Cells take the portable
form, of MindSpore's own operators: the one that is exported and that runs on every device.
"""

import ctypes
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "kernels"
CACHE = ROOT / "build" / "kernels"
# Not -ffast-math: it would take the rounding out of the exponential.
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
FLAGS += ["-fPIC", "-fvisibility=hidden", "-Wno-psabi"]
# Each in a file of its own, of which the CPU takes one when the kernels run.
INSTRUCTIONS = {
    "plain": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
}
LONGEST_BUILD = 300  # seconds
_BUILDING = "building-"

_library = None


class NoKernels(Exception):
    """The fused kernels cannot be had here; the message says why, in a line."""


@contextmanager
def fused_form():
    """Within it Cells are compiled to call the fused kernels.

    Raises:
        NoKernels: the device is no CPU, there is no compiler, it fails, or what it makes cannot be kept or loaded.
    """
    global _library
    target = ms.get_context("device_target")
    if target != "CPU":
        raise NoKernels(f"they are for CPUs, and this is a {target}")
    _check_allowed()
    path = _built()
    _load(path).acmix_set_threads(_threads())
    before, _library = _library, str(path)
    try:
        yield
    finally:
        _library = before


def library():
    """Return the path of the library that a graph compiled now is to call; None: it takes the portable form."""
    return _library


def _check_allowed():
    """Refuse where the user lets MindSpore load operators of another folder alone."""
    allowed = os.environ.get("MS_CUSTOM_AOT_WHITE_LIST")
    if allowed and not CACHE.resolve().is_relative_to(Path(allowed).resolve()):
        raise NoKernels(f"MS_CUSTOM_AOT_WHITE_LIST lets MindSpore load operators of {allowed} alone; take it away")


def _load(path):
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernels(f"their library cannot be loaded ({error})") from error


def _threads():
    """As many as this process has cores, less where the user or MindSpore says so."""
    counts = [len(os.sched_getaffinity(0)), ms.get_context("runtime_num_threads")]
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(counts + ([int(asked)] if asked.isdecimal() else [])))


def _built():
    """Return the library of these sources, this compiler and this kind of CPU, built if it is not there yet."""
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    commands = _commands(compiler)
    path = CACHE / f"{_key(compiler, commands)}.so"
    if path.is_file():
        return path
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with open(CACHE / "lock", "w") as lock:
            # Of several processes one builds, and the others wait for it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                for left in CACHE.glob(f"{_BUILDING}*"):  # by a build that was killed
                    shutil.rmtree(left, ignore_errors=True)
                _build(compiler, commands, path)
    except OSError as error:
        raise NoKernels(f"they cannot be kept in {CACHE} ({error.strerror or error})") from error
    return path


def _commands(compiler):
    """Return what makes each object file: its name -> the words of the command, but for the output."""
    of_x86 = platform.machine() in ("x86_64", "AMD64")
    commands = {name: [*compiler, *FLAGS, "-c", f"{SOURCES}/{name}.cc"] for name in ("operators", "threads")}
    for name, flags in INSTRUCTIONS.items():
        if of_x86 or name == "plain":
            define = f"-DKERNELS={name}_kernels"
            commands[name] = [*compiler, *FLAGS, *flags, define, "-c", f"{SOURCES}/kernels.cc"]
    return commands


def _key(compiler, commands):
    """A name that another source, compiler, command or kind of CPU does not have."""
    if shutil.which(compiler[0]) is None:
        raise NoKernels(f"there is no C++ compiler {compiler[0]}; install one, or name one in CXX")
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60).stdout
    known = hashlib.sha256(f"{version}{platform.machine()}{sorted(commands.items())}".encode())
    for source in sorted(SOURCES.glob("*.[ch]*")):
        known.update(source.read_bytes())
    return known.hexdigest()[:24]


def _build(compiler, commands, path):
    folder = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=path.parent))
    try:
        objects = {name: f"{folder}/{name}.o" for name in commands}
        _run([[*words, "-o", objects[name]] for name, words in commands.items()])
        made = folder / path.name
        _run([[*compiler, "-shared", "-pthread", *objects.values(), "-o", str(made)]])
        _load(made)
        os.rename(made, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(commands):
    """Run compilers side by side."""
    running = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for words in commands
    ]
    try:
        for process, words in zip(running, commands):
            output, _ = process.communicate(timeout=LONGEST_BUILD)
            if process.returncode:
                lines = [line for line in output.splitlines() if "error" in line] or output.splitlines() or [""]
                raise NoKernels(f"the C++ compiler {words[0]} ended with code {process.returncode}: {lines[0].strip()}")
    except subprocess.TimeoutExpired as error:
        raise NoKernels(f"the C++ compiler {commands[0][0]} took more than {LONGEST_BUILD} s") from error
    finally:
        for process in running:
            process.kill()
            process.wait()
