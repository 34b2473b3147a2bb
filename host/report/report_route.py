"""Serve a saved report, for the button on the node. ComfyUI's own route gives HTML files as downloads."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from ...charts.report.report_html import POLICY
from .write import reports_root

REPORT_ROUTE = "/equipoise/report"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"{POLICY}; sandbox",
    "X-Content-Type-Options": "nosniff",
}


def report_file(name: str) -> Path | None:
    """Return the report of this name; None if there is none. A name with a path in it names no report."""
    if not re.fullmatch(r"[^/\\]+\.html", name) or name.startswith("."):
        return None
    path = reports_root() / name
    return path if path.is_file() and path.resolve().parent == reports_root().resolve() else None


def register_report_route() -> None:
    """Add the route to the host's server. A second call, or a call without a server, changes nothing."""
    server: Any = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None or any(getattr(route, "path", None) == REPORT_ROUTE for route in server.routes):
        return
    from aiohttp import web

    @server.routes.get(REPORT_ROUTE)
    async def report(request: web.Request) -> web.StreamResponse:
        path = report_file(request.query.get("name", ""))
        if path is None:
            return web.Response(status=404, text="There is no report of this name.")
        return web.FileResponse(path, headers=HEADERS)
