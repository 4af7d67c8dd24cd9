"""Policies as files: options and their probabilities, how they came about, and what they were learned on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import OptionError
from ..files import strict
from .policies import Policy
from .pool import Pool

FORMAT = 1
NAME = "policy.json"
SETS = {1: ("all patches",), 2: ("common", "rare")}


def to_json(
    policy: Policy,
    pool: Pool,
    *,
    history: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    views: Mapping[str, Any] | None = None,
) -> str:
    """The text of policy.json.

    Args:
        policy: Made for the pool's groups.
        pool: What it chooses from.
        history: Probabilities over time: {"step": [...], "probabilities": [time][group][set][option]}.
        provenance: What it was learned on and with, for people.
        views: A policy of test-time views that was learned together with it, as `parsed` gives it.
    """
    groups = [
        {"name": group.name, "options": list(group.names), "probabilities": p.double().tolist()}
        for group, p in zip(pool.groups, policy.probabilities(), strict=True)
    ]
    content = {
        "format": FORMAT,
        "pool": pool.name,
        "dimensions": pool.dimensions,
        "destroying": pool.destroying,
        "sets": list(SETS.get(policy.sets, [f"set {i}" for i in range(policy.sets)])),
        "groups": groups,
        "history": dict(history or {}),
        "provenance": dict(provenance or {}),
    }
    if views is not None:
        content["views"] = dict(views)
    return json.dumps(strict(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_policy(path: Path | str) -> dict[str, Any]:
    """What a policy file says, or the folder of a model, or of its run, that learned one.

    Raises:
        OptionError: If there is no such file, or it is no policy.
    """
    path = Path(path)
    if path.is_dir():
        folder = path if (path / NAME).exists() else path / "model"
        path = (folder if folder.is_dir() else path) / NAME
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except OSError:
        raise OptionError(
            f"there is no policy {path}; a model that learned its augmentation has one in its folder"
        ) from None
    except (OptionError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is no policy: {error}") from None


def policy_hash(path: Path | str, *, expected: str | None = None) -> str:
    """Of what a policy file says; whatever else is in the folder does not count.

    Raises:
        OptionError: If there is none, or it is not the expected one.
    """
    found = hashlib.sha256(json.dumps(read_policy(path), sort_keys=True).encode()).hexdigest()[:16]
    if expected is not None and found != expected:
        raise OptionError(
            f"the policy {path} has changed since it was chosen (hash {found}, expected {expected}); put the old file "
            "back, or start anew with this one"
        )
    return found


def rare_when_learned(path: Path | str) -> tuple[str, ...]:
    """Classes whose patches were of the second kind when a policy for two kinds was learned.

    None of them where these were all but the first class, which needs no names, or where the file does not say it.
    """
    content = read_policy(path)
    said = content.get("provenance", {})
    rare, classes = (tuple(map(str, said.get(key) or ())) for key in ("rare", "classes"))
    return () if len(content["sets"]) < 2 or rare == classes[1:] else rare


def parsed(text: str) -> dict[str, Any]:
    """The content of a policy's text.

    Raises:
        OptionError: If it is none, or of a later format.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise OptionError(f"its format is {content['format']}, this version reads {FORMAT}")
        if not isinstance(content["groups"], list) or not content["groups"]:
            raise OptionError("it has no groups of options")
        for group in content["groups"]:
            if len(group["options"]) < 2:
                raise OptionError(f"group {group['name']} needs at least 2 options, to choose from")
            for row in group["probabilities"]:
                if len(row) != len(group["options"]) or not all(0 <= p <= 1 for p in row) or abs(sum(row) - 1) > 1e-3:
                    raise OptionError(f"group {group['name']} needs a probability for each option, with the sum 1")
            if len(group["probabilities"]) != len(content["sets"]):
                raise OptionError(f"group {group['name']} needs probabilities of {len(content['sets'])} sets")
        content["pool"], content["dimensions"], content["sets"], [group["name"] for group in content["groups"]]
        for part in ("history", "provenance"):
            if not isinstance(content.get(part, {}), dict):
                raise OptionError(f"its {part} is a table, got {content[part]!r}")
        if "views" in content:
            parsed(json.dumps(content["views"]))
    except OptionError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(f"not the content of policy.json ({type(error).__name__}: {error})") from None
    return content


def from_json(text: str, pool: Pool, *, temperature: float = 1.0) -> Policy:
    """A saved policy for this pool.

    Options that the pool's patches cannot take are left out, and the others keep their proportion.

    Raises:
        OptionError: If it was made for another pool or number of dimensions.
    """
    return fitted(parsed(text), pool, temperature=temperature)


def fitted(content: Mapping[str, Any], pool: Pool, *, temperature: float = 1.0) -> Policy:
    """As `from_json`, of what `read_policy` gives."""
    if (content["pool"], content["dimensions"]) != (pool.name, pool.dimensions):
        raise OptionError(
            f'a policy for the pool "{content["pool"]}" in {content["dimensions"]}D does not fit the pool '
            f'"{pool.name}" in {pool.dimensions}D; use it with a pool and patches like its own'
        )
    policy = Policy(pool.groups, sets=len(content["sets"]), temperature=temperature)
    saved = {group["name"]: group for group in content["groups"]}
    with torch.no_grad():
        for group, logits in zip(pool.groups, policy.logits, strict=True):
            logits.copy_(_logits(group.name, group.names, saved, logits))
    return policy


def _logits(name: str, options: Sequence[str], saved: Mapping[str, Any], like: nn.Parameter) -> torch.Tensor:
    known = saved.get(name, {"options": []})
    missing = [option for option in options if option not in known["options"]]
    if missing:
        raise OptionError(
            f'the policy was made for other patches: it has no probability for "{missing[0]}" of "{name}"'
        )
    columns = [known["options"].index(option) for option in options]
    kept = torch.tensor(known["probabilities"], dtype=torch.float64)[:, columns]
    return kept.clamp_min(1e-12).log().to(like)
