"""The committed code is what `make proto` makes of the .proto beside it, as far as names and numbers go."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from modelhub.serving.gateway.grpc import generated as grpc_generated
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb

PROTO = Path(grpc_generated.__file__).with_name("open_inference.proto")


def fields(message: Any) -> list[tuple[str, int]]:
    if message.GetOptions().map_entry:
        return []
    found = [(field.name, field.number) for field in message.fields]
    found += [(value.name, value.number) for kind in message.enum_types for value in kind.values]
    return found + [row for inner in message.nested_types for row in fields(inner)]


def test_the_generated_code_is_in_step() -> None:
    text = PROTO.read_text()
    written = [(name, int(number)) for name, number in re.findall(r"(\w+) = (\d+);", text)]
    generated = [row for message in pb.DESCRIPTOR.message_types_by_name.values() for row in fields(message)]
    generated += [
        (value.name, value.number) for kind in pb.DESCRIPTOR.enum_types_by_name.values() for value in kind.values
    ]
    assert Counter(written) == Counter(generated)
    [service] = pb.DESCRIPTOR.services_by_name.values()
    methods = [(each.name, each.input_type.name, each.output_type.name) for each in service.methods]
    pattern = r"rpc (\w+)\((?:stream )?(\w+)\) returns \((?:stream )?(\w+)\)"
    assert re.findall(pattern, text) == methods
