"""A ComfyUI server with a checkout as its node pack, for ``same_results.py``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
"""One thread, and one order of sets: the host runs the nodes of a graph in the order of a set."""
TEXT_OUTPUTS = ("text", "report", "verdict", "path", "file")
"""Outputs of our nodes that are written for people. Their other strings are data."""
PICTURE_OUTPUTS = ("IMAGE", "images")
"""Outputs of our nodes that are images of a model. Their other images are charts."""
SAMPLERS = ("KSampler", "EquipoiseDistributionGuidanceKSampler")
SAVERS = {
    "EQUIPOISE_ADP": ("EquipoiseSaveADP", "adp"),
    "EQUIPOISE_BIAS_FEATURES": ("EquipoiseSaveBiasFeatures", "bias_features"),
    "EQUIPOISE_NEURON_PATH": ("EquipoiseSaveNeuronPath", "neuron_path"),
}
"""Socket type -> the node that saves it, and that node's input."""
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def widgets(definition: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and options of a node's widgets in order.

    The choices of a combo are in options["options"].
    """
    for kind in ("required", "optional"):
        for name in definition["input_order"].get(kind, []):
            what, *rest = definition["input"][kind][name]
            options = dict(rest[0]) if rest else {}
            if isinstance(what, list):
                what, options["options"] = "COMBO", what
            if what in WIDGETS and not options.get("forceInput"):
                yield name, options


class Host:
    """A server on a free port. ``base`` is its base directory; ``info`` describes its nodes."""

    def __init__(self, base: Path, repo: Path) -> None:
        self.base, self.repo = base, repo
        self.info: dict[str, Any] = {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, limit: float = 300.0) -> None:
        """Start the server and wait until it answers."""
        shutil.rmtree(self.base, ignore_errors=True)
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (self.base / name).mkdir(parents=True)
        (self.base / "custom_nodes" / "equipoise").symlink_to(self.repo, target_is_directory=True)
        main = Path(os.environ.get("COMFYUI_PATH") or "~/ComfyUI").expanduser() / "main.py"
        command = [sys.executable, str(main), "--cpu", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--database-url", f"sqlite:///{(self.base / 'comfyui.db').as_posix()}"]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--preview-method", "none"]
        with (self.base / "server.log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self.base, env=os.environ | ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + limit
        while not self.info:
            try:
                self.info = self._ask("/object_info")
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError(f"ComfyUI did not start; see {self.base / 'server.log'}.") from None
                time.sleep(0.3)

    def running(self) -> bool:
        """Return whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the server."""
        if self._process is not None and self.running():
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def empty(self) -> None:
        """Delete what earlier graphs wrote, and what the server keeps of them in memory."""
        self._ask("/free", {"unload_models": True, "free_memory": True})
        self._ask("/history", {"clear": True})
        time.sleep(1.5)  # the server frees its memory between two prompts, once a second
        for folder in ("output", "input", "user/equipoise"):
            shutil.rmtree(self.base / folder, ignore_errors=True)
            (self.base / folder).mkdir()
        for path in (self.base / "models").rglob("*"):
            if path.is_file():  # the host has lists of these folders, and fails if a folder is gone
                path.unlink()

    def node(self, kind: str, /, **inputs: Any) -> dict[str, Any]:
        """Return a node in API form. Widgets that are not given have their defaults."""
        values = {}
        for name, options in widgets(self.info[kind]):
            if name not in inputs:
                values[name] = options["default"] if "default" in options else options["options"][0]
        return {"class_type": kind, "inputs": values | inputs}

    def template(self, name: str, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return a graph of the checkout's ``workflows`` in API form.

        ``changes``: node type -> inputs that differ.
        """
        workflow = json.loads((self.repo / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
        prompt = {}
        for node in workflow["nodes"]:
            kind = node["type"]
            if kind in ("MarkdownNote", "Note"):
                continue
            names: list[str] = []
            for widget, options in widgets(self.info[kind]):
                names += [widget, ""] if options.get("control_after_generate") else [widget]
            inputs = {n: v for n, v in zip(names, node["widgets_values"], strict=True) if n}
            inputs |= {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
            prompt[str(node["id"])] = {"class_type": kind, "inputs": inputs | dict(changes.get(kind, {}))}
        return prompt

    def run(self, prompt: dict[str, Any], limit: float = 1200.0) -> Iterator[tuple[str, str, Any]]:
        """Queue a graph in API form and wait for it.

        Yields kind, key and value of what its nodes show. Latents and images are in the output folder.
        """
        shown = self._save_everything(prompt)
        answer = self._ask("/prompt", {"prompt": prompt})
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise RuntimeError(f"the server refused the graph: {json.dumps(answer)[:3000]}")
        until = time.monotonic() + limit
        while not (entry := self._ask(f"/history/{answer['prompt_id']}").get(answer["prompt_id"])):
            if time.monotonic() > until:
                raise TimeoutError(f"the graph did not end within {limit:.0f} s.")
            time.sleep(0.1)
        for kind, message in entry["status"]["messages"]:
            if kind == "execution_error":
                raise RuntimeError(f"{message['node_type']} {message['node_id']}: {message['exception_message'].strip()}")
        for number, outputs in sorted(entry["outputs"].items()):
            kind, key = shown.get(number, ("", f"{number}.{prompt[number]['class_type']}"))
            for name, value in outputs.items():
                if number in shown:
                    yield kind, key, value
                elif name == "text":
                    yield "texts", key, value
                elif name not in ("images", "animated", "latents"):
                    yield "json", f"{key}.{name}", value

    def _save_everything(self, prompt: dict[str, Any]) -> dict[str, tuple[str, str]]:
        """Add nodes that save or show what the graph computes.

        Returns node id -> kind and key of what is shown.
        """
        shown: dict[str, tuple[str, str]] = {}
        for number, node in list(prompt.items()):
            kind, definition = node["class_type"], self.info[node["class_type"]]
            ours = kind.startswith("Equipoise")
            for i, (name, what) in enumerate(zip(definition["output_name"], definition["output"], strict=True)):
                key, reference = f"{number}_{kind}_{name.replace(' ', '_')}", [number, i]
                if what == "LATENT" and kind in SAMPLERS:
                    prompt[f"{key} saved"] = self.node("SaveLatent", samples=reference, filename_prefix=f"latents/{key}")
                elif what == "IMAGE" and (ours or kind == "VAEDecode"):
                    folder = "pictures" if name in PICTURE_OUTPUTS else "charts"
                    prompt[f"{key} saved"] = self.node("SaveImage", images=reference, filename_prefix=f"{folder}/{key}")
                elif ours and what in ("STRING", "FLOAT", "INT"):
                    prompt[f"{key} shown"] = {"class_type": "PreviewAny", "inputs": {"source": reference}}
                    shown[f"{key} shown"] = "texts" if name in TEXT_OUTPUTS else "json", key
                elif what in SAVERS and not kind.startswith("EquipoiseLoad"):
                    saver, field = SAVERS[what]
                    prompt[f"{key} saved"] = self.node(saver, **{field: reference, "name": f"{number} {kind}", "overwrite": True})
        return shown

    def _ask(self, path: str, body: Any = None) -> Any:
        """Send a GET, or a POST of ``body``, and return the JSON answer.

        Also if the server refuses.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text) if text else None
