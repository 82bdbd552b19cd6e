"""`tagmill policies diff`: what two policies say differently, and nothing else."""

import os
import pty
import subprocess
from pathlib import Path

from db import policy_text
from tests.worker.test_cli import Cli, operator  # noqa: F401  # fixtures
from tests.worker.test_cli_policies import SHOP, shop  # noqa: F401  # fixtures
from tests.worker.test_up import TAGMILL, clean_environment

REORDERED = """\
{"rules": [{"then": "reject", "when": {"at_least": 0.50, "score": "Porn"}, "id": "nudity"}],
 "description": "A shop's.", "name": "shop"}
"""


def test_two_versions_by_any_of_their_names(operator: Cli, shop: Path) -> None:  # noqa: F811
    operator("policies", "add", str(shop), "--activate")
    shop.write_text(SHOP.replace("reject", "review"))
    operator("policies", "add", str(shop))
    for words in (("shop", "1", "2"), ("shop@1", "shop@2")):
        said = operator("policies", "diff", *words, code=1).stdout
        assert [line for line in said.splitlines() if line[0] in "+-"] == [
            "--- shop@1", "+++ shop@2", "-  then: reject", "+  then: review",
        ]  # fmt: skip
        assert "\x1b" not in said
    against = operator("policies", "diff", "shop", str(shop), code=1).stdout
    assert against.splitlines()[:2] == ["--- shop@1", f"+++ {shop}"], "a name is its active version"
    assert operator("policies", "diff", "shop@2", str(shop)).stdout == ""
    assert operator("policies", "diff", "shop", "2", "2").stdout == ""


def test_comments_order_and_spelling_are_no_difference(shop: Path, tmp_path: Path) -> None:  # noqa: F811
    """Two files need no database."""
    nowhere = Cli(tmp_path / "none", TAGMILL_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    other = tmp_path / "other.json"
    other.write_text(REORDERED)
    assert nowhere("policies", "diff", str(shop), str(other)).stdout == ""
    other.write_text(REORDERED.replace("0.50", "0.51"))
    changed = nowhere("policies", "diff", str(shop), str(other), code=1).stdout.splitlines()
    assert [line.strip() for line in changed if line.startswith(("-  ", "+  "))] == [
        "-    at_least: 0.5", "+    at_least: 0.51",
    ]  # fmt: skip


def test_what_cannot_be_compared_is_told_by_another_exit_code(
    operator: Cli,  # noqa: F811
    shop: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    operator("policies", "add", str(shop))
    assert "not_found" in operator("policies", "diff", "shop", "1", "9", code=2).stderr
    assert "not_found" in operator("policies", "diff", "shop", "1", "2", "--account", "nobody", code=2).stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: shop\nrules: 7\n")
    assert "invalid_policy" in operator("policies", "diff", "shop@1", str(bad), code=2).stderr
    assert "no file gone.yaml" in operator("policies", "diff", "shop@1", "gone.yaml", code=2).stderr
    assert "no NAME@VERSION" in operator("policies", "diff", "shop@1", "shop@x", code=2).stderr
    for words in (("shop",), ("shop", "1"), ("shop", "1", "x"), ("shop", "1", "2", "3")):
        operator("policies", "diff", *words, code=2)


def test_a_terminal_gets_colours(shop: Path, tmp_path: Path) -> None:  # noqa: F811
    other = tmp_path / "other.yaml"
    other.write_text(SHOP.replace("reject", "review"))
    ours, theirs = pty.openpty()
    ended = subprocess.run(
        [*TAGMILL, "policies", "diff", str(shop), str(other)],
        env=clean_environment(tmp_path / "none", TERM="xterm"),
        stdout=theirs,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert ended.returncode == 1
    assert "\x1b[31m-  then: reject\x1b[0m" in said


def test_the_canonical_text_is_the_policy() -> None:
    read = policy_text.read(SHOP)
    again = policy_text.read(policy_text.canonical({**read.document, "version": 7}))
    assert again.document == read.document
    assert policy_text.canonical(read.document).splitlines()[:2] == ["name: shop", "description: A shop's."]
