"""Sampling from the embedded models."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import sdft_py

MODEL = "digits-source"


def test_images_have_the_form_of_the_model():
    images = sdft_py.sample(MODEL, 3, steps=2)
    assert (images.dtype, images.ndim, len(images)) == (np.uint8, 4, 3)
    assert images.std() > 10
    assert not np.array_equal(images[0], images[1])


def test_an_image_depends_on_seed_and_number_only():
    images = sdft_py.sample(MODEL, 5, steps=3, seed=4)
    assert np.array_equal(sdft_py.sample(MODEL, 5, steps=3, seed=4, batch=2), images)
    assert np.array_equal(sdft_py.sample(MODEL, 2, steps=3, seed=4), images[:2])
    assert not np.array_equal(sdft_py.sample(MODEL, 5, steps=3, seed=5), images)


def test_steps_are_numbers_or_texts():
    expected = sdft_py.sample(MODEL, 1, steps="2", sampler="ddim")
    assert np.array_equal(sdft_py.sample(MODEL, 1, steps=2), expected)
    assert not np.array_equal(sdft_py.sample(MODEL, 1, steps=4), expected)
    strides = sdft_py.sample(MODEL, 1, steps="ddim4")
    assert strides.shape == expected.shape


@pytest.mark.parametrize("sampler", ["ddpm", "heun", "dpm", "euler"])
def test_every_sampler_draws(sampler):
    images = sdft_py.sample(MODEL, 1, steps=3, sampler=sampler)
    assert images.std() > 10
    assert not np.array_equal(images, sdft_py.sample(MODEL, 1, steps=3))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"n": 0}, "n 0: expected 1 to 10000000"),
        ({"n": -1}, "n -1: expected 1 to 10000000"),
        ({"n": 1, "batch": 0}, "batch 0: expected 1 to"),
        ({"n": 1, "seed": 2**63}, "seed 9223372036854775808: expected 0 to 9223372036854775807"),
        ({"n": 1, "steps": 0}, "steps 0"),
        ({"n": 1, "steps": -3}, "steps -3"),
        ({"n": 1, "steps": "fast"}, "steps fast"),
        ({"n": 1, "sampler": "dim"}, "dim"),
        ({"n": 1, "class_": 3}, "class 3: the model has 0 classes"),
        ({"n": 1, "class_": -1}, "class_ -1: expected 0 or more"),
        ({"n": 1, "class_": "cat"}, 'class_ "cat": the model has no class of this name'),
        ({"n": 1, "guidance": 2.0}, "guidance 2"),
    ],
)
def test_bad_arguments_are_value_errors(options, text):
    with pytest.raises(ValueError, match=text):
        sdft_py.sample(MODEL, **options)


def test_missing_and_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        sdft_py.sample(tmp_path / "none.safetensors", 1)
    other = tmp_path / "other.pt"
    other.write_text("no model\n" * 9)
    with pytest.raises(ValueError, match="other.pt"):
        sdft_py.sample(other, 1)
    with pytest.raises(ValueError, match="no model in this folder"):
        sdft_py.sample(tmp_path, 1)
    with pytest.raises(TypeError, match="int | str"):
        sdft_py.sample(MODEL, 1, steps=2.5)


def test_other_threads_run_meanwhile():
    counts = [0]
    done = threading.Event()

    def count():
        while not done.is_set():
            counts[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    start = time.monotonic()
    sdft_py.sample(MODEL, 16, steps=20)
    took = time.monotonic() - start
    during = counts[0]
    done.set()
    thread.join()
    # With the lock held it would count once or twice.
    assert during > 20 * took


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal for one's own process")
def test_ctrl_c_interrupts():
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sdft_py.sample(MODEL, 10_000, steps=500)
    assert time.monotonic() - start < 20
    # The module works as before.
    assert len(sdft_py.sample(MODEL, 1, steps=2)) == 1
