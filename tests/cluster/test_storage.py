"""Storage and checkpoints: whole or not at all, on disk and on S3, through 5xx, resets, torn and slow answers."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from cluster import checkpoint
from cluster.storage import local, remote, retry, storage
from cluster.storage.errors import StorageError
from cluster.storage.tensors import misfit, save_tensors
from tests.support.s3_faults import BUCKET, s3_server


@pytest.fixture(scope="module")
def s3():
    """A broken-on-demand S3; the tests share the server and use prefixes of their own."""
    with s3_server() as server:
        yield server


@pytest.fixture(params=["disk", "s3"])
def base(request, tmp_path) -> str:
    """A fresh folder or prefix."""
    if request.param == "disk":
        return str(tmp_path / "base")
    server = request.getfixturevalue("s3")
    server.heal()
    return f"s3://{BUCKET}/{tmp_path.name}"


def test_tensors_get_the_permissions_of_any_other_new_file(tmp_path):
    (tmp_path / "text").write_text("x")
    target = tmp_path / "weights.safetensors"
    save_tensors({"a": torch.arange(6.0).reshape(2, 3).T}, target)
    assert target.stat().st_mode == (tmp_path / "text").stat().st_mode
    target.chmod(0o640)
    save_tensors({"a": torch.zeros(1)}, target)
    assert target.stat().st_mode & 0o777 == 0o640


def test_tensors_for_which_the_disk_has_no_room_are_one_sentence_and_leave_nothing(tmp_path, monkeypatch):
    def full(tensors, path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match=r"cannot write .*weights\.safetensors: the disk is full; free some space"):
        save_tensors({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"0.weight": torch.zeros(3, 5)}, "0.weight is [3, 5], expected [3, 2]"),
        ({"0.bias": torch.zeros(())}, "0.bias is [], expected [3]"),
        ({"0.weight": torch.zeros(1), "1.bias": torch.zeros(1)}, "0.weight is [1], expected [3, 2], and 1 more"),
        ({"0.bias": None}, "0.bias is missing"),
        ({"2.bias": torch.zeros(1)}, "2.bias is not one of its tensors"),
    ],
)
def test_weights_that_do_not_fit_name_the_tensor_with_both_shapes(change, sentence):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4))
    tensors = {name: value for name, value in (model.state_dict() | change).items() if value is not None}
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(tensors)
    assert misfit(caught.value) == sentence


@pytest.fixture
def prefix(s3, tmp_path) -> str:
    """A fresh prefix on S3."""
    s3.heal()
    return f"s3://{BUCKET}/{tmp_path.name}-s3"


def data(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def make_tree(folder: Path, seed: int = 0) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(data(5000, seed))
    (folder / "sub" / "state.json").write_text(f'{{"seed": {seed}}}')
    return folder


# ------------------------------------------------------------------------------------------------ files


def test_what_is_written_is_read_listed_measured_and_removed(base):
    url = storage.join(base, "a", "file.bin")
    assert not storage.exists(url)
    storage.write_bytes(url, data(1000))
    assert storage.read_bytes(url) == data(1000)
    assert storage.size(url) == 1000
    assert storage.listdir(base) == ["a"]
    assert storage.listdir(storage.join(base, "a")) == ["file.bin"]
    assert storage.listdir(storage.join(base, "nowhere")) == []
    storage.remove(base)
    assert not storage.exists(url)
    storage.remove(base)


@pytest.mark.parametrize("span", [(0, 10), (990, 2000), (2000, 3000), (-5, None), (None, 7), (5, 5)])
def test_ranges_are_cut_like_slices(base, span):
    url = storage.join(base, "file.bin")
    storage.write_bytes(url, data(1000))
    assert storage.read_bytes(url, *span) == data(1000)[slice(*span)]


def test_a_large_file_goes_up_in_parts_and_comes_back_by_blocks(base, tmp_path):
    size = 2 * remote.BLOCK + 12345
    source = tmp_path / "large"
    source.write_bytes(data(size))
    url = storage.join(base, "large")
    storage.publish(source, url)
    assert storage.read_bytes(url) == data(size)
    with storage.open_read(url) as stream:
        stream.seek(remote.BLOCK - 10)
        assert stream.read(20) == data(size)[remote.BLOCK - 10 : remote.BLOCK + 10]
        stream.seek(-100, os.SEEK_END)
        assert stream.read() == data(size)[-100:]


def test_a_missing_file_is_one_sentence_with_its_url(base):
    with pytest.raises(StorageError, match=r"cannot read .*missing\.bin: no such file"):
        storage.read_bytes(storage.join(base, "missing.bin"))


def missing_bucket(action):
    """What ``action(url)`` says of a URL in a bucket that is not there."""
    with pytest.raises(StorageError) as caught:
        action("s3://no-such-bucket/folder/name")
    return str(caught.value)


@pytest.mark.parametrize(
    "action",
    [
        storage.exists,
        storage.listdir,
        storage.size,
        storage.read_bytes,
        lambda url: storage.write_bytes(url, b"x"),
        lambda url: remote.multipart(url, 1, lambda start, end: b"x"),
    ],
)
def test_a_bucket_that_is_not_there_is_named_whatever_is_done(s3, action):
    s3.heal()
    assert missing_bucket(action) == (
        "s3://no-such-bucket/folder/name: there is no bucket no-such-bucket; check its name and AWS_ENDPOINT_URL, or create it"
    )


def test_a_bucket_that_is_there_is_asked_for_once(s3, prefix, monkeypatch):
    monkeypatch.setattr(remote, "_known_buckets", set())
    storage.exists(f"{prefix}/other")  # s3fs asks whether the bucket is there, too
    s3.requests.clear()
    assert [storage.exists(f"{prefix}/none"), storage.listdir(f"{prefix}/no-folder")] == [False, []]
    assert sum("list-type" in path and "prefix" not in path for _, path in s3.requests) == 0


@pytest.mark.parametrize("url", ["s3://", "s3:///key"])
def test_a_url_without_a_bucket_is_refused(s3, url):
    with pytest.raises(StorageError, match=f"{url}: names no bucket; write s3://bucket/key"):
        storage.exists(url)


@pytest.mark.parametrize("url", [Path("s3://bucket/key"), "s3:/bucket/key"])
def test_a_url_that_lost_a_slash_is_not_taken_for_a_folder(url):
    with pytest.raises(
        StorageError, match="s3:/bucket/key: a slash is missing; write s3://bucket/key, and from Python as"
    ):
        storage.exists(url)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_without_its_scheme_is_one_sentence(monkeypatch, variable):
    monkeypatch.setenv(variable, "127.0.0.1:9000")
    with pytest.raises(
        StorageError, match=f"{variable} is 127.0.0.1:9000, expected an address that begins with http://"
    ):
        storage.exists("s3://bucket/key")


def test_replacing_a_file_never_shows_a_part_of_it(tmp_path, monkeypatch):
    url = tmp_path / "file"
    storage.write_bytes(url, b"old")

    def fail(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local, "sync", fail)
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        storage.write_bytes(url, b"new and longer")
    assert url.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


# ------------------------------------------------------------------------------------------------ folders


def test_a_published_folder_comes_back_with_every_checksum(base, tmp_path):
    storage.upload_tree(make_tree(tmp_path / "tree"), storage.join(base, "tree"))
    back = storage.download_tree(storage.join(base, "tree"), tmp_path / "back")
    assert (back / "weights.bin").read_bytes() == data(5000)
    assert (back / "sub" / "state.json").read_text() == '{"seed": 0}'


def test_a_folder_without_its_commit_mark_does_not_exist_for_readers(base, tmp_path):
    url = storage.join(base, "tree")
    storage.upload_tree(make_tree(tmp_path / "tree"), url)
    storage.remove(storage.join(url, storage.COMMIT_MARK))
    assert not storage.is_committed(url)
    with pytest.raises(StorageError, match="no complete folder"):
        storage.download_tree(url, tmp_path / "back")
    storage.upload_tree(make_tree(tmp_path / "other", 1), url)  # the rests are replaced
    assert storage.read_bytes(storage.join(url, "weights.bin")) == data(5000, 1)


def test_a_damaged_file_of_a_folder_is_named(base, tmp_path):
    url = storage.join(base, "tree")
    storage.upload_tree(make_tree(tmp_path / "tree"), url)
    storage.write_bytes(storage.join(url, "weights.bin"), data(5000, 9))
    with pytest.raises(StorageError, match=r"weights\.bin: sha256 .* the file is damaged"):
        storage.download_tree(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_mark_that_points_outside_its_folder_is_refused(tmp_path):
    folder = make_tree(tmp_path / "tree")
    storage.write_json(folder / storage.COMMIT_MARK, {"files": {"../../evil": {"sha256": "0", "bytes": 1}}})
    with pytest.raises(StorageError, match="not a commit mark of ours"):
        storage.download_tree(folder, tmp_path / "back")


def test_an_existing_complete_folder_is_not_overwritten(base, tmp_path):
    url = storage.join(base, "tree")
    storage.upload_tree(make_tree(tmp_path / "tree"), url)
    with pytest.raises(StorageError, match="a complete folder of this name exists"):
        storage.upload_tree(tmp_path / "tree", url)


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("fault", ["503", "reset", "cut", "lost"])
def test_a_store_that_fails_a_few_times_is_asked_again(s3, prefix, tmp_path, fault):
    s3.fail(fault, 3)
    storage.upload_tree(make_tree(tmp_path / "tree"), f"{prefix}/tree")
    s3.fail(fault, 3)
    back = storage.download_tree(f"{prefix}/tree", tmp_path / "back")
    assert (back / "weights.bin").read_bytes() == data(5000)


def test_a_slow_answer_is_given_up_and_asked_for_again(s3, prefix, monkeypatch):
    storage.write_bytes(f"{prefix}/file", data(3000))
    monkeypatch.setenv("HEADSTART_STORAGE_TIMEOUT", "1")
    s3.fail("slow", 1, "GET", "file")
    before = len(s3.requests)
    assert storage.read_bytes(f"{prefix}/file", 0, 3000) == data(3000)
    assert sum(1 for method, path in s3.requests[before:] if method == "GET" and "file" in path) >= 2


@pytest.mark.parametrize("fault", ["503", "reset", "lost"])
def test_a_multipart_upload_repeats_only_what_broke(s3, prefix, fault):
    content = data(2 * remote.BLOCK + 99)
    s3.fail(fault, 2, "PUT", "partNumber")
    storage.write_bytes(f"{prefix}/large", content)
    assert storage.read_bytes(f"{prefix}/large") == content


def test_an_answer_lost_after_the_last_multipart_request_is_not_an_error(s3, prefix):
    content = data(2 * remote.BLOCK + 99)
    s3.fail("lost", 1, "POST", "uploadId=")
    storage.write_bytes(f"{prefix}/large", content)
    assert storage.read_bytes(f"{prefix}/large") == content


def test_an_upload_that_breaks_for_good_shows_nothing_and_leaves_no_parts(s3, prefix, monkeypatch):
    import boto3

    monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "2")
    s3.fail("503", 1000, "PUT", "partNumber=2")
    with pytest.raises(StorageError, match=r"cannot write .*large"):
        storage.write_bytes(f"{prefix}/large", data(2 * remote.BLOCK + 99))
    s3.heal()
    assert not storage.exists(f"{prefix}/large")
    client = boto3.client("s3", endpoint_url=s3.url)
    assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_wrong_credentials_and_full_disks_are_not_tried_again():
    for error in (PermissionError("403"), FileNotFoundError("x"), OSError(errno.ENOSPC, "full")):
        calls = []

        def action(error=error, calls=calls):
            calls.append(1)
            raise error

        with pytest.raises(type(error)):
            retry.retry(action, "test", retry.RetryPolicy(attempts=5, base=0))
        assert len(calls) == 1


def test_waits_grow_and_are_jittered():
    policy = retry.RetryPolicy(base=1.0, cap=8.0)
    waits = [[policy.wait(attempt) for _ in range(200)] for attempt in range(6)]
    assert all(0 <= wait <= min(8.0, 2.0**attempt) for attempt, row in enumerate(waits) for wait in row)
    assert max(waits[4]) > max(waits[0])
    assert len(set(waits[5])) > 100


def test_credentials_do_not_appear_in_errors_or_logs(s3, prefix, caplog, monkeypatch):
    monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "2")
    s3.fail("503", 50)
    with caplog.at_level("DEBUG", logger="headstart"), pytest.raises(StorageError) as caught:
        storage.read_bytes(f"{prefix}/x", 0, 5)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in caplog.text + str(caught.value)


# ------------------------------------------------------------------------------------------------ cache


def test_the_cache_keeps_recent_files_within_its_limit_and_sees_changes(s3, prefix, tmp_path):
    for name in "abc":
        storage.write_bytes(f"{prefix}/{name}", data(1000, ord(name)))
    paths = [storage.cached(f"{prefix}/{name}", tmp_path, 2500) for name in "abc"]
    for at, path in enumerate(paths):
        if path.exists():
            os.utime(path, (at, at))
    assert sum(path.exists() for path in paths) == 2
    assert paths[2].read_bytes() == data(1000, ord("c"))
    before = len(s3.requests)
    assert storage.cached(f"{prefix}/c", tmp_path, 2500) == paths[2]
    assert not any(method == "GET" and path.endswith("/c") for method, path in s3.requests[before:])
    storage.write_bytes(f"{prefix}/c", data(1000, 77))
    assert storage.cached(f"{prefix}/c", tmp_path, 2500).read_bytes() == data(1000, 77)


def test_a_small_file_of_known_checksum_is_fetched_once_for_all_that_want_it(s3, prefix, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    url, checksum = f"{prefix}/index", hashlib.sha256(data(1000)).hexdigest()
    storage.write_bytes(url, data(1000))
    s3.requests.clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: storage.shared_bytes(url, checksum), range(8)))
    assert found == [data(1000)] * 8
    assert sum(method == "GET" for method, _ in s3.requests) == 1
    (kept,) = (path for path in tmp_path.rglob(checksum) if path.is_file())
    kept.write_bytes(b"damaged")
    assert storage.shared_bytes(url, checksum) == data(1000)
    assert kept.read_bytes() == data(1000)


def test_a_range_is_fetched_once_for_all_that_want_it_and_again_where_the_kept_one_is_damaged(
    s3, prefix, tmp_path, monkeypatch
):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    url = f"{prefix}/shard"
    storage.write_bytes(url, data(1000))
    s3.requests.clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: storage.shared_range(url, "v1", 100, 300), range(8)))
    assert found == [data(1000)[100:300]] * 8
    assert sum(method == "GET" for method, _ in s3.requests) == 1
    (kept,) = (path for path in (tmp_path / "ranges").glob("*/*") if path.is_file())
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert storage.shared_range(url, "v1", 100, 300) == data(1000)[100:300]
    storage.write_bytes(url, data(1000, 3))
    assert storage.shared_range(url, "v1", 100, 300) == data(1000)[100:300]
    assert storage.shared_range(url, "v2", 100, 300) == data(1000, 3)[100:300]


def test_a_shared_file_of_another_checksum_is_not_kept(s3, prefix, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    storage.write_bytes(f"{prefix}/index", data(1000))
    assert storage.shared_bytes(f"{prefix}/index", "ab" * 32) == data(1000)
    assert not list(tmp_path.rglob("ab" * 32))


def test_shared_files_stay_within_their_limit(s3, prefix, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    contents = [content for content in (data(1000, i) for i in range(900)) if hashlib.sha256(content).digest()[0] < 2]
    for i, content in enumerate(contents):
        storage.write_bytes(f"{prefix}/{i}", content)
        storage.shared_bytes(f"{prefix}/{i}", hashlib.sha256(content).hexdigest(), 256 * 2500)
    kept = [len(list(folder.iterdir())) for folder in (tmp_path / "shared").iterdir() if folder.is_dir()]
    assert len(contents) > 4
    assert max(kept) == 2


def test_without_a_folder_to_share_every_reader_fetches(s3, prefix, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "file"))
    storage.write_bytes(f"{prefix}/index", data(1000))
    assert storage.shared_bytes(f"{prefix}/index", hashlib.sha256(data(1000)).hexdigest()) == data(1000)


# ------------------------------------------------------------------------------------------------ checkpoints


def save(base: str, step: int, keep: int = 3) -> str:
    def write(folder: Path) -> None:
        (folder / "engine").mkdir()
        (folder / "engine" / "weights").write_bytes(data(2000, step))

    return checkpoint.save_checkpoint(base, step, write, keep=keep)


def test_the_last_checkpoints_are_kept_and_never_fewer_than_two(base):
    for step in (10, 20, 30, 40):
        save(base, step, keep=1)
    assert [c.step for c in checkpoint.list_checkpoints(base)] == [30, 40]
    assert checkpoint.latest_checkpoint(base) == checkpoint.checkpoint_url(base, 40)


def test_a_damaged_newest_checkpoint_is_passed_over(base, tmp_path):
    for step in (1, 2):
        save(base, step)
    storage.write_bytes(storage.join(checkpoint.checkpoint_url(base, 2), "engine", "weights"), b"torn")
    step, folder = checkpoint.fetch_latest(base, tmp_path)
    assert step == 1
    assert (folder / "engine" / "weights").read_bytes() == data(2000, 1)


def test_when_every_checkpoint_is_damaged_the_run_says_so(base, tmp_path):
    save(base, 1)
    storage.write_bytes(storage.join(checkpoint.checkpoint_url(base, 1), "engine", "weights"), b"torn")
    with pytest.raises(StorageError, match="all 1 checkpoints are damaged"):
        checkpoint.fetch_latest(base, tmp_path)


def test_an_upload_broken_half_way_leaves_the_checkpoint_before_it(s3, prefix, tmp_path, monkeypatch):
    save(prefix, 1)
    monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "2")
    s3.fail("reset", 1000, "PUT", "step-00000002")
    with pytest.raises(StorageError, match="step-00000002"):
        save(prefix, 2)
    s3.heal()
    assert checkpoint.fetch_latest(prefix, tmp_path / "a")[0] == 1
    save(prefix, 2)
    assert checkpoint.fetch_latest(prefix, tmp_path / "b")[0] == 2


def test_old_checkpoints_go_only_after_the_new_one_is_complete(s3, prefix, monkeypatch):
    for step in (1, 2):
        save(prefix, step, keep=2)
    monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "1")
    s3.fail("503", 1000, "PUT", "step-00000003/_COMMIT")
    with pytest.raises(StorageError):
        save(prefix, 3, keep=2)
    s3.heal()
    assert [c.step for c in checkpoint.list_checkpoints(prefix)] == [1, 2]


def test_a_rank_that_does_not_write_publishes_nothing(tmp_path):
    written = []
    checkpoint.save_checkpoint(tmp_path, 1, lambda folder: written.append(folder), main=False)
    assert len(written) == 1
    assert not written[0].exists()
    assert checkpoint.latest_checkpoint(tmp_path) is None


def test_a_full_disk_is_one_sentence_and_leaves_no_rests(tmp_path):
    save(str(tmp_path), 1)

    def write(folder: Path) -> None:
        (folder / "part").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="the disk is full; free some space and run the same command again"):
        checkpoint.save_checkpoint(tmp_path, 2, write)
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"]
