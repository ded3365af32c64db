"""The keys of a configuration file as a Markdown document: what `modelhub schema --markdown` prints.

Made from the typed settings, as their JSON Schema is, so that docs/configuration.md cannot say anything else.
"""

from __future__ import annotations

from typing import Any

from .quantities import format_duration, format_size
from .settings import json_schema

_HEAD = """\
# Configuration

Every key of the YAML file that `modelhub serve` takes. An unknown key is an error that names its line and the key that
was probably meant; `modelhub check models.yaml` finds them all. `modelhub schema` prints the JSON Schema for editors.

```yaml
server: {port: 8080, max_body: 64MiB}
defaults: {timeout: 30s}
models:
  - {name: wine, uri: "models:/wine@champion", follow: 30s}
  - name: sentiment
    uri: runs:/abc123/model
    replicas: 2
    limits: {memory: 2GiB, queue: 100}
groups:
  - name: documents
    load: lazy
    memory_budget: 6GiB
    models:
      - {name: invoice, uri: ./models/invoice}
```

Durations are written `250ms`, `30s`, `15m`, `2h` (or a number of seconds), sizes `64MiB`, `2GB` (or a number of bytes).
Relative paths start at the file's folder. Keys of `server` and `defaults` are also flags (`--server.port 9000`,
`--defaults.limits.queue 50`) and environment variables (`MODELHUB_SERVER_PORT`); a flag comes before a variable, a
variable before the file.
"""

#: (heading, definition in the schema, introduction)
_SECTIONS = (
    ("server", "ServerSettings", "The gateway itself."),
    ("models: a model", "ModelSettings", "Those of the next section, and:"),
    ("defaults: keys of every model", "EntryDefaults", "On a model, or under `defaults` for all that do not say."),
    ("groups: a group", "GroupSettings", "Models with a loading policy of their own ([groups](groups.md))."),
)


def markdown() -> str:
    """The whole document. It is what docs/configuration.md holds."""
    definitions: dict[str, Any] = json_schema()["$defs"]
    common = definitions["EntryDefaults"]["properties"]
    parts = [_HEAD]
    for heading, name, introduction in _SECTIONS:
        own = definitions[name]["properties"]
        if name == "ModelSettings":
            own = {key: value for key, value in own.items() if key not in common}
        rows = [row for key, value in own.items() for row in _rows(key, value, definitions)]
        table = "\n".join(f"| `{key}` | {default} | {text} |" for key, default, text in rows)
        parts.append(f"## {heading}\n\n{introduction}\n\n| key | default | meaning |\n| --- | --- | --- |\n{table}\n")
    return "\n".join(parts)


def _rows(key: str, schema: dict[str, Any], definitions: dict[str, Any]) -> list[tuple[str, str, str]]:
    """One row for a plain key; one for each key of a section inside."""
    inner = definitions.get(_reference(schema))
    if inner is not None:
        return [row for name, each in inner["properties"].items() for row in _rows(f"{key}.{name}", each, definitions)]
    return [(key, _default(schema), _meaning(schema))]


def _meaning(schema: dict[str, Any]) -> str:
    said = " ".join(schema.get("description", "").split()).replace("|", "\\|").replace("None:", "null:")
    values = [str(value) for each in _choices(schema) for value in each.get("enum", []) if value is not None]
    unsaid = [value for value in values if value not in said]
    return f"{said} One of {', '.join(values)}." if unsaid else said


def _reference(schema: dict[str, Any]) -> str:
    return next((str(each["$ref"]).rsplit("/", 1)[1] for each in _choices(schema) if "$ref" in each), "")


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema and all its alternatives, those inside alternatives too."""
    return [schema, *(found for each in schema.get("anyOf", []) for found in _choices(each))]


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value in (None, "", []):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    examples = {example for each in _choices(schema) for example in each.get("examples", [])}
    if "30s" in examples:
        return f"`{format_duration(value).replace('m00s', 'm') if value else 0}`"
    if "64MiB" in examples:
        return f"`{format_size(value)}`"
    return f"`{value}`"
