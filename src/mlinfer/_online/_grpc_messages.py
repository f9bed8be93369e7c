"""The messages of the Open Inference Protocol over gRPC, as far as this server reads and writes them.

Names and numbers are those of the protocol's `open_inference_grpc.proto` (github.com/open-inference, Apache-2.0); fields that
are not here, such as parameters, are passed over. The messages live in a pool of their own: whoever has the stubs of another
package in the same process is not in the way.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
"""The messages `HealthCheckResponse` of gRPC's health protocol: its one field, the status, is a number of one byte."""
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "HealthCheckRequest": {"service": (1, "string")},
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": (1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": (1, "bool")},
    "ModelReadyRequest": {"name": (1, "string"), "version": (2, "string")},
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {"name": (1, "string"), "version": (2, "string"), "extensions": (3, "*string")},
    "ModelMetadataRequest": {"name": (1, "string"), "version": (2, "string")},
    "TensorMetadata": {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "*int64")},
    "ModelMetadataResponse": {
        "name": (1, "string"), "versions": (2, "*string"), "platform": (3, "string"),
        "inputs": (4, "*TensorMetadata"), "outputs": (5, "*TensorMetadata"),
    },
    "InferTensorContents": {
        "bool_contents": (1, "*bool"), "int_contents": (2, "*int32"), "int64_contents": (3, "*int64"),
        "uint_contents": (4, "*uint32"), "uint64_contents": (5, "*uint64"), "fp32_contents": (6, "*float"),
        "fp64_contents": (7, "*double"), "bytes_contents": (8, "*bytes"),
    },
    "InferTensor": {
        "name": (1, "string"), "datatype": (2, "string"), "shape": (3, "*int64"), "contents": (5, "InferTensorContents"),
    },
    "InferRequestedOutputTensor": {"name": (1, "string")},
    "ModelInferRequest": {
        "model_name": (1, "string"), "model_version": (2, "string"), "id": (3, "string"), "inputs": (5, "*InferTensor"),
        "outputs": (6, "*InferRequestedOutputTensor"), "raw_input_contents": (7, "*bytes"),
    },
    "ModelInferResponse": {
        "model_name": (1, "string"), "model_version": (2, "string"), "id": (3, "string"), "outputs": (5, "*InferTensor"),
        "raw_output_contents": (6, "*bytes"),
    },
}  # fmt: skip
"""Field: its number and type, `*` for repeated. The inputs of a request and the outputs of an answer are of one shape."""


def _described() -> descriptor_pb2.FileDescriptorProto:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="mlinfer/open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, spelled) in fields.items():
            kind = spelled.lstrip("*")
            made = message.field.add(name=field, number=number)
            made.label = kinds.LABEL_OPTIONAL if kind == spelled else kinds.LABEL_REPEATED
            if kind in MESSAGES:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                made.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    return file


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_described())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in MESSAGES
    }


CLASSES = _classes()
"""The message classes by name."""
