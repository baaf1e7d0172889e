"""Shards behind a server, whose connections do not survive the fork of a worker process."""

import http.server
import re
import threading
from functools import partial

import pytest
from torch.utils.data import DataLoader

from data.datamodule import WindowDataset, collate
from data.schedule import Window
from data.shard_folder import ShardFolder
from tests.data.test_shards import sample, write

pytest.importorskip("aiohttp")


class Ranged(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, as stores do."""

    def do_GET(self):
        content = (self.directory + self.path).encode()
        with open(content, "rb") as file:
            content = file.read()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted:
            content = content[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(tmp_path):
    samples = [sample(tmp_path, index) for index in range(4)]
    write(tmp_path / "out", [samples], tmp_path / "scratch")
    handler = partial(Ranged, directory=str(tmp_path / "out"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_remote_shard_is_read_by_worker_processes_too(address, num_workers):
    source = ShardFolder(address, min_frames=5)
    windows = [[Window(index, 5, 0.0)] for index in range(4)]
    loader = DataLoader(
        WindowDataset(source), batch_sampler=windows, collate_fn=collate, num_workers=num_workers
    )
    assert [batch.captions for batch in loader] == [[f"number {index}"] for index in range(4)]
