"""Talk to a language server over stdio, as an editor does."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest


def yaml_language_server(folder: Path) -> list[str]:
    """Install npm's yaml-language-server into a folder and return its command; skip the test where npm cannot."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not installed")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), "yaml-language-server@1.25.0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install yaml-language-server: {done.stderr[-200:]}")
    return [node, str(folder / "node_modules/yaml-language-server/bin/yaml-language-server"), "--stdio"]


class LanguageServer:
    """A language server that has opened a project.

    Args:
        command: Starts it with stdin and stdout as the connection.
        root: The folder of the project.
        settings: What the editor answers when the server asks for its configuration.
    """

    def __init__(self, command: list[str], root: Path, settings: dict[str, Any]) -> None:
        self.settings, self.number = settings, 0
        self.diagnostics: dict[str, list[dict[str, Any]]] = {}
        self.process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        folder = {"uri": root.as_uri(), "name": root.name}
        capabilities = {"workspace": {"configuration": True, "workspaceFolders": True}}
        parameters = {"processId": None, "rootUri": root.as_uri(), "workspaceFolders": [folder]}
        self.ask("initialize", {**parameters, "capabilities": capabilities})
        self._send("initialized", {})
        self._send("workspace/didChangeConfiguration", {"settings": settings})

    def __enter__(self) -> LanguageServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        with self.process:  # closes its streams
            pass

    def open(self, file: Path) -> list[dict[str, Any]]:
        """Open a file and return what the server reports about it."""
        uri = file.as_uri()
        self.diagnostics.pop(uri, None)
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": file.read_text()}
        self._send("textDocument/didOpen", {"textDocument": document})
        deadline = time.monotonic() + 60
        while uri not in self.diagnostics and time.monotonic() < deadline:
            self._receive()
        return self.diagnostics[uri]

    def complete(self, file: Path, line: int, character: int) -> list[str]:
        """Return the completions at a position of an open file, both counted from 0."""
        position = {"line": line, "character": character}
        found = self.ask("textDocument/completion", {"textDocument": {"uri": file.as_uri()}, "position": position})
        items = found["items"] if isinstance(found, dict) else found
        return [item["label"] for item in items]

    def ask(self, method: str, parameters: dict[str, Any]) -> Any:
        """Send a request and return its result."""
        self.number += 1
        number = self.number
        self._send(method, parameters, number)
        while True:
            answer = self._receive()
            if answer.get("id") == number and "method" not in answer:
                assert "error" not in answer, answer
                return answer["result"]

    def _send(self, method: str, parameters: dict[str, Any], number: int | None = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": parameters}
        self._write(message if number is None else {**message, "id": number})

    def _write(self, message: dict[str, Any]) -> None:
        content = json.dumps(message).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        self.process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        length = 0
        while (line := self.process.stdout.readline().strip()) or not length:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            assert line or self.process.poll() is None, "the server ended"
        message: dict[str, Any] = json.loads(self.process.stdout.read(length))
        if message.get("method") == "textDocument/publishDiagnostics":
            self.diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif message.get("method") == "workspace/configuration":
            answer = [self._section(item.get("section") or "") for item in message["params"]["items"]]
            self._write({"jsonrpc": "2.0", "id": message["id"], "result": answer})
        elif "id" in message and "method" in message:
            self._write({"jsonrpc": "2.0", "id": message["id"], "result": None})
        return message

    def _section(self, name: str) -> Any:
        return self.settings.get(name, {})
