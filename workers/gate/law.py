"""The rules in force: tools, their schemas, the policies; built once per configuration.

Owns: reading policy texts and building the pipeline. Must not know: tasks.
Invariant: built in the nursery before the forks, so that a restarted gate parses nothing again (3.5 ms).
Source: DESIGN §8.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ...proto.config import Config, Policy
from ...proto.errors import ConfigError
from ...proto.tools import CATALOGUE
from .pipeline.decide import Pipeline
from .pipeline.policy import Policies


@lru_cache(maxsize=1)
def pipeline_of(config: Config) -> Pipeline:
    """Give the pipeline of a configuration. Raises ConfigError."""
    return Pipeline(list(CATALOGUE.values()), Policies(_texts(config.policy), CATALOGUE.keys()))


def _texts(policy: Policy) -> dict[str, str]:
    """The shipped set and the operator's own files. Raises ConfigError."""
    shipped = Path(__file__).parent / "policies" / f"{policy.set}.cedar"
    texts: dict[str, str] = {policy.set: shipped.read_text()}
    for name in policy.files:
        try:
            texts[name] = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"policy file {name}: {getattr(error, 'strerror', None) or error}",
                field="policy.files",
                remedy="The gate must be able to read it.",
            ) from error
    return texts
