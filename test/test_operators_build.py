# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The build of the CPU kernels alone: with sanitizers, without what it needs; and the package without kernels."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from nre_ros.features import load_backbone
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.localizer import Localizer
from nre_ros.nre import native
from nre_ros.nre.operators import OPERATORS

SOURCES = ROOT / "src"
if not (SOURCES / "CMakeLists.txt").is_file():
    pytest.skip("needs the whole repository", allow_module_level=True)

PATH = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]])
COMPILER = os.environ.get("CXX") or "c++"


def run(*command, timeout: float = 800, **environment: str) -> subprocess.CompletedProcess:
    """A process with the tools of this environment first."""
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, "PATH": PATH, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def configure(target: Path, *options: str) -> subprocess.CompletedProcess:
    """CMake's first step for src/ alone."""
    if shutil.which("cmake", path=PATH) is None or shutil.which(COMPILER, path=PATH) is None:
        pytest.skip("needs cmake and a C++ compiler")
    generator = ("-G", "Ninja") if shutil.which("ninja", path=PATH) else ()
    return run("cmake", "-S", SOURCES, "-B", target, *generator, f"-DPython3_EXECUTABLE={sys.executable}", *options)


def test_without_pybind11_there_is_one_warning_and_nothing_to_build(tmp_path):
    configured = configure(
        tmp_path, "-DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON"
    )
    assert configured.returncode == 0, configured.stderr
    text = " ".join(configured.stderr.split())
    assert text.count("CMake Warning") == 1 and "CMake Error" not in text
    assert "without its CPU kernels" in text and "pip install pybind11" in text and "OpenMP" in text
    built = run("cmake", "--build", tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    assert not list(tmp_path.rglob("*.so"))


# --- sanitizers -------------------------------------------------------------------------------------------


def sanitizer_libraries() -> list[str]:
    """What must be loaded before Python: the compiler's own, since Python is not built with sanitizers."""
    if shutil.which(COMPILER, path=PATH) is None:
        pytest.skip("needs a C++ compiler")
    files = [run(COMPILER, f"-print-file-name={name}").stdout.strip() for name in ("libasan.so", "libubsan.so")]
    if not all(Path(file).is_absolute() and Path(file).exists() for file in files):
        pytest.skip("needs GCC with libasan and libubsan")
    return files


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory) -> Path:
    """A build of the kernels that checks itself."""
    sanitizer_libraries()
    target = tmp_path_factory.mktemp("sanitized")
    configured = configure(target, "-DNRE_SANITIZE=ON")
    assert configured.returncode == 0, configured.stderr
    if "CMake Warning" in configured.stderr:
        pytest.skip("needs what src/CMakeLists.txt misses here: " + " ".join(configured.stderr.split()))
    built = run("cmake", "--build", target, "--parallel", "2")
    assert built.returncode == 0, built.stdout[-6000:] + built.stderr[-6000:]
    assert "warning:" not in built.stdout + built.stderr
    return target


@pytest.mark.timeout(1800)
def test_kernels_access_no_foreign_memory_and_do_nothing_undefined(sanitized, tmp_path):
    """The comparisons and some of the random calls of test_operators.py, with AddressSanitizer and
    UndefinedBehaviorSanitizer."""
    (extension,) = sanitized.glob("_operators*.so")
    assert b"__asan_report_load" in extension.read_bytes() and b"__ubsan_handle" in extension.read_bytes()
    (tmp_path / "nre_ros").mkdir()
    shutil.copy(extension, tmp_path / "nre_ros")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "LD_PRELOAD": ":".join(sanitizer_libraries()),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves memory behind
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "NRE_FUZZ_SHARE": "0.03",
    }
    found = run(sys.executable, "-c", "from nre_ros import _operators; print(_operators.__file__)", **environment)
    assert found.stdout.strip() == str(tmp_path / "nre_ros" / extension.name), found.stdout + found.stderr
    chosen = "agrees_with_its_reference or one_changed_argument or random_calls_agree or refuses_arrays"
    tests = [ROOT / "test/test_operators.py", "-k", chosen, "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    checked = run(sys.executable, "-m", "pytest", *tests, timeout=1500, **environment)
    output = checked.stdout + checked.stderr
    assert checked.returncode == 0, output[-8000:]
    assert "Sanitizer" not in output and "runtime error" not in output
    assert int(re.search(r"(\d+) passed", output)[1]) > 100, output


def test_no_function_of_one_instruction_set_can_replace_that_of_another(sanitized):
    """The linker keeps one of several weak symbols of a name, perhaps that of AVX-512 (src/vectors.h)."""
    nm = shutil.which("nm", path=PATH)
    if nm is None:
        pytest.skip("needs nm")
    objects = [path for path in sanitized.rglob("*.o") if "nre_kernels_" in str(path)]
    assert len(objects) % 4 == 0 and objects
    for path in objects:
        (target,) = re.findall(r"nre_kernels_(\w+)\.dir", str(path))
        for line in run(nm, "-C", "--defined-only", path).stdout.splitlines():
            kind, name = line.split(maxsplit=2)[1:]
            if name == "DW.ref.__gxx_personality_v0":  # a pointer to the C++ runtime, for its destructors
                continue
            assert kind not in "WVuwv", (path.name, line)
            assert kind.islower() or name.startswith(f"nre::{target}::"), (path.name, line)


# --- without kernels --------------------------------------------------------------------------------------

WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Without(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "nre_ros._operators":
            raise error

sys.meta_path.insert(0, Without())
"""
PROGRAM = """
import torch
from nre_ros.geometry import Camera
from nre_ros.nre import native
from nre_ros.nre.gnc import project_points
from nre_ros.nre.operators import OPERATORS, implementation

assert not native.available() and not native.KERNELS and implementation() == "torch"
assert not any(operator.has_kernel for operator in OPERATORS.values())
T, points = torch.eye(4, dtype=torch.float64), torch.tensor([[0.1, 0.2, 2.0]], dtype=torch.float64)
pixels, valid = project_points(T, points, Camera(64, 48, 50.0, 50.0, 32.0, 24.0))
assert pixels.tolist() == [[34.5, 29.0]] and valid.tolist() == [True]
for _ in range(3):
    native.warn_once()
"""


@pytest.mark.parametrize(
    "error, reason",
    [
        ("ModuleNotFoundError('No module', name=name)", "nre_ros was built without its CPU kernels: "),
        ("ImportError('libgomp.so.1: cannot open')", "cannot be loaded (libgomp.so.1: cannot open): "),
    ],
    ids=["not built", "not loaded"],
)
def test_the_package_works_without_kernels_and_says_so_once(error, reason):
    program = WITHOUT.replace("raise error", f"raise {error}") + PROGRAM
    done = run(sys.executable, "-c", program, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert reason in line and "about three times as long" in line and "nre_ros info" in line


def test_kernels_of_another_version_are_not_used(monkeypatch):
    if not native.available():
        pytest.skip(f"needs the CPU kernels: {native.why_absent()}")
    monkeypatch.setattr(native._extension, "INTERFACE", native._extension.INTERFACE + 1)
    extension, reason = native._load()
    assert extension is None and "another version of nre_ros" in reason and "build it again" in reason


def test_a_localizer_for_the_cpu_says_once_that_kernels_are_missing(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(native, "_extension", None)
    monkeypatch.setattr(native, "_absent", "nre_ros was built without its CPU kernels")
    for operator in OPERATORS.values():
        monkeypatch.setattr(operator, "_kernel", None)
    native.warn_once.cache_clear()
    KeyframeStore.create(tmp_path / "map.db", "xfeat", load_backbone("xfeat").weights_hash).close()
    try:
        for _ in range(2):
            Localizer(tmp_path / "map.db", device="cpu").close()
    finally:
        native.warn_once.cache_clear()
    (message,) = [record.getMessage() for record in caplog.records if record.name == "nre_ros.nre.native"]
    assert message.startswith("nre_ros was built without its CPU kernels: an image takes about three times as long")
