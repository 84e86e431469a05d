"""Set-up shared by all tests: no network, few threads, tiny checkpoints made on the spot."""

from __future__ import annotations

import json
import os
import shutil
import socket
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import settings

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    RAY_worker_niceness="0",
    RAY_USAGE_STATS_ENABLED="0",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The key of studies made here is not the user's own.
_STATE = tempfile.TemporaryDirectory(prefix="merge-search-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name

if TYPE_CHECKING:  # torch stays out of the tests that do not need it
    from torch import Tensor

CHARACTERS = string.digits + string.ascii_lowercase + " \n=:>,.?+-|"
SPECIAL = ("<pad>", "<eos>", "<unk>")
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gpt_neox", "gpt2")

TinyModel = Callable[..., Path]
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with a file in tests/golden; UPDATE_GOLDEN=1 writes it instead."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        assert text == path.read_bytes().decode("utf-8")

    return check


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``device``: the CPU, and a GPU where there is one."""
    if "device" in metafunc.fixturenames:
        import torch

        names = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        metafunc.parametrize("device", [torch.device(name) for name in names], ids=names)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A function that writes a random tiny checkpoint with a working tokenizer.

    ``tiny_model(folder=None, family="llama", *, seed=0, dtype="float32", tied=False, layers=2,
    hidden=32, vocab=CHARACTERS, sharded=False, base=None, noise=0.02) -> Path``. With ``base`` it
    is a fine-tune: the base's config and tokenizer, and its weights plus normal noise of standard
    deviation ``noise`` drawn from ``seed``. ``vocab`` is the characters the tokenizer knows.
    """
    roots = tmp_path_factory.mktemp("tiny")
    made = 0

    def make(
        folder: Path | None = None,
        family: str = "llama",
        *,
        seed: int = 0,
        dtype: str = "float32",
        tied: bool = False,
        layers: int = 2,
        hidden: int = 32,
        vocab: str = CHARACTERS,
        sharded: bool = False,
        base: Path | None = None,
        noise: float = 0.02,
    ) -> Path:
        nonlocal made
        made += 1
        target = folder or roots / f"{family}-{made}"
        target.mkdir(parents=True, exist_ok=True)
        if base is None:
            tensors = _random_model(target, family, seed, tied, layers, hidden, vocab)
        else:
            tensors = _fine_tune(target, base, seed, noise)
        _save(target, tensors, dtype, sharded)
        return target

    return make


@pytest.fixture(scope="session")
def tiny_family(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base and three fine-tunes: Llama shape, 4 layers, hidden 32, float32, untied head."""
    root = tmp_path_factory.mktemp("family")
    base = tiny_model(root / "base", layers=4)
    tuned = {
        name: tiny_model(root / name, base=base, seed=number)
        for number, name in enumerate(("math", "code", "text"), start=1)
    }
    return {"base": base, **tuned}


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., CompletedProcess[str]]:
    """Runs a command line in this process, in ``tmp_path``: no second import of everything."""
    from search.cli.app import main

    def run(*arguments: object) -> CompletedProcess[str]:
        capsys.readouterr()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["search", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        code = code if isinstance(code, int) else 0
        return CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def _model_config(family: str, tied: bool, layers: int, hidden: int, vocab: int) -> Any:
    from transformers import AutoConfig

    common = {
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    if family == "gpt2":
        sizes = {"n_layer": layers, "n_embd": hidden, "n_head": 4, "n_positions": 128}
        return AutoConfig.for_model(family, **common, **sizes)
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    }
    if family != "gpt_neox":
        sizes |= {"num_key_value_heads": 2, "head_dim": hidden // 4}
    return AutoConfig.for_model(family, **common, **sizes)


def _random_model(
    folder: Path, family: str, seed: int, tied: bool, layers: int, hidden: int, vocab: str
) -> dict[str, Tensor]:
    """Write config and tokenizer; the tensors come back under the names of a saved checkpoint."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    config = _model_config(family, tied, layers, hidden, len(SPECIAL) + len(vocab))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # norms and biases start constant; nothing may be degenerate
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.01)
    model.save_pretrained(folder)
    save_tokenizer(folder, vocab)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return tensors


def save_tokenizer(folder: Path, vocab: str) -> None:
    """One token per character: byte-level BPE without merges, which every family's class takes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [character.translate({ord(" "): "Ġ", ord("\n"): "Ċ"}) for character in vocab]
    ids = {token: number for number, token in enumerate((*SPECIAL, *pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def _fine_tune(folder: Path, base: Path, seed: int, noise: float) -> dict[str, Tensor]:
    """The base's other files are copied; its tensors come back changed."""
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in sorted(base.iterdir()):
        if file.suffix == ".safetensors":
            tensors |= load_file(file)
        elif file.name != "model.safetensors.index.json":
            shutil.copy(file, folder / file.name)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensors[name].float() + noise * torch.randn(tensors[name].shape, generator=generator)
        for name in sorted(tensors)
    }


def _save(folder: Path, tensors: Mapping[str, Tensor], dtype: str, sharded: bool) -> None:
    import torch
    from safetensors.torch import save_file

    cast = {name: value.to(getattr(torch, dtype)) for name, value in tensors.items()}
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(config | {"dtype": dtype}, indent=2))
    if not sharded:
        save_file(cast, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(cast)
    shards = {f"model-{part + 1:05d}-of-00003.safetensors": names[part::3] for part in range(3)}
    for file, held in shards.items():
        save_file({name: cast[name] for name in held}, folder / file, metadata={"format": "pt"})
    size = sum(value.numel() * value.element_size() for value in cast.values())
    index = {
        "metadata": {"total_size": size},
        "weight_map": {name: file for file, held in shards.items() for name in held},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def missing(what: str) -> None:
    """Skip for want of something that CI installs; there it is a failure."""
    if os.environ.get("MERGE_SEARCH_CI"):
        pytest.fail(f"{what}: expected to be installed, see .ci/run")
    pytest.skip(f"{what} is not installed")


class PostgresServer:
    """A server on loopback with its data in a folder of its own; as root it runs as nobody."""

    USER, PASSWORD = "searcher", "geheim/Zu:tritt!7"

    def __init__(self, binaries: Path) -> None:
        self._bin = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="merge-search-pg-"))
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")
        secret = self.folder / "secret"
        secret.write_text(self.PASSWORD)
        secret.chmod(0o644)
        self._run(
            *("initdb", "-D", self.folder / "data", "-U", self.USER, "-A", "scram-sha-256"),
            *("--pwfile", secret, "-E", "UTF8", "--locale=C", "--no-sync"),
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._made = 0
        self.start()

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [self._bin / program, *map(str, arguments)], check=True, cwd="/",
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **self._as,
        )  # fmt: skip

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories="
        log = self.folder / "log"
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-m", "immediate", "stop")

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        login = f"{self.USER}:{quote(password, safe='')}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """The URL of a new database."""
        import psycopg

        self._made += 1
        name = f"run{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server for the test session."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr/local").glob("pgsql/bin")]
    found = shutil.which("initdb")
    places += [Path(found).resolve().parent] if found else []
    if not places:
        missing("PostgreSQL")
    server = PostgresServer(places[0])
    yield server
    server.stop()
    shutil.rmtree(server.folder)
