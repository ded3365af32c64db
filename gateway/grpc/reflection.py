"""grpc.reflection, v1 and v1alpha: lets grpcurl and its like list the services and learn their messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FileDescriptor

from .call import Call, Method, parse, whole
from .descriptors import HEALTH, REFLECTIONS, message_class
from .generated import open_inference_pb2 as pb

_FILES: tuple[FileDescriptor, ...] = (pb.DESCRIPTOR, HEALTH, *REFLECTIONS)
_NAMES = sorted(service.full_name for file in _FILES for service in file.services_by_name.values())
_NOT_FOUND = 5
#: Characters of what was asked for, in an error.
_SHOWN = 200


def methods() -> dict[bytes, Method]:
    """The one method of each version by its path."""
    return {
        f"/{file.package}.ServerReflection/ServerReflectionInfo".encode(): Method(_info(file), unary=False)
        for file in REFLECTIONS
    }


def _info(file: FileDescriptor) -> Callable[[Call], Any]:
    request_class, response_class = (message_class(file, f"ServerReflection{kind}") for kind in ("Request", "Response"))

    async def info(call: Call) -> None:
        while (message := await call.next_message()) is not None:
            try:
                if message.refused is not None:
                    raise message.refused
                request: Any = parse(request_class, message.bytes())
            finally:
                message.release()
            response = response_class(valid_host=request.host, original_request=request)
            _fill(response, request)
            await call.write(whole(response))

    return info


def _fill(response: Any, request: Any) -> None:
    asked = request.WhichOneof("message_request")
    found: FileDescriptor | None = None
    if asked == "list_services":
        for name in _NAMES:
            response.list_services_response.service.add(name=name)
        return
    if asked == "file_by_filename":
        found = next((file for file in _FILES if file.name == request.file_by_filename), None)
    elif asked == "file_containing_symbol":
        found = _file_of(request.file_containing_symbol)
    elif asked == "all_extension_numbers_of_type" and _file_of(request.all_extension_numbers_of_type) is not None:
        response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
        return
    if found is None:
        said = "" if asked is None else str(getattr(request, asked)).strip()[:_SHOWN]
        response.error_response.error_code = _NOT_FOUND
        response.error_response.error_message = f"there is no {said!r} here"
    else:
        response.file_descriptor_response.file_descriptor_proto.append(found.serialized_pb)


def _file_of(symbol: str) -> FileDescriptor | None:
    """The file that says what `symbol` is: a service, a method, a message, an enum, a field."""
    for file in _FILES:
        try:
            if file.pool.FindFileContainingSymbol(symbol).name == file.name:
                return file
        except KeyError:
            continue
    return None
