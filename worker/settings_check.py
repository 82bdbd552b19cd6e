"""Whether the roles can read their settings, asked before any of them starts; it changes none.

Run as a process, `python -m worker.settings_check MODULE:CLASS …`: the API's settings are not ours to import.
"""

import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from worker.service import ServiceError

CLASSES = ("api.settings:ApiSettings", "worker.settings:WorkerSettings")


def check(environment: Mapping[str, str]) -> None:
    """ServiceError('bad_settings') with a line for each variable that is wrong in this environment."""
    ran = subprocess.run(
        [sys.executable, "-m", "worker.settings_check", *CLASSES],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if ran.returncode != 0:
        raise ServiceError("bad_settings", ran.stdout.strip() or f"the settings cannot be read:\n{ran.stderr.strip()}")


def faults(error: ValidationError) -> list[str]:
    """What is wrong, by the variables' names. Values are not repeated: they may be secret."""
    found = []
    for fault in error.errors(include_input=False, include_url=False):
        text = fault["msg"].removeprefix("Value error, ")
        # A rule between several settings names them itself.
        found.append(f"TAGMILL_{str(fault['loc'][0]).upper()}: {text}" if fault["loc"] else text)
    return found


def main(classes: list[str]) -> int:
    """Print what is wrong; exit code 2 if anything is."""
    found: list[str] = []
    for place in classes:
        module, _, name = place.partition(":")
        settings: type[BaseSettings] = getattr(import_module(module), name)
        try:
            settings()
        except ValidationError as error:
            found += faults(error)
        except SettingsError as error:
            found.append(str(error))
    print("\n".join(dict.fromkeys(found)))
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
