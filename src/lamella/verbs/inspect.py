"""`lamella inspect FILE...`: what images, volumes and videos hold, without whom they show."""

from __future__ import annotations

import json
from typing import Any

from lamella.config import Request
from lamella.errors import ImageError, LamellaError, MissingExtraError
from lamella.imaging.facts import facts_of, lines, refused


def run(request: Request) -> int:
    """Print the facts of every path; one that cannot be read is said and the others go on."""
    if not request.paths:
        raise LamellaError("lamella inspect", "no files are given", "For example: lamella inspect scan.dcm.")
    if request.overrides:
        raise LamellaError("lamella inspect", f"it has no setting {request.overrides[0]}", "Give paths only.")
    found: list[dict[str, Any]] = []
    failures = 0
    for path in request.paths:
        try:
            facts = facts_of(path)
        except (ImageError, MissingExtraError) as error:
            failures += 1
            found.append(refused(path, error))
            if not request.options.get("json"):
                print(f"{path}\n  cannot be read: {error.cause}. {error.remedy}")
            continue
        found.append({"path": str(path)} | facts)
        if not request.options.get("json"):
            print("\n".join(lines(path, facts)))
    if request.options.get("json"):
        print(json.dumps(found, indent=2))
    return 1 if failures else 0
