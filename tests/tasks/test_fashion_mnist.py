"""Fashion-MNIST: the format, the splits and the networks on a tiny copy, and the real files where they are."""

import gzip
from itertools import islice
from pathlib import Path

import fashion_files
import pytest
import torch

import nestlearn as nl
from nestlearn.tasks import DataFileError, FashionMnistTask, check_data, sources
from nestlearn.tasks.fashion_mnist import FILES, fashion_mnist
from nestlearn.tasks.networks import VisionTransformer

PACKAGE = Path("/usr/share/datasets/fashion-mnist")


def test_the_idx_files_are_read_as_they_were_written_and_split(tiny_fashion_mnist):
    splits = fashion_mnist()
    assert {split: len(labels) for split, (_, labels) in splits.items()} == {"train": 550, "validation": 50, "test": 40}
    for split, pieces in {"train": ("train", slice(0, 550)), "validation": ("train", slice(550, 600))}.items():
        images, labels = fashion_files.pixels_and_labels(pieces[0])
        assert torch.equal(splits[split][0], images[pieces[1]].flatten(1))
        assert torch.equal(splits[split][1], labels[pieces[1]].long())
    images, labels = fashion_files.pixels_and_labels("test")
    assert torch.equal(splits["test"][0], images.flatten(1)) and torch.equal(splits["test"][1], labels.long())


def test_data_are_checked_before_anything_is_trained(tiny_fashion_mnist, tmp_path):
    check_data(["fashion-mnist"])
    (tmp_path / "data/fashion-mnist/t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataFileError, match=r"t10k-labels-idx1-ubyte\.gz: expected sha256"):
        check_data(["fashion-mnist"])


def test_pixels_are_standardised_and_subsets_are_the_first_images(tiny_fashion_mnist):
    task = FashionMnistTask(train_images=50, batch=50)
    images, labels = next(iter(task.batches(0)))
    pixels, wanted = (part[:50] for part in fashion_mnist()["train"])
    back = (images * 0.3530 + 0.2860) * 255
    order = [next(i for i in range(50) if (pixels[i] - row).abs().max() < 1e-2) for row in back]
    assert sorted(order) == list(range(50)) and torch.equal(labels, wanted[order])


def test_figures_are_means_over_the_first_images_of_a_split_whatever_the_pieces(tiny_fashion_mnist, monkeypatch):
    task = FashionMnistTask(validation_images=30)
    model = task.build(0)
    pixels, labels = (part[:30] for part in fashion_mnist()["validation"])
    logits = model((pixels.float() / 255 - 0.2860) / 0.3530)
    found = task.evaluate(model, "validation")
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert found["accuracy"] == pytest.approx(100 * (logits.argmax(-1) == labels).double().mean().item())


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "vit"])
def test_either_network_learns_the_tiny_images(network, tiny_fashion_mnist):
    task = FashionMnistTask(network=network, dim=16, patch=14, batch=50)
    model = task.build(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for batch in islice(task.batches(0), 60):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
    assert task.evaluate(model, "test")["accuracy"] > 90


def test_a_patch_sees_its_own_pixels_and_no_others():
    network = VisionTransformer(side=28, patch=14, dim=8, depth=1, heads=2)
    network.blocks = torch.nn.ModuleList()  # without attention a patch stays where it is
    seen = []
    network.norm.register_forward_hook(lambda module, given, answer: seen.append(given[0].detach()))
    image = torch.randn(1, 28, 28)
    changed = image.clone()
    changed[0, :14, 14:] += 1.0  # above, on the right
    network(image.flatten(1)), network(changed.flatten(1))
    moved = (seen[0] - seen[1]).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [False, True, False, False]


def test_the_patches_see_each_other_and_their_order_matters():
    network = VisionTransformer(side=28, patch=14, dim=8, depth=1, heads=2)
    image = torch.randn(1, 28, 28)
    swapped = torch.cat([image[:, 14:], image[:, :14]], 1)
    assert not torch.allclose(network(image.flatten(1)), network(swapped.flatten(1)))


def test_hidden_matrices_are_separate_and_the_rest_are_tables():
    task = FashionMnistTask(network="vit", depth=3)
    model = task.build(0)
    apart = set(map(id, nl.optim.tables(model, output=task.ends(model))))
    hidden = [tuple(p.shape) for p in model.parameters() if p.ndim == 2 and id(p) not in apart]
    assert hidden == [*[(64, 64)] * 4, (256, 64), (64, 256)] * 3
    assert FashionMnistTask().ends(FashionMnistTask().build(0)) == []


def test_the_hashes_are_those_of_the_content_that_all_packagings_share():
    assert sorted(file.name for file in sources(["fashion-mnist"])) == sorted(file.name for file in FILES.values())
    assert all(mirror.startswith("https://") for file in FILES.values() for mirror in file.mirrors)
    assert all(len(file.sha256) == 64 and file.licence and file.source for file in FILES.values())


@pytest.mark.skipif(not PACKAGE.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
@pytest.mark.slow
def test_the_real_data_set_is_whole_and_an_mlp_learns_it(monkeypatch):
    monkeypatch.delenv("NESTLEARN_DATA", raising=False)
    fashion_mnist.cache_clear()
    splits = fashion_mnist()
    counts = {split: tuple(images.shape) for split, (images, _) in splits.items()}
    assert counts == {"train": (55000, 784), "validation": (5000, 784), "test": (10000, 784)}
    assert torch.bincount(splits["test"][1]).tolist() == [1000] * 10
    pixels = splits["train"][0].float() / 255
    assert pixels.mean().item() == pytest.approx(0.2860, abs=1e-3)
    assert pixels.std().item() == pytest.approx(0.3530, abs=1e-3)
    task = FashionMnistTask()
    model = task.build(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in islice(task.batches(0), 300):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
    assert task.evaluate(model, "test")["accuracy"] > 80
    fashion_mnist.cache_clear()
