"""Networks run by OpenVINO and by ONNX Runtime. Needs these packages; each is imported where it is used."""

import io

import torch


def openvino(net, example, precision, threads):
    """The network converted by OpenVINO, as a function of tensors. `precision` is that of its sums: f32 or bf16."""
    import openvino

    model = openvino.convert_model(net, example_input=example)
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"},
    )
    request = compiled.create_infer_request()
    return lambda *args: torch.from_numpy(request.infer([arg.numpy() for arg in args])[0])


def onnxruntime(net, example, threads):
    """The network exported to ONNX and run by ONNX Runtime, as a function of tensors."""
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(net, example, file, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *args: torch.from_numpy(session.run(None, dict(zip(names, (arg.numpy() for arg in args))))[0])
