"""The messages of gRPC's own services, health and reflection, described here: their packages would bring grpcio along.

They lie in a pool of their own, so that whoever loads these packages too, tests for instance, has no second file of the
same name. Used by `health.py` and `reflection.py`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

POOL = DescriptorPool()

#: Messages and their fields: `name=number:type`; a star after the number: repeated; a bar: one of a choice.
_HEALTH = {
    "HealthCheckRequest": "service=1:string",
    "HealthCheckResponse": "status=1:HealthCheckResponse.ServingStatus",
}
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_REFLECTION = {
    "ServerReflectionRequest": "host=1:string file_by_filename=3|string file_containing_symbol=4|string "
    "file_containing_extension=5|ExtensionRequest all_extension_numbers_of_type=6|string list_services=7|string",
    "ExtensionRequest": "containing_type=1:string extension_number=2:int32",
    "ServerReflectionResponse": "valid_host=1:string original_request=2:ServerReflectionRequest "
    "file_descriptor_response=4|FileDescriptorResponse "
    "all_extension_numbers_response=5|ExtensionNumberResponse list_services_response=6|ListServiceResponse "
    "error_response=7|ErrorResponse",
    "FileDescriptorResponse": "file_descriptor_proto=1*bytes",
    "ExtensionNumberResponse": "base_type_name=1:string extension_number=2*int32",
    "ListServiceResponse": "service=1*ServiceResponse",
    "ServiceResponse": "name=1:string",
    "ErrorResponse": "error_code=1:int32 error_message=2:string",
}
_TYPES = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
}
#: The names of the choices.
_CHOICES = {"ServerReflectionRequest": "message_request", "ServerReflectionResponse": "message_response"}


def message_class(file: FileDescriptor, name: str) -> Any:
    """The class of a message of one of the files here."""
    return GetMessageClass(file.message_types_by_name[name])


def _file(package: str, path: str, messages: dict[str, str], service: str, methods: dict[str, str]) -> FileDescriptor:
    """`methods`: `Request Response`, each with `stream ` before it where there are many."""
    file = FileDescriptorProto(name=path, package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        if "|" in fields:
            message.oneof_decl.add(name=_CHOICES[name])
        for field in fields.split():
            _add_field(message, package, field)
        if name == "HealthCheckResponse":
            statuses = message.enum_type.add(name="ServingStatus")
            for number, each in enumerate(_STATUSES):
                statuses.value.add(name=each, number=number)
    made = file.service.add(name=service)
    for name, kinds in methods.items():
        asked, answered = kinds.split(",")
        made.method.add(
            name=name,
            input_type=f".{package}.{asked.rstrip('*')}",
            output_type=f".{package}.{answered.rstrip('*')}",
            client_streaming=asked.endswith("*"),
            server_streaming=answered.endswith("*"),
        )
    return POOL.AddSerializedFile(file.SerializeToString())


def _add_field(message: DescriptorProto, package: str, text: str) -> None:
    name, _, rest = text.partition("=")
    number, mark, kind = rest[0], rest[1], rest[2:]
    repeated = FieldDescriptorProto.LABEL_REPEATED if mark == "*" else FieldDescriptorProto.LABEL_OPTIONAL
    field = message.field.add(name=name, number=int(number), label=repeated)
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type = FieldDescriptorProto.TYPE_ENUM if "." in kind else FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"
    if mark == "|":
        field.oneof_index = 0


HEALTH = _file(
    "grpc.health.v1",
    "grpc/health/v1/health.proto",
    _HEALTH,
    "Health",
    {
        "Check": "HealthCheckRequest,HealthCheckResponse",
        "Watch": "HealthCheckRequest,HealthCheckResponse*",
    },
)
#: Reflection in both of its versions, which differ in their names only.
REFLECTIONS = [
    _file(
        f"grpc.reflection.{version}",
        f"grpc/reflection/{version}/reflection.proto",
        _REFLECTION,
        "ServerReflection",
        {"ServerReflectionInfo": "ServerReflectionRequest*,ServerReflectionResponse*"},
    )
    for version in ("v1", "v1alpha")
]
