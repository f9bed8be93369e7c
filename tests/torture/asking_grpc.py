"""A client that asks a server under load over gRPC, by the messages of the Open Inference Protocol."""

INFER = "/inference.GRPCInferenceService/ModelInfer"


async def asks_on(port, client, told, silent):
    """Call until nobody takes calls any more; a code that says anything else than so is an error."""
    import grpc

    number = 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(INFER)
        while True:
            name, number = f"grpc-{client}-{number}", number + 1
            asked = infer(_request(name), timeout=30)
            if (code := await asked.code()) is grpc.StatusCode.UNAVAILABLE:  # nobody has taken it on
                silent.add(name)
                return
            assert code is grpc.StatusCode.OK, f"{code}: {await asked.details()}"
            whose = _whose(await asked)
            assert whose == name, f"{name} got the answer of {whose}"
            told.add(name)


def _request(name):
    from mlinfer._online._grpc_messages import CLASSES

    request = CLASSES["ModelInferRequest"](model_name="slowly", id=name)
    request.inputs.add(name="who", datatype="BYTES", shape=[1]).contents.bytes_contents.append(name.encode())
    request.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(1.0)
    return request.SerializeToString()


def _whose(data):
    from mlinfer._online._grpc_messages import CLASSES

    answer = CLASSES["ModelInferResponse"].FromString(data)
    place = [one.name for one in answer.outputs].index("whose")
    return answer.outputs[place].contents.bytes_contents[0].decode()
