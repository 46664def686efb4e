# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Lightning checkpoints are read whole or refused in a line; nothing in them is ever run."""

import argparse
import builtins
import io
import math
import os
import pathlib
import subprocess
import sys
import types
import zipfile

import pytest
import torch
from checkpoint_samples import checkpoint, formula_network

from nre_ros.errors import WeightsError
from nre_ros.features import checkpoint as module
from nre_ros.features.checkpoint import git_blob_id, parse_checkpoint, read_checkpoint


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def settings(**changes):
    known = {"level": "coarse", "extraction_layer": "Mixed_5b", "image": {"resize": 32}, "minibatch_size": 50}
    return {**known, **changes}


@pytest.fixture
def foreign(monkeypatch):
    """Makes a class under the name it has in a package that is not installed here."""

    def make(name, base=object):
        package, _, kind = name.rpartition(".")
        made = type(kind, (base,), {"__module__": package})
        parts = package.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
        setattr(sys.modules[package], kind, made)
        return made

    yield make


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["archive", "before 1.6"])
def test_a_checkpoint_comes_back_as_its_network(options):
    read = parse_checkpoint(saved(checkpoint(), **options), "x")
    assert (read.level, read.extraction_layer, read.second_pool, read.resize) == ("coarse", "Mixed_5b", True, 32)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(read.network()(image), formula_network("coarse", "Mixed_5b")(image))


def test_the_second_pooling_can_be_left_out():
    network = formula_network("coarse", "Mixed_5b", second_pool=False)
    data = saved(checkpoint(state_dict=network.state_dict(), hyper_parameters=settings(no_maxpool=True)))
    assert parse_checkpoint(data, "x").network().stride == 4


@pytest.mark.skipif(not module._READS_OTHERS_CLASSES, reason="needs torch 2.6 or newer")
@pytest.mark.parametrize("kind", ["Namespace", "AttributeDict", "OmegaConf", "callbacks"])
def test_containers_of_other_packages_are_read_without_them(foreign, kind, monkeypatch):
    content = checkpoint()
    if kind == "Namespace":
        content["hyper_parameters"] = argparse.Namespace(**settings(data=pathlib.Path("/data")))
    elif kind == "AttributeDict":
        made = foreign("pytorch_lightning.utilities.parsing.AttributeDict", dict)
        content["hyper_parameters"] = made(settings(image=made(resize=32)))
    elif kind == "callbacks":  # Lightning 1.2 keeps their states under their classes
        content["callbacks"] = {foreign("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"): {"best": 1.0}}
    else:  # attributes as in OmegaConf 2.0
        dict_config, node = foreign("omegaconf.dictconfig.DictConfig"), foreign("omegaconf.nodes.AnyNode")
        resize, image = node(), dict_config()
        resize.__dict__.update(_val=32, _parent=image, _metadata=None)
        image.__dict__.update(_content={"resize": resize}, _parent=None, _metadata=None)
        content["hyper_parameters"] = settings(image=image)
    data = saved(content)
    for name in [name for name in sys.modules if name.split(".")[0] in ("pytorch_lightning", "omegaconf")]:
        monkeypatch.delitem(sys.modules, name)
    read = parse_checkpoint(data, "x")
    assert (read.level, read.resize) == ("coarse", 32)


class Calls:
    """Runs ``function(*arguments)`` when unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["archive", "before 1.6"])
@pytest.mark.parametrize(
    "poison, named",
    [
        (lambda mark: Calls(os.system, f"touch {mark}"), "system"),
        (lambda mark: Calls(builtins.open, str(mark), "w"), "open"),
        (lambda mark: Calls(eval, f"open({str(mark)!r}, 'w').close()"), "eval"),
        (lambda mark: Calls(subprocess.call, ["touch", str(mark)]), "call"),  # protocol 2 has an older module's name
        (lambda mark: Calls(pathlib.Path.touch, Calls(pathlib.Path, str(mark))), ""),
    ],
    ids=["os.system", "open", "eval", "subprocess", "pathlib"],
)
def test_a_poisoned_file_is_refused_and_runs_nothing(tmp_path, poison, named, options):
    mark = tmp_path / "mark"
    data = saved(checkpoint(hyper_parameters=settings(image=poison(mark))), **options)
    torch.load(io.BytesIO(data), weights_only=False)
    assert mark.exists()  # the poison works
    mark.unlink()
    with pytest.raises(WeightsError, match=rf"evil.pth holds .*{named}.*nothing of it was run") as refused:
        parse_checkpoint(data, "evil.pth")
    assert "\n" not in str(refused.value)
    assert not mark.exists()


def test_a_stand_in_does_not_reach_the_package_it_stands_for(foreign, tmp_path, monkeypatch):
    """Even where Lightning is installed: its functions are not called either."""
    foreign("pytorch_lightning.utilities.Any")
    utilities = sys.modules["pytorch_lightning.utilities"]
    mark = tmp_path / "mark"

    def touch(path):
        pathlib.Path(path).touch()

    touch.__module__, touch.__qualname__ = utilities.__name__, "touch"
    utilities.touch = touch
    data = saved(checkpoint(extra=Calls(touch, str(mark))))
    torch.load(io.BytesIO(data), weights_only=False)
    assert mark.exists()
    mark.unlink()
    if module._READS_OTHERS_CLASSES:
        assert parse_checkpoint(data, "x").level == "coarse"
    else:
        with pytest.raises(WeightsError, match="torch 2.6"):
            parse_checkpoint(data, "x")
    assert not mark.exists()


@pytest.mark.skipif(not module._READS_OTHERS_CLASSES, reason="needs torch 2.6 or newer")
def test_only_the_published_file_may_name_other_classes(foreign, monkeypatch):
    data = saved(checkpoint(callbacks={foreign("their_lab.callbacks.Plot"): {}}))
    with pytest.raises(WeightsError, match="their_lab.callbacks.Plot"):
        parse_checkpoint(data, "x")
    monkeypatch.setitem(module.PUBLISHED, "coarse", git_blob_id(data))
    assert parse_checkpoint(data, "x").published


def with_tensor(name, change):
    content = checkpoint()
    content["state_dict"][name] = change(content["state_dict"][name].clone())
    return content


def fill(value):
    def change(tensor):
        tensor.view(-1)[-1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    "content, named",
    [
        (with_tensor("cnn.0.conv.weight", fill(math.nan)), "'cnn.0.conv.weight' is not finite"),
        (with_tensor("cnn.8.weight", fill(math.inf)), "'cnn.8.weight' is not finite"),
        (with_tensor("cnn.0.bn.running_var", fill(-1.0)), "'cnn.0.bn.running_var' is negative"),
        (with_tensor("cnn.8.weight", lambda t: t[:-1]), r"'cnn.8.weight' is \[255, 256, 1, 1\], expected \[256,"),
        (with_tensor("cnn.8.weight", lambda t: t.long()), "'cnn.8.weight' has type torch.int64"),
        (with_tensor("cnn.8.weight", lambda t: t.to_sparse()), "'cnn.8.weight'"),
        (with_tensor("cnn.8.weight", lambda t: "weights"), "'cnn.8.weight' is str"),
        (checkpoint(state_dict={}), "lacks tensor 'cnn.0.bn.bias'"),
        (checkpoint(state_dict=[1]), "state_dict is a list"),
        (with_tensor("cnn.0.conv.weight", lambda t: t) | {"hyper_parameters": settings(extraction_layer="Mixed_5c")},
         "lacks tensor"),
        (checkpoint(hyper_parameters=settings(extraction_layer="Mixed_3a")), "no layer 'Mixed_3a'"),
        (checkpoint(hyper_parameters=settings(extraction_layer=["Mixed_5b"])), "no layer"),
        (checkpoint(hyper_parameters=settings(level="medium")), "level is 'medium'"),
        (checkpoint(hyper_parameters=settings(level=[])), "level is"),
        (checkpoint(hyper_parameters=None), "level is None"),
        ({"state_dict": {}}, "lacks state_dict or hyper_parameters"),
        ([1, 2], "is no Lightning checkpoint"),
        (torch.zeros(3), "is no Lightning checkpoint"),
    ],
)  # fmt: skip
def test_content_that_does_not_fit_is_refused_in_one_line(content, named):
    with pytest.raises(WeightsError, match=named) as refused:
        parse_checkpoint(saved(content), "weights.pth")
    assert "weights.pth" in str(refused.value) and "\n" not in str(refused.value)


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path):
    whole = saved(checkpoint())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("thesis.txt", "of the wrong kind")
    legacy = saved(checkpoint(), _use_new_zipfile_serialization=False)
    bad = {
        "empty": b"",
        "zeros": bytes(4096),
        "text": b"weights\n",
        "page": b"<!DOCTYPE html>",
        "zip": archive.getvalue(),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "legacy": legacy[: len(legacy) // 2],
        "flipped": flip(whole),
        **{f"torn{k}": whole[: len(whole) * k // 16] for k in range(1, 16)},
    }
    for name, data in bad.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(data)
        with pytest.raises(WeightsError) as refused:
            read_checkpoint(path)
        assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("harm", ["compressed", "stored twice"])
def test_an_archive_that_grows_in_memory_is_refused_before_it_is_read(harm, monkeypatch):
    """A megabyte that becomes a gigabyte takes the memory of everything else on the machine."""
    whole, bomb = zipfile.ZipFile(io.BytesIO(saved(checkpoint()))), io.BytesIO()
    with zipfile.ZipFile(bomb, "w") as archive:
        for entry in whole.infolist():
            compression = zipfile.ZIP_DEFLATED if harm == "compressed" else zipfile.ZIP_STORED
            archive.writestr(entry.filename, whole.read(entry), compression)
        if harm == "stored twice":
            largest = max(archive.filelist, key=lambda entry: entry.file_size)
            archive.filelist += [largest] * 3  # entries of the directory that all refer to the same bytes
    monkeypatch.setattr(torch, "load", lambda *a, **b: pytest.fail("read before it was checked"))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *a, **b: pytest.fail("read before it was checked"))
    with pytest.raises(WeightsError, match="weights.pth of [0-9]+ bytes would take [0-9]+ bytes in memory"):
        parse_checkpoint(bomb.getvalue(), "weights.pth")


def flip(data):
    """A zeroed stretch in the pickle at the archive's start."""
    return data[:300] + bytes(200) + data[500:]


def test_absent_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(WeightsError, match=str(path)):
            read_checkpoint(path)


def test_blob_id_is_gits(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"coarse\0" * 1000)
    try:
        expected = subprocess.run(
            ["git", "hash-object", "--no-filters", path], capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("needs git")
    assert git_blob_id(path.read_bytes()) == expected.stdout.strip()


def test_the_published_files_blob_ids():
    assert module.PUBLISHED == {
        "coarse": "af80cd6786779f3fa8e998f7fece8992f7243b5c",
        "fine": "1a9e197ffe7368da1dac451da58cae1f70c91b1e",
    }
