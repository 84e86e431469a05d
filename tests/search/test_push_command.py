"""A built model goes to a hub: a stand-in here that speaks its HTTP interface."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


class Hub:
    """The part of the hub's interface that an upload asks for, with what was uploaded."""

    def __init__(self, address: str) -> None:
        self.address, self.token = address, "hf_right"
        self.repositories: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """What the hub says to a request."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories[name] = asked.get("visibility") or f"private={asked['private']}"
            return {"url": f"{self.address}/{name}"}
        if "/preupload/" in path:
            return {"files": [self._mode(one) for one in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return {"objects": [self._blob(one["oid"]) for one in json.loads(body)["objects"]]}
        if path.startswith("/blobs/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/blobs/")
            self.blobs[path.removeprefix("/blobs/")] = body
            return {}
        if "/commit/" in path:
            return self._commit([json.loads(line) for line in body.splitlines()])
        return {"errors": [], "warnings": []} if path == "/api/validate-yaml" else {}

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _blob(self, oid: str) -> dict[str, Any]:
        upload = {"href": f"{self.address}/blobs/{oid}"}
        return {"oid": oid, "size": 1, "actions": {"upload": upload}}

    def _commit(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
        return {"commitUrl": f"{self.address}/o/n/commit/1", "commitOid": "1", "success": True}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            known = path.startswith("/blobs/") or self.headers["Authorization"] == (
                f"Bearer {found.token}"
            )
            text = json.dumps(found.answer(path, body) if known else {"error": "no"}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Hub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "HF_ENDPOINT": found.address, "HF_TOKEN": found.token, "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def built(tiny_family: dict[str, Path], command: Command, tmp_path: Path) -> Path:
    recipe = tmp_path / "recipe.yaml"
    models = [
        {"model": str(tiny_family[name]), "parameters": {"weight": 0.5}}
        for name in ("math", "code")
    ]
    recipe.write_text(json.dumps({"merge_method": "linear", "models": models}))
    done = command("build", recipe, tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    return tmp_path / "merged"


def pushed(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's library reads its settings when it is imported."""
    line = [sys.executable, "-m", "search", "push", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("public", [False, True])
def test_every_file_arrives(hub: Hub, built: Path, public: bool) -> None:
    done = pushed(built, "me/mix", *(["--public"] if public else []))
    assert done.returncode == 0, done.stderr
    assert f"{hub.address}/me/mix" in done.stdout
    assert "its card declares no license" in done.stdout
    assert hub.repositories == {"me/mix": "public" if public else "private"}
    here = {path.name: path.read_bytes() for path in built.iterdir() if path.is_file()}
    assert hub.files == here
    assert {"README.md", "config.json", "model.safetensors"} <= here.keys()


def test_what_is_published_names_no_folder_of_this_machine(
    hub: Hub, built: Path, tiny_family: dict[str, Path]
) -> None:
    """Though the recipe names its models by absolute paths."""
    assert pushed(built, "me/mix").returncode == 0
    for name, content in hub.files.items():
        assert str(tiny_family["math"].parent).encode() not in content, name
    card = built / "README.md"
    card.write_text(card.read_text() + f"\nSee {built.parent}/notes.txt")
    hub.files.clear()
    done = pushed(built, "me/mix")
    assert done.returncode == 2
    assert f"README.md: expected no folder of this machine, got {built.parent}" in done.stderr
    assert hub.files == {}


def test_a_hub_that_refuses(hub: Hub, built: Path) -> None:
    hub.token = "hf_another"
    done = pushed(built, "me/mix")
    assert done.returncode == 1
    assert "me/mix: the hub did not take it" in done.stderr
    assert "`hf auth login`" in done.stderr
    assert hub.files == {}


def test_a_hub_that_is_not_there(hub: Hub, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = pushed(built, "me/mix")
    assert done.returncode == 1
    assert "me/mix: the hub did not take it" in done.stderr


def test_what_is_no_built_model(hub: Hub, built: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = pushed(tmp_path / "empty", "me/mix")
    assert done.returncode == 2
    assert done.stderr.count("expected a model folder that `search build` wrote") == 3
    for name in ("mix", "a/b/c", "me/has space"):
        done = pushed(built, name)
        assert done.returncode == 2, name
        assert "repository: " in done.stderr
    assert hub.repositories == {}
