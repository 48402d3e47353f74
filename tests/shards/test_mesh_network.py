"""FaceMesh's landmark network on its own kernels, against MediaPipe's run of the same file."""

import numpy as np
import pytest

from shards.tracking.models.mesh import MeshNetwork
from shards.tracking.models.mesh.layers import FILE, _Reader
from shards.tracking.models.solutions import Solution, solution

OUTPUTS = ("mesh", "lips", "left_eye", "right_eye", "left_iris", "right_iris", "flag")


def test_the_network_finds_what_mediapipe_finds():
    rng = np.random.default_rng(3)
    theirs, ours = _mediapipe(), MeshNetwork()
    for contrast in (10, 60):
        coarse = rng.normal(120, contrast, (12, 12, 3))
        picture = np.clip(np.kron(coarse, np.ones((16, 16, 1))) + rng.normal(0, 9, (192, 192, 3)), 0, 255).astype(
            np.uint8
        )
        expected = theirs(picture)
        landmarks, face = ours(picture)
        lips, left, right = np.split(ours._program.regions.points, ours._program.regions.ends[:-1])
        mesh = expected["mesh"].reshape(468, 3)
        for points, name in ((lips, "lips"), (left, "left_eye"), (right, "right_eye")):
            mesh[points, :2] = expected[name].reshape(-1, 2)
        irises = np.concatenate([expected["left_iris"], expected["right_iris"]]).reshape(10, 2)
        np.testing.assert_allclose(landmarks[:468], mesh, atol=2e-3)
        np.testing.assert_allclose(landmarks[468:, :2], irises, atol=2e-3)
        assert landmarks[470, 2] == pytest.approx(mesh[left[:16], 2].mean(), abs=1e-3)
        assert face == pytest.approx(expected["flag"][0], abs=1e-3)


def test_networks_do_not_disturb_each_other_and_repeat_themselves():
    rng = np.random.default_rng(4)
    pictures = rng.integers(0, 255, (2, 192, 192, 3), np.uint8)
    one, other = MeshNetwork(), MeshNetwork()
    first = one(pictures[0])[0]
    other(pictures[1])
    np.testing.assert_array_equal(one(pictures[0])[0], first)


def test_a_file_with_other_operators_is_refused_by_name():
    reader = _Reader.__new__(_Reader)
    reader._values = {}
    operator = type("Operator", (), {"builtinOptions": None})
    with pytest.raises(ValueError, match="operator SOFTMAX"):
        reader._take("SOFTMAX", operator, [0], 1)


def test_a_solution_is_loaded_once_in_a_process():
    options = {"model_selection": 0}
    one = solution("selfie_segmentation", "SelfieSegmentation", **options)
    assert isinstance(one, Solution)
    assert one is solution("selfie_segmentation", "SelfieSegmentation", **options)
    assert one is not solution("selfie_segmentation", "SelfieSegmentation", model_selection=1)


def _mediapipe():
    """MediaPipe's run of the network's file, a picture's outputs by name."""
    import mediapipe

    mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True).close()  # says where the files are
    ranges = " ".join(f"ranges {{ begin: {k} end: {k + 1} }}" for k in range(len(OUTPUTS)))
    config = f"""
        input_stream: "image"
        executor {{ name: "" type: "ApplicationThreadExecutor" }}
        node {{ calculator: "ImageToTensorCalculator" input_stream: "IMAGE:image" output_stream: "TENSORS:in"
          options {{ [mediapipe.ImageToTensorCalculatorOptions.ext] {{
            output_tensor_width: 192 output_tensor_height: 192 output_tensor_float_range {{ min: 0 max: 1 }} }} }} }}
        node {{ calculator: "TfLiteCustomOpResolverCalculator" output_side_packet: "OP_RESOLVER:ops" }}
        node {{ calculator: "ConstantSidePacketCalculator" output_side_packet: "PACKET:path"
          options {{ [mediapipe.ConstantSidePacketCalculatorOptions.ext] {{ packet {{ string_value: "mediapipe/{
        FILE
    }" }} }} }} }}
        node {{ calculator: "ResourceProviderCalculator" input_side_packet: "RESOURCE_ID:path"
          output_side_packet: "RESOURCE:file" }}
        node {{ calculator: "TfLiteModelCalculator" input_side_packet: "MODEL_RESOURCE:file"
          output_side_packet: "MODEL:model" }}
        node {{ calculator: "InferenceCalculatorCpu" input_stream: "TENSORS:in" output_stream: "TENSORS:out"
          input_side_packet: "MODEL:model" input_side_packet: "OP_RESOLVER:ops"
          options {{ [mediapipe.InferenceCalculatorOptions.ext] {{ delegate {{ xnnpack {{ }} }} }} }} }}
        node {{ calculator: "SplitTensorVectorCalculator" input_stream: "out" {
        " ".join(f'output_stream: "t{k}"' for k in range(len(OUTPUTS)))
    }
          options {{ [mediapipe.SplitVectorCalculatorOptions.ext] {{ {ranges} }} }} }}
    """
    for number in range(len(OUTPUTS)):
        config += f"""
        output_stream: "f{number}"
        node {{ calculator: "TensorsToFloatsCalculator" input_stream: "TENSORS:t{number}"
          output_stream: "FLOATS:f{number}" }}"""
    graph, found = mediapipe.CalculatorGraph(graph_config=config), {}
    for number, name in enumerate(OUTPUTS):
        take = lambda _, packet, name=name: found.__setitem__(name, packet)  # noqa: E731
        graph.observe_output_stream(f"f{number}", take, False)
    graph.start_run()
    times = iter(range(1, 100))

    def run(picture):
        frame = mediapipe.packet_creator.create_image_frame(image_format=mediapipe.ImageFormat.SRGB, data=picture)
        graph.add_packet_to_input_stream("image", frame.at(next(times)))
        graph.wait_until_idle()
        return {
            name: np.array(mediapipe.packet_getter.get_float_list(packet), np.float32) for name, packet in found.items()
        }

    return run
